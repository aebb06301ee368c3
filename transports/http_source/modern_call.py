"""One request of the modern era, from its exchange to the end of its response."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, final

import trio

from sluiceway.pipeline.model.handle import Ticket
from sluiceway.pipeline.protocol.codec import encode_message
from sluiceway.pipeline.protocol.errors import InternalError
from sluiceway.pipeline.protocol.mcp import Era, Kind
from sluiceway.pipeline.protocol.messages import Notification, Reply, Request

from ..eras import modern
from ..kept_tasks import kept_scope
from .answers import Answer, error_answer, http_status, json_answer
from .call import Call
from .delivery import Delivery
from .media import JSON, accepts
from .request import HttpRequest, nothing
from .response import HttpResponse
from .serving import Serving, put_piece
from .stream import MessageStream

LISTEN_PATIENCE_S: Final = 1.0
"""How long a LISTEN exchange may take to be refused with a status of its own, before its event stream starts."""


@final
class ModernCall(Call):
    """
    A request, its exchange and its response.

    Args:
        serving: The source.
        message: What was posted.
        request: As which.
        response: Where the answer goes.
    """

    __slots__ = (
        "_body", "_delivery", "_events_only", "_message", "_reply", "_request", "_response", "_stream", "_ticket",
    )  # fmt: skip

    def __init__(self, serving: Serving, message: Request, request: HttpRequest, response: HttpResponse) -> None:
        super().__init__(serving)
        self._message = message
        self._request = request
        self._response = response
        self._events_only = not accepts(request.headers.get("accept"), JSON)
        self._stream: MessageStream | None = None
        self._delivery: Delivery | None = None
        self._reply: Reply | None = None
        self._body: bytes | None = None
        client = modern.client_of(message, request.headers, request.address, request.certificate)
        self._ticket: Ticket | None = serving.handle(message, client=client, emit=self._emit)

    async def serve(self, patience_s: float | None) -> None:
        """
        Serve the exchange, and answer.

        Args:
            patience_s: Seconds to wait for a single answer before this becomes an event stream; the default when None.

        Raises:
            trio.BrokenResourceError: The reply broke off, and so must the response.
        """
        ticket, request = self._ticket, self._request
        assert ticket is not None
        listens = ticket.exchange.kind is Kind.LISTEN
        if self._response.encode is None and not listens:
            ticket.exchange.link.pieces = self._pass_on
        try:
            if request.on_gone is None or listens or patience_s is not None:  # a listener needs the second task anyway
                if patience_s is None:
                    patience_s = self._patience_s
                await self._serve_apart(ticket, min(LISTEN_PATIENCE_S, patience_s) if listens else patience_s)
            else:
                await self._serve_here(ticket, request.on_gone)
        finally:
            self._ticket = None  # which holds what it was given of this call

    async def _serve_apart(self, ticket: Ticket, patience_s: float) -> None:
        self._delivered = trio.Event()
        self._attach()
        self._serving.start(self._run, ticket)
        await self._deliver(patience_s)

    async def _serve_here(self, ticket: Ticket, on_gone: Callable[[Callable[[], None]], None]) -> None:
        serving = self._serving
        on_gone(self._leave)
        self._wait()
        try:
            await self._run(ticket)
        except Exception as error:  # a boundary: a bug beside the pipeline's own ends one exchange, not the source
            serving.contain(error)
        finally:
            serving.patience.discard(self)
        if await self._until_delivered():
            return
        answer = self._whole()
        if answer is not None:
            await self._response.answer(answer)
            on_gone(nothing)
            return
        self._attach()
        await self._deliver(0.0)

    async def _run(self, ticket: Ticket) -> None:
        """Serve the exchange; ends the stream, if there is one."""
        try:
            reply = await ticket.run(kept_scope())
            if reply is not None:
                stream, request_id = self._stream, self._message.id
                if stream is None:
                    self._reply, self._body = self._serving.encode_reply(request_id, reply)
                else:
                    self._reply = self._serving.put_reply(stream, request_id, ticket.exchange.link, reply)
        finally:
            if self._stream is not None:
                self._stream.end()

    # What the exchange says before its reply.

    async def _emit(self, notification: Notification) -> None:
        self.begin()
        assert self._stream is not None
        await self._stream.put(encode_message(notification))

    async def _pass_on(self, piece: bytes) -> None:
        self.begin()
        assert self._stream is not None
        await put_piece(self._stream, self._message.id, piece)

    # The way to the client.

    def _leave(self) -> None:
        if self._ticket is not None:
            self._ticket.cancel("client")

    def _attach(self) -> None:
        stream = self._stream = MessageStream("")
        self._delivery = Delivery(stream, self._response, keep_alive_s=self._serving.config.keep_alive)
        stream.attach(self._delivery)
        if self._body is not None:
            stream.put_reply(self._body)
            stream.end()

    async def _deliver(self, patience_s: float) -> None:
        assert self._delivery is not None
        await self._delivery.run(
            self._request,
            on_start=self._reply_headers,
            on_gone=self._leave,
            whole=self._whole,
            json=not self._events_only,
            patience_s=patience_s,
        )

    def _reply_headers(self) -> Mapping[str, str]:
        assert self._ticket is not None
        return self._ticket.exchange.reply_headers

    def _whole(self) -> Answer | None:
        if self._reply is None:
            return error_answer(InternalError("the exchange ended without an answer"), self._message.id)
        status = http_status(self._reply, Era.MODERN)
        if status == 200 and self._events_only:
            return None
        body = self._body
        if body is None:
            assert self._stream is not None
            body = b"".join(data for _, data in self._stream.take())
        return json_answer(status, body, self._reply_headers())
