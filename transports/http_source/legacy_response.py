"""
One POST of a legacy session with requests in it: its exchanges, its stream, and what becomes of both without a client.

A dropped connection is not a cancel (2025-11-25, transports): the exchanges run on, and what they say is kept until
`resume_window` has passed, then they are cancelled. A client that comes back in time reads on where it stopped.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Mapping
from typing import final

import trio

from sluiceway.pipeline.model.handle import Ticket
from sluiceway.pipeline.protocol.codec import encode_message
from sluiceway.pipeline.protocol.errors import GatewayError, InternalError, render_error
from sluiceway.pipeline.protocol.mcp import Era
from sluiceway.pipeline.protocol.messages import Json, Notification, Reply, Request, Response, Result
from sluiceway.pipeline.runtime.deadlines import Entry

from ..eras import legacy
from ..kept_tasks import kept_scope
from .answers import Answer, error_answer, http_status, json_answer
from .call import Call
from .delivery import Delivery
from .membership import Membership
from .request import HttpRequest
from .response import HttpResponse
from .serving import Serving, put_piece
from .sessions import HttpSession
from .stream import MessageStream


@final
class LegacyResponse(Call):
    """
    The exchanges of one POST, served one after the other, and the stream that carries what they say.

    Args:
        serving: The source.
        member: Whose requests these are, and of which session.
        request: As which they were posted.
        response: Where the answer goes.
        batch: Whether they came in an array, and must be answered in one.
    """

    _reply: Reply | None = None
    _body: bytes | None = None
    """The one reply, as bytes, where no stream was needed for it."""
    _stream: MessageStream | None = None
    _served = 0
    """How many of the exchanges are over."""
    _left = False
    _failed = False
    _over = False
    _delivery: Delivery | None = None
    _expiry: Entry | None = None
    """Made when it is needed: it leads back here, and most responses need none."""

    def __init__(
        self, serving: Serving, member: Membership, request: HttpRequest, response: HttpResponse, *, batch: bool
    ) -> None:
        self._serving = serving
        self.member = member
        self.session = member.session
        self._request = request
        self._response = response
        self._as_events = member.prefers_events
        self._batch = batch
        self._jobs: list[tuple[Request | Notification, Ticket]] = []

    def add(self, message: Request | Notification, ticket: Ticket) -> None:
        """One more exchange; a request is in flight from now on."""
        self._jobs.append((message, ticket))
        if isinstance(message, Request):
            self.session.in_flight[message.id] = ticket

    def refuse(self, error: GatewayError) -> None:
        """Answer an element of a batch that cannot become an exchange."""
        reply = render_error(error, self._serving.context.codes)
        self.stream.put_reply(encode_message(Response(error.request_id, reply)))

    def serve(self, patience_s: float | None) -> Awaitable[None]:
        """
        Serve the exchanges, and answer.

        Args:
            patience_s: Seconds to wait for a single answer before this becomes an event stream; the default when None.

        Raises:
            trio.BrokenResourceError: The reply broke off, and so must the response.
        """
        if patience_s is None and self._request.tells and not self._as_events:
            return self._serve_here()
        return self._serve_apart(self._serving.config.keep_alive if patience_s is None else patience_s)

    async def _serve_apart(self, patience_s: float) -> None:
        self._delivered = trio.Event()
        self._attach()
        self._serving.start(self.run)
        await self._deliver(patience_s)

    async def _serve_here(self) -> None:
        serving = self._serving
        self._request.on_gone(self.left)
        serving.patience.add(self, serving.deadlines.now() + serving.config.keep_alive)
        try:
            await self.run()
        except Exception as error:  # a boundary: a bug beside the pipeline's own ends one exchange, not the source
            serving.contain(error)
        finally:
            serving.patience.times.pop(self, None)
        if self._delivered is not None:
            await self._until_delivered()
        else:
            if self._body is not None and not self._batch:
                status = 200 if type(self._reply) is Result else self.status
                await self._response.answer_json(status, self._body, self.headers())
            else:
                await self._response.answer(self.whole())
            self._jobs.clear()  # they hold what they were given of this

    async def run(self) -> None:
        """Serve the exchanges in order; ends the stream."""
        try:
            for message, ticket in self._jobs:
                self._take(message, ticket, await ticket.run(kept_scope()))
        except Exception:  # passed on to whoever contains it; the client is not to take it for an answer
            self._failed = True
            raise
        finally:
            for message, _ in self._jobs[self._served :]:
                if isinstance(message, Request):
                    self.session.in_flight.pop(message.id, None)
            self._over = True
            if self._stream is not None:
                self._stream.end()
            if self._stream is not None or self._expiry is not None:
                self._lapse_after(self._serving.config.resume_window if self.resumable else math.inf)

    def _take(self, message: Request | Notification, ticket: Ticket, reply: Reply | None) -> None:
        """Take what an exchange ended with."""
        self.member.prove(ticket.exchange.link.caller)
        self._served += 1
        if isinstance(message, Notification):
            return
        self.session.in_flight.pop(message.id, None)
        if reply is not None and self._stream is None and not self._batch:
            self._reply, self._body = self._serving.encode_reply(message.id, reply)
        elif reply is not None:
            self._reply = self._serving.put_reply(self.stream, message.id, ticket.exchange.link, reply)
        if message.method == "initialize":
            self._settle(reply)

    # What the exchanges say before their replies.

    async def emit(self, message: Notification | Request) -> None:
        """Say something before a reply."""
        await self._heard().put(encode_message(message))

    async def ask(self, method: str, params: Mapping[str, Json]) -> Reply:
        """Ask the client; see `Asker`."""
        return await self.session.questions.ask(self.emit, method, params)

    async def pass_on(self, piece: bytes) -> None:
        """Write a part of the long result of the one request; see `Link.pieces`."""
        message, _ = self._jobs[-1]
        assert isinstance(message, Request)
        await put_piece(self._heard(), message.id, piece)

    def _heard(self) -> MessageStream:
        """The stream, which somebody delivers if the client is still there."""
        if not self._left:
            self.begin()
        return self.stream

    def _settle(self, reply: Reply | None) -> None:
        """End the handshake: a session exists only if it was agreed on."""
        session = self.session.session
        if isinstance(reply, Result):
            session.version = legacy.negotiated(reply)
        else:
            session.close()

    # The side of the client.

    @property
    def stream(self) -> MessageStream:
        """Where the messages go, unless the reply is the only one."""
        if self._stream is None:
            self._stream = MessageStream(self._serving.context.new_id())
            if self._left:
                self._stream.end()  # nobody can ever read it
        return self._stream

    def _attach(self) -> None:
        self._delivery = delivery_of(self._serving, self.stream, self.session, self._response)
        self.stream.attach(self._delivery)

    async def _deliver(self, patience_s: float) -> None:
        assert self._delivery is not None
        await self._delivery.run(
            self._request,
            on_start=self.start_events,
            on_gone=self.left,
            whole=self._whole_unless_events,
            json=not self._as_events,
            patience_s=patience_s,
        )

    def _whole_unless_events(self) -> Answer | None:
        return None if self._as_events and self.status == 200 else self.whole()

    @property
    def resumable(self) -> bool:
        """Whether the client has seen an event id of this stream."""
        return self._stream is not None and self.session.responses.get(self._stream.id) is self

    def start_events(self) -> Mapping[str, str]:
        """The response becomes an event stream: what it carries can be resumed from now on. Returns its headers."""
        session = self.session.session
        if legacy.has_event_ids(session.version) and not session.closed:
            self.stream.keep(self._serving.replay)
            self.session.responses[self.stream.id] = self
        return self.headers()

    @property
    def status(self) -> int:
        """Of the single answer."""
        return 200 if self._batch and self.stream.last else http_status(self._reply, Era.LEGACY)

    def whole(self) -> Answer:
        """The single answer of exchanges that said nothing before their replies; takes the replies."""
        body = self._body
        if body is None:
            body = b",".join(data for _, data in self.stream.take())
        if not body and self._failed:
            failed = next((message.id for message, _ in self._jobs if isinstance(message, Request)), None)
            return error_answer(InternalError("the exchange ended without an answer"), failed)
        if not body:
            return Answer(202, headers=self.headers())
        return json_answer(self.status, b"[%b]" % body if self._batch else body, self.headers())

    def headers(self) -> Mapping[str, str]:
        """Response headers, as the exchanges set them; with the session's id when this opens one."""
        if len(self._jobs) == 1 and self._jobs[0][0].method != "initialize":
            return self._jobs[0][1].exchange.reply_headers
        headers: dict[str, str] = {}
        for message, ticket in self._jobs:
            headers |= ticket.exchange.reply_headers
            if message.method == "initialize" and not self.session.session.closed:
                headers[legacy.SESSION_HEADER] = self.session.session.id
        return headers

    def left(self) -> None:
        """The client went away before the end: go on for a while, unless what it was getting cannot be kept."""
        self._left = True
        stream = self._stream
        if stream is not None and stream.is_long:
            self.give_up()
            return
        if stream is not None and not self.resumable:
            stream.end()  # nobody can ever read it, so nothing need be kept
        if not self._over:
            self._lapse_after(self._serving.config.resume_window)

    def resumed(self) -> None:
        """The client is back."""
        if not self._over:
            self._lapse_after(math.inf)

    def give_up(self) -> None:
        """Cancel what still runs and keep nothing. Idempotent."""
        self._lapse_after(math.inf)
        for _, ticket in self._jobs:
            ticket.cancel("client")
        stream = self._stream
        if stream is not None:
            stream.end()
            stream.discard()
        if stream is not None and self.resumable:
            del self.session.responses[stream.id]

    def _lapse_after(self, seconds: float) -> None:
        deadlines = self._serving.deadlines
        if self._expiry is not None:
            deadlines.cancel(self._expiry)
            self._expiry = None
        if seconds < math.inf:
            self._expiry = deadlines.add(trio.current_time() + seconds, self.give_up)


def delivery_of(serving: Serving, stream: MessageStream, session: HttpSession, response: HttpResponse) -> Delivery:
    """Delivers a stream of a session as its revision wants it."""
    version = session.session.version
    return Delivery(
        stream,
        response,
        keep_alive_s=serving.config.keep_alive,
        event_ids=legacy.has_event_ids(version),
        primed=legacy.has_priming(version),
    )
