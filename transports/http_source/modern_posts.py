"""
Serving POSTs of the modern era: each one a whole exchange that ends with its connection.

A client that closes the response stream has cancelled its request, and nothing is kept for it (2026-07-28,
basic/transports/streamable-http).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, final

import trio

from sluiceway.pipeline.model.handle import Ticket
from sluiceway.pipeline.protocol.codec import encode_message
from sluiceway.pipeline.protocol.errors import GatewayError, InternalError, InvalidMessage
from sluiceway.pipeline.protocol.mcp import Era, Kind
from sluiceway.pipeline.protocol.messages import Message, Notification, Reply, Request, RequestId, Response

from ..eras import modern
from .answers import Answer, error_answer, http_status, json_answer
from .delivery import Delivery
from .media import JSON, accepts
from .request import HttpRequest
from .response import HttpResponse
from .serving import Serving, pieces_into
from .stream import MessageStream

LISTEN_PATIENCE_S: Final = 1.0
"""How long a LISTEN exchange may take to be refused with a status of its own, before its event stream starts."""


@final
class ModernCall:
    """
    One exchange and its stream.

    Args:
        serving: The source.
        ticket: The exchange.
        request_id: Of the request it answers.
        stream: Where its messages go.
    """

    def __init__(self, serving: Serving, ticket: Ticket, request_id: RequestId, stream: MessageStream) -> None:
        self.ticket = ticket
        self.reply: Reply | None = None
        """Set when it ended; still None if its client cancelled it."""
        self.stream = stream
        self._serving = serving
        self._request_id = request_id

    async def run(self) -> None:
        """Serve the exchange; ends the stream."""
        try:
            reply = await self.ticket.run()
            if reply is not None:
                link = self.ticket.exchange.link
                self.reply = self._serving.put_reply(self.stream, self._request_id, link, reply)
        finally:
            self.stream.end()


@final
class Aside:
    """
    Delivery beside a call that runs in the task of its request.

    Most calls end soon, with a reply and nothing before it: they need no second task, and no timer but an entry in a
    list. As soon as something comes before the reply, or nothing comes for a while, a task begins to deliver.

    Args:
        serving: The source.
        stream: What there is to deliver.
        delivery: Who delivers it.
        deliver: Has it delivered, with the seconds in which it may still become one answer.
        patience_s: Those seconds.
    """

    def __init__(
        self,
        serving: Serving,
        stream: MessageStream,
        delivery: Delivery,
        deliver: Callable[[float], Awaitable[object]],
        patience_s: float,
    ) -> None:
        self._serving = serving
        self._stream = stream
        self._delivery = delivery
        self._deliver = deliver
        self._patience_s = patience_s
        self._ended: trio.Event | None = None
        self._broken: trio.BrokenResourceError | None = None

    def begin(self) -> None:
        """Deliver from now on. Idempotent."""
        if self._ended is None:
            self._ended = trio.Event()
            self._stream.attach(self._delivery)
            self._serving.start(self._run)

    async def run(self, call: Callable[[], Awaitable[None]]) -> bool:
        """
        Run a call; whether it was delivered, or nothing of it yet.

        Raises:
            trio.BrokenResourceError: The reply broke off, and so must the response.
        """
        deadlines = self._serving.deadlines
        entry = deadlines.add(trio.current_time() + self._patience_s, self._hurry)
        try:
            await self._serving.contained(call)
        finally:
            deadlines.cancel(entry)
        if self._ended is None:
            return False
        await self._ended.wait()
        if self._broken is not None:
            raise self._broken
        return True

    def _hurry(self) -> None:
        self._patience_s = 0.0
        self.begin()

    async def _run(self) -> None:
        assert self._ended is not None
        try:
            await self._deliver(self._patience_s)
        except trio.BrokenResourceError as error:
            self._broken = error
        finally:
            self._ended.set()


@final
class ModernPosts:
    """Serves modern messages of one source."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    async def serve(
        self, message: Message, request: HttpRequest, response: HttpResponse, *, patience_s: float | None = None
    ) -> None:
        """
        Answer one message.

        Args:
            message: What was posted.
            request: As which.
            response: Where the answer goes.
            patience_s: Seconds to wait for a single answer before this becomes an event stream; the default when None.

        Raises:
            GatewayError: It cannot become an exchange.
        """
        if isinstance(message, Response):
            raise InvalidMessage("a client of this revision posts no responses; answers go into the retried request")
        if isinstance(message, Notification):
            await self._notify(message, request)
            await response.answer(Answer(202))
            return
        try:
            modern.check_request(message, request.headers, request.repeated)
            self._serving.refuse_if_draining()
        except GatewayError as error:
            error.request_id = message.id
            raise
        await self._call(message, request, response, patience_s)

    async def _notify(self, notification: Notification, request: HttpRequest) -> None:
        means_something = modern.check_notification(notification, request.headers)
        client = modern.client_of(notification, request.headers, request.address, request.certificate)
        await self._serving.identify(client, notification)  # its exchange has no reply that could refuse it
        if means_something:
            await self._serving.handle(notification, client=client, emit=_drop).run()

    async def _call(
        self, message: Request, request: HttpRequest, response: HttpResponse, patience_s: float | None
    ) -> None:
        serving, stream = self._serving, MessageStream("")
        delivery = Delivery(stream, response, keep_alive_s=serving.config.keep_alive)
        aside: Aside | None = None

        def begin() -> None:
            if aside is not None:
                aside.begin()

        async def emit(notification: Notification) -> None:
            begin()
            await stream.put(encode_message(notification))

        client = modern.client_of(message, request.headers, request.address, request.certificate)
        ticket = serving.handle(message, client=client, emit=emit)
        listens = ticket.exchange.kind is Kind.LISTEN
        if response.encode is None and not listens:
            ticket.exchange.link.pieces = pieces_into(stream, message.id, begin)
        call = ModernCall(serving, ticket, message.id, stream)
        events_only = not accepts(request.headers.get("accept"), JSON)

        def leave() -> None:
            ticket.cancel("client")

        def whole() -> Answer | None:
            if call.reply is None:
                return error_answer(InternalError("the exchange ended without an answer"), message.id)
            status = http_status(call.reply, Era.MODERN)
            if status == 200 and events_only:
                return None
            body = b"".join(data for _, data in stream.take())
            return json_answer(status, body, ticket.exchange.reply_headers)

        async def deliver(patience_s: float) -> None:
            await delivery.run(
                request,
                on_start=lambda: ticket.exchange.reply_headers,
                on_gone=leave,
                whole=whole,
                json=not events_only,
                patience_s=patience_s,
            )

        if patience_s is None:
            patience_s = serving.config.keep_alive
        if listens:
            patience_s = min(LISTEN_PATIENCE_S, patience_s)
        if listens or not request.tells or patience_s == 0:  # a listener would need the second task anyway
            serving.start(call.run)
            await deliver(patience_s)
            return
        aside = Aside(serving, stream, delivery, deliver, patience_s)
        with request.watch(leave):
            if await aside.run(call.run):
                return
            answer = whole()
            if answer is not None:
                await response.answer(answer)
                return
        await deliver(0.0)


async def _drop(_: Notification) -> None:
    """A notification has no stream on which something could come back."""
