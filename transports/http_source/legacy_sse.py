"""
HTTP+SSE, the transport of 2024-11-05: one event stream carries all that a client hears, POSTs all that it says.

A GET opens the stream. Its first event, `endpoint`, says where to post: the same path, with the stream's unguessable id
in the query. Every POST is answered 202; replies, notifications and questions come as `message` events. What a POST
carries goes the way of any connection that carries everything (`transports/connection.py`), so messages of 2026-07-28
are served here as well. When the stream is gone, so is the session, and what is under way is cancelled: there are no
event ids, and nobody could read the answers.

The id is no credential. GET and POSTs pass the auth stages each, and a stream takes messages of its own principal only.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Final, final
from urllib.parse import parse_qs

import trio

from sluiceway.pipeline.model.session import Caller
from sluiceway.pipeline.model.worker import marked
from sluiceway.pipeline.protocol.codec import decode_message
from sluiceway.pipeline.protocol.errors import CapacityExceeded, InvalidMessage
from sluiceway.pipeline.protocol.messages import Message, Notification, Response
from sluiceway.pipeline.runtime.deadlines import SLOT_S
from sluiceway.pipeline.runtime.nursery import farewell, open_background_nursery

from ..connection import Connection, Peer
from ..eras import modern
from ..outbox import Outbox
from ..sse_codec import COMMENT, encode_event
from .answers import Answer, HttpError
from .config import SseConfig
from .delivery import EVENT_HEADERS
from .media import EVENTS, accepts
from .proofs import NotingHandle, Proofs, unknown_session
from .request import HttpRequest
from .response import HttpResponse
from .serving import Serving

STREAM_ID: Final = "session_id"
"""The query parameter that names a stream."""
_MAX_FIELDS: Final = 8
_LAST_WRITE_S: Final = 1.0
"""How long a client may take to read what was answered before the source closes."""
_CANCELLED: Final = "notifications/cancelled"


@final
class _EventWriter:
    """Lines as events of one response. An empty line is a comment."""

    def __init__(self, response: HttpResponse) -> None:
        self._response = response
        self.written_at = trio.current_time()
        """When the latest write ended, in Trio clock seconds."""

    async def send_all(self, data: bytes) -> None:
        """Write lines; blocks while the client reads slowly."""
        events = (encode_event(line, kind="message") if line else COMMENT for line in data[:-1].split(b"\n"))
        await self._response.write(b"".join(events))
        self.written_at = trio.current_time()


@final
class EventStream:
    """
    One client, from its GET to the end of the response.

    Args:
        serving: The source.
        options: What a stream may cost.
        caller: Who opened it, as the auth stages found; None where there are none.
    """

    def __init__(self, serving: Serving, options: SseConfig, caller: Caller | None) -> None:
        self.id = marked(serving.context.new_id(), serving.context.worker)
        """Unguessable."""
        self._serving = serving
        self._options = options
        self._caller = caller
        self._proofs = Proofs()
        self._outbox = Outbox(options.max_unread)
        self._connection: Connection | None = None
        self._writer: _EventWriter | None = None
        self._over, self._written = trio.Event(), trio.Event()
        self._background: trio.Nursery | None = None
        self._draining = False
        deadlines, now = serving.deadlines, trio.current_time()
        self._alive = deadlines.add(now + serving.config.keep_alive, self._keep_alive)
        self._patience = deadlines.add(now + serving.config.idle_timeout, self.end)

    async def run(self, request: HttpRequest, response: HttpResponse) -> None:
        """Serve until the client is gone, `end` is called, or it has drained."""
        try:
            async with open_background_nursery() as background:
                try:
                    async with trio.open_nursery() as exchanges:
                        self._connect(exchanges, request)
                        background.start_soon(self._write, request, response)
                        self._background = background
                        if self._draining:
                            self.stop_accepting()
                        with request.watch(self.end):
                            await self._over.wait()
                        exchanges.cancel_scope.cancel()
                finally:
                    self._disconnect()
                    with farewell(_LAST_WRITE_S):
                        await self._written.wait()  # noqa: ASYNC102  # farewell is a bounded shield
        finally:
            self._serving.deadlines.cancel(self._alive)
            self._serving.deadlines.cancel(self._patience)

    async def _write(self, request: HttpRequest, response: HttpResponse) -> None:
        where = f"{request.path}?{STREAM_ID}={self.id}".encode()
        writer = self._writer = _EventWriter(response)
        await response.start(200, EVENT_HEADERS)
        await response.write(encode_event(where, kind="endpoint"))
        await self._outbox.run(writer)
        await response.write(b"", last=True)
        self._written.set()
        self._over.set()

    async def _drain(self, connection: Connection) -> None:
        """End as soon as nothing is under way."""
        await connection.drained.wait()
        self._outbox.close()  # the response ends behind what still waits

    def _connect(self, exchanges: trio.Nursery, request: HttpRequest) -> None:
        serving = self._serving
        self._connection = Connection(
            serving.context,
            NotingHandle(serving.handle, self._proofs),
            exchanges,
            self._outbox,
            transport="sse",
            max_in_flight=self._options.max_in_flight,
            peer=_peer_of(request),
        )

    def _disconnect(self) -> None:
        """Its exchanges have ended, so nothing stands on the session any more."""
        self._outbox.close()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def end(self) -> None:
        """The client is gone, or not worth the wait: cancel what is under way. Idempotent, never blocks."""
        self._over.set()

    def stop_accepting(self) -> None:
        """Refuse new requests, and end as soon as nothing is under way."""
        self._draining = True
        if self._connection is not None and self._background is not None:
            self._connection.stop_accepting()
            self._background.start_soon(self._drain, self._connection)

    async def take(self, message: Message, request: HttpRequest) -> None:
        """
        Take a message that was posted.

        Raises:
            SessionNotFound: It is another principal's, or the stream has ended.
            GatewayError: The auth stages refuse.
        """
        peer = _peer_of(request)
        visitor = modern.visitor(peer.headers, peer.address, peer.certificate)
        caller = await self._serving.identify(visitor, None if isinstance(message, Response) else message)
        connection = self._connection
        if connection is None or not _same(self._caller, caller):
            raise unknown_session()
        if caller is None and _reaches_no_chain(message) and connection.session is not None:
            self._proofs.check(request.headers, connection.session)
        self._serving.deadlines.cancel(self._patience)
        connection.peer = peer
        connection.receive(message)

    def _keep_alive(self) -> None:
        """Send a comment if nothing was written for long enough, unless something waits to be read already."""
        keep_alive_s, now = self._serving.config.keep_alive, trio.current_time()
        due = now + keep_alive_s
        if self._writer is not None and self._writer.written_at + keep_alive_s > now + SLOT_S:
            due = self._writer.written_at + keep_alive_s
        elif not self._outbox.size:
            with suppress(trio.ClosedResourceError):
                self._outbox.put_nowait(b"")
        self._serving.deadlines.move(self._alive, due)


@final
class LegacySse:
    """
    Serves the clients of HTTP+SSE of one source.

    Args:
        serving: The source.
        options: Where and how.
    """

    def __init__(self, serving: Serving, options: SseConfig) -> None:
        self._serving = serving
        self._options = options

    async def listen(self, request: HttpRequest, response: HttpResponse) -> None:
        """
        Serve a GET: a stream, for as long as its client reads it.

        Raises:
            HttpError: The client does not take event streams.
            GatewayError: The auth stages refuse, or there is no room, or it drains.
        """
        serving, peer = self._serving, _peer_of(request)
        if not accepts(request.headers.get("accept", "*/*"), EVENTS):
            raise HttpError(406, "Accept must list text/event-stream")
        serving.refuse_if_draining()
        caller = await serving.identify(modern.visitor(peer.headers, peer.address, peer.certificate), None)
        maximum = serving.config.max_sessions
        if len(serving.event_streams) >= maximum:
            raise CapacityExceeded(
                f"{maximum} event streams are open; raise max_sessions or try again later", retry_after_s=1.0
            )
        stream = EventStream(serving, self._options, caller)
        serving.event_streams[stream.id] = stream
        try:
            await stream.run(request, response)
        finally:
            del serving.event_streams[stream.id]

    async def post(self, body: bytes, request: HttpRequest, response: HttpResponse) -> None:
        """
        Take one message to the stream that the query names.

        Raises:
            InvalidMessage: It names none, or the body is not one message.
            SessionNotFound: There is no such stream.
            GatewayError: The auth stages refuse.
        """
        try:
            named = parse_qs(request.query.decode("latin-1"), max_num_fields=_MAX_FIELDS).get(STREAM_ID, ())
        except ValueError:
            named = ()
        if len(named) != 1:
            raise InvalidMessage(f"post to the address that the event stream named: ?{STREAM_ID}=...")
        stream = self._serving.event_streams.get(named[0])
        if stream is None:
            raise unknown_session()
        await stream.take(decode_message(body, self._serving.limits), request)
        await response.answer(Answer(202))


def _peer_of(request: HttpRequest) -> Peer:
    """Who sends a request. Headers that mirror a body mean something in Streamable HTTP only."""
    headers: Mapping[str, str] = {k: v for k, v in request.headers.items() if not k.startswith("mcp-")}
    return Peer(request.address, headers, request.certificate)


def _same(one: Caller | None, other: Caller | None) -> bool:
    if one is None or other is None:
        return one is other
    return (one.subject, one.tenant) == (other.subject, other.tenant)


def _reaches_no_chain(message: Message) -> bool:
    return isinstance(message, Response) or (isinstance(message, Notification) and message.method == _CANCELLED)
