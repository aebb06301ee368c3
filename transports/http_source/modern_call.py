"""One request of the modern era, from its exchange to the end of its response."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Final, final

import trio

from sluiceway.pipeline.model.handle import Ticket
from sluiceway.pipeline.protocol.codec import encode_message
from sluiceway.pipeline.protocol.errors import InternalError
from sluiceway.pipeline.protocol.mcp import Era, Kind
from sluiceway.pipeline.protocol.messages import Notification, Reply, Request, Result

from ..kept_tasks import kept_scope
from .answers import Answer, error_answer, http_status, json_answer
from .call import Call
from .delivery import Delivery
from .request import HttpRequest
from .response import HttpResponse
from .said import Said
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
        said: By whom.
        request: As which.
        response: Where the answer goes.
    """

    _stream: MessageStream | None = None
    _delivery: Delivery | None = None
    _reply: Reply | None = None
    _body: bytes | None = None
    """The reply, as bytes, where no stream was needed for it."""

    def __init__(
        self, serving: Serving, message: Request, said: Said, request: HttpRequest, response: HttpResponse
    ) -> None:
        self._serving = serving
        self._message = message
        self._said = said
        self._request = request
        self._response = response
        self._ticket: Ticket | None = serving.handle(message, client=said.client, emit=self._emit)

    def serve(self, patience_s: float | None) -> Awaitable[None]:
        """
        Serve the exchange, and answer.

        Args:
            patience_s: Seconds to wait for a single answer before this becomes an event stream; the default when None.

        Raises:
            trio.BrokenResourceError: The reply broke off, and so must the response.
        """
        ticket = self._ticket
        assert ticket is not None
        if ticket.exchange.kind is Kind.LISTEN:  # which needs the second task anyway
            patience_s = self._serving.config.keep_alive if patience_s is None else patience_s
            return self._serve_apart(ticket, min(LISTEN_PATIENCE_S, patience_s))
        if self._response.encode is None:
            ticket.exchange.link.pieces = self._pass_on
        if patience_s is None and self._request.tells:
            return self._serve_here(ticket)
        return self._serve_apart(ticket, self._serving.config.keep_alive if patience_s is None else patience_s)

    async def _serve_apart(self, ticket: Ticket, patience_s: float) -> None:
        self._delivered = trio.Event()
        self._attach()
        self._serving.start(self._run, ticket)
        try:
            await self._deliver(patience_s)
        finally:
            self._ticket = None  # which holds what it was given of this call

    async def _run(self, ticket: Ticket) -> None:
        """Serve the exchange; ends the stream."""
        stream = self._stream
        assert stream is not None
        try:
            self._put(stream, ticket, await ticket.run())
        finally:
            stream.end()

    def _put(self, stream: MessageStream, ticket: Ticket, reply: Reply | None) -> None:
        if reply is not None:
            self._reply = self._serving.put_reply(stream, self._message.id, ticket.exchange.link, reply)

    async def _serve_here(self, ticket: Ticket) -> None:
        serving = self._serving
        self._request.on_gone(ticket.cancel)
        serving.patience.add(self, serving.deadlines.now() + serving.config.keep_alive)
        try:
            try:
                reply = await ticket.run(kept_scope())
                if self._stream is not None:
                    self._put(self._stream, ticket, reply)
                elif reply is not None:
                    self._reply, self._body = serving.encode_reply(self._message.id, reply)
            except Exception as error:  # a boundary: a bug beside the pipeline's own ends one exchange, not the source
                serving.contain(error)
            finally:
                serving.patience.times.pop(self, None)
                if self._stream is not None:
                    self._stream.end()
            if self._delivered is not None:
                await self._until_delivered()
            elif self._body is not None and self._said.takes_json:
                status = 200 if type(self._reply) is Result else http_status(self._reply, Era.MODERN)
                await self._response.answer_json(status, self._body, ticket.exchange.reply_headers)
            else:
                await self._answer_otherwise()
        finally:
            self._ticket = None  # which holds what it was given of this call

    async def _answer_otherwise(self) -> None:
        """Answer a client that takes no JSON, or one whose exchange ended without an answer."""
        answer = self._whole()
        if answer is not None:
            await self._response.answer(answer)
        else:
            self._attach()
            await self._deliver(0.0)

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
            json=self._said.takes_json,
            patience_s=patience_s,
        )

    def _reply_headers(self) -> Mapping[str, str]:
        assert self._ticket is not None
        return self._ticket.exchange.reply_headers

    def _whole(self) -> Answer | None:
        if self._reply is None:
            return error_answer(InternalError("the exchange ended without an answer"), self._message.id)
        status = http_status(self._reply, Era.MODERN)
        if status == 200 and not self._said.takes_json:
            return None
        body = self._body
        if body is None:
            assert self._stream is not None
            body = b"".join(data for _, data in self._stream.take())
        return json_answer(status, body, self._reply_headers())
