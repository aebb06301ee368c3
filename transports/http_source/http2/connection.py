"""
One HTTP/2 connection of our server: reading, writing, and the times a client gets for each.

One task reads and never waits for anything else, so that it sees what is cancelled behind what is stuck; one writes
whatever has come together; and each request has a task. A response that the client does not take waits in its own task,
having given the connection no more than `HIGH_WATER` bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, final

import trio
from h2 import events
from h2.errors import ErrorCodes
from hypercorn.utils import parse_socket_addr

from .fields import Malformed, check_trailers, read_head
from .frames import FrameRefused
from .stream import RequestStream
from .wire import HEARD_ANSWERS, HEARD_GOAWAY, Wire

if TYPE_CHECKING:
    from ..server import HttpServer

MAX_RECV: Final = 64 * 1024
LINGER_S: Final = 1.0
"""How long to read and drop after the last frame: closing with unread bytes would reset it away."""
GRACE_S: Final = 1.0
"""How long a client that was told to go may take to say that it heard."""
_MAX_LINGER: Final = 8 * 1024 * 1024
_GONE: Final = (trio.BrokenResourceError, trio.ClosedResourceError)


@final
class Http2Connection:
    """
    A connection from accept to close.

    Args:
        server: Whose connection it is.
        stream: Its bytes. Closed at the end.
        extensions: What applications are told of it, by the name of the ASGI extension.
    """

    def __init__(self, server: HttpServer, stream: Any, extensions: dict[str, Any]) -> None:
        limits = server.limits
        self.client: tuple[str, int] | None = None
        """Remote address and port, once it runs; None where there is none."""
        self.server_address: tuple[str, int] | None = None
        """Likewise, of ours."""
        self.extensions = extensions
        self.stall_timeout: float = limits.stall_timeout
        """Seconds a client may leave a response unread."""
        self.wire = Wire(limits.max_streams)
        self._server = server
        self._limits = limits
        self._stream = stream
        self._streams: dict[int, RequestStream] = {}
        """Requests whose task has not ended: resetting a stream makes no room for another before its task has."""
        self._reading = trio.CancelScope()
        self._deadline = math.inf
        self._head_by = math.inf
        self._idle_by = math.inf
        self._draining = False
        self._announced = False
        self._grace_by = math.inf
        self._finished = False
        self._work = trio.Event()
        self._taken = trio.Event()
        self._written = trio.Event()
        self._on: dict[type[events.Event], Callable[[Any], None]] = {
            events.RequestReceived: self._request,
            events.DataReceived: self._data,
            events.TrailersReceived: self._trailers,
            events.StreamEnded: self._stream_ended,
            events.StreamReset: self._stream_reset,
            events.WindowUpdated: self._window_updated,
            events.RemoteSettingsChanged: self._settings_changed,
            events.PingAckReceived: self._ping_answered,
        }

    @property
    def streams(self) -> int:
        """Requests that are being served."""
        return len(self._streams)

    async def run(self) -> None:
        """Serve the connection to its end."""
        socket = getattr(self._stream, "socket", None)
        if socket is not None:
            try:
                self.client = parse_socket_addr(socket.family, socket.getpeername())
                self.server_address = parse_socket_addr(socket.family, socket.getsockname())
            except OSError:
                return  # gone before it began
        try:
            async with trio.open_nursery() as self._nursery:
                self._server.opened(self)
                self._nursery.start_soon(self._write)
                await self._read()
        finally:
            self._server.closed(self)
            await self._stream.aclose()  # noqa: ASYNC102  # closes even when it is cancelled

    def drain(self) -> None:
        """
        Take no more requests than are on their way, and close when they are answered. Idempotent.

        While calls are under way, and until the client has heard their answers, nothing is said unless it asks for
        more: clients on Python's h2 give up on all of them when they hear GOAWAY.
        """
        self._draining = True
        if not self._streams:
            self._announce_end()

    def _announce_end(self) -> None:
        if self._announced:
            return
        self._announced = True
        self._grace_by = trio.current_time() + GRACE_S
        self.wire.announce_end()
        self.wake()
        self._look()

    # What requests need of their connection.

    def wake(self) -> None:
        """There is something to write."""
        self._work.set()

    async def until_written(self) -> None:
        """Wait until the socket has taken some of what waits for it."""
        await self._taken.wait()

    def common_headers(self) -> list[tuple[bytes, bytes]]:
        """Of every response."""
        return self._server.hypercorn.response_headers("h2")

    # Reading.

    async def _read(self) -> None:
        self._head_by = trio.current_time() + self._limits.head_timeout
        self._look()
        left = False
        while not self._finished:
            data = b""
            with trio.CancelScope(deadline=self._deadline) as self._reading:
                try:
                    data = bytes(await self._stream.receive_some(MAX_RECV))
                except _GONE:
                    left = True
            if self._reading.cancelled_caught:
                if trio.current_time() >= self._deadline:
                    self._finish(ErrorCodes.NO_ERROR)
            elif left or not data:
                left = True
                self._finish(ErrorCodes.NO_ERROR)
            else:
                self._received(data)
        await self._written.wait()
        if not left:
            await self._linger()

    def _received(self, data: bytes) -> None:
        greeted, now = self.wire.gate.greeted, trio.current_time()
        try:
            for event in self.wire.receive(data, now):
                handle = self._on.get(type(event))
                if handle is not None:
                    handle(event)
            if self.wire.gate.refused is not None:
                raise self.wire.gate.refused
        except FrameRefused as refused:
            self._cut(refused)
            return
        if self.wire.gate.goaway is not None:
            self._grace_by = -math.inf  # it will send no more requests
            if self.wire.gate.goaway != ErrorCodes.NO_ERROR:
                self._finish(ErrorCodes.NO_ERROR)
        if not greeted and self.wire.gate.greeted:
            self._rest(now)
        if not self.wire.gate.greeted or self.wire.gate.heading:
            self._head_by = min(self._head_by, now + self._limits.head_timeout)
        else:
            self._head_by = math.inf
        self.wake()
        self._look()

    def _cut(self, refused: FrameRefused) -> None:
        """End the connection over what the client does."""
        if refused.code is ErrorCodes.ENHANCE_YOUR_CALM:
            self._server.floods += 1
        self._server.refused(self.client and self.client[0])
        self.wire.end(refused.code)
        self._finish(refused.code)

    def _finish(self, code: ErrorCodes) -> None:
        """Nothing more is read or answered; what waits is still written. Idempotent."""
        if self._finished:
            return
        self._finished = True
        self.wire.end(code)
        for stream in list(self._streams.values()):
            stream.leave()
        self._reading.cancel()
        self.wake()

    async def _linger(self) -> None:
        lingered = 0
        with trio.move_on_after(LINGER_S), suppress(*_GONE):
            while lingered <= _MAX_LINGER and (data := await self._stream.receive_some(MAX_RECV)):
                lingered += len(data)

    def _rest(self, now: float) -> None:
        """Nothing is being served from now on."""
        self._idle_by = now + self._limits.idle_timeout

    def _look(self) -> None:
        """Find out how long to wait for the client."""
        by = self._head_by
        if not self._streams:
            by = min(by, self._grace_by, self._idle_by)
        self._deadline = self._reading.deadline = by

    # Writing.

    async def _write(self) -> None:
        try:
            while True:
                if self.wire.pending:
                    data = self.wire.take()
                    self._taken.set()
                    self._taken = trio.Event()
                    with trio.CancelScope(deadline=trio.current_time() + self.stall_timeout) as patience:
                        await self._stream.send_all(data)
                    if patience.cancelled_caught:
                        await trio.aclose_forcefully(self._stream)
                        break
                elif self._finished and not self._streams:
                    await self._stream.send_eof()
                    break
                else:
                    self._work = trio.Event()
                    await self._work.wait()
        except _GONE:
            pass
        self._finish(ErrorCodes.NO_ERROR)
        self._taken.set()
        self._written.set()

    # What the client says.

    def _request(self, event: events.RequestReceived) -> None:
        stream_id = event.stream_id
        assert stream_id is not None
        if self._draining:
            self._announce_end()
        if len(self._streams) >= self._limits.max_streams:
            self._fail(stream_id, ErrorCodes.REFUSED_STREAM)
            return
        try:
            head = read_head(event.headers or ())
        except Malformed:
            self._server.refused(self.client and self.client[0])
            self._fail(stream_id, ErrorCodes.PROTOCOL_ERROR)
            return
        stream = self._streams[stream_id] = RequestStream(self, stream_id, head)
        if head.status is not None:
            self._server.refused(self.client and self.client[0])
            stream.refuse(head.status, *([(b"allow", b"GET, POST, DELETE")] if head.status == 405 else []))
        self._nursery.start_soon(self._serve, stream)

    def _fail(self, stream_id: int, code: ErrorCodes) -> None:
        self.wire.gate.spend_reset(trio.current_time())
        self.wire.reset(stream_id, code)

    async def _serve(self, stream: RequestStream) -> None:
        """The task of one request; many are over before it starts."""
        try:
            if not (stream.gone or stream.answered):
                await self._server.application(stream.scope(), stream.receive, stream.send)
        except Exception as error:  # a boundary: a bug in one request ends that request
            self._server.contain(error)
        finally:
            self._end(stream)

    def _end(self, stream: RequestStream) -> None:
        del self._streams[stream.id]
        self.wire.consume(stream.id, stream.unread())
        if not stream.gone:
            if not stream.started:
                stream.refuse(500)
            if not stream.answered:
                self.wire.reset(stream.id, ErrorCodes.INTERNAL_ERROR)
            elif not stream.heard_out:
                self.wire.reset(stream.id, ErrorCodes.NO_ERROR)  # RFC 9113 section 8.1: the rest is not needed
        self.wake()
        if not self._streams:
            self._rest(trio.current_time())
            if self._draining and not self._announced:
                self._grace_by = trio.current_time() + GRACE_S
                self.wire.ping(HEARD_ANSWERS)
            self._look()

    def _data(self, event: events.DataReceived) -> None:
        assert event.stream_id is not None
        stream = self._streams.get(event.stream_id)
        counted = event.flow_controlled_length or 0
        if stream is None or stream.gone or stream.answered:
            self.wire.consume(event.stream_id, counted)
        else:
            stream.feed(event.data or b"", counted)

    def _trailers(self, event: events.TrailersReceived) -> None:
        assert event.stream_id is not None
        try:
            check_trailers(event.headers or ())
        except Malformed:
            self._fail(event.stream_id, ErrorCodes.PROTOCOL_ERROR)
            self._leave(event.stream_id)

    def _stream_ended(self, event: events.StreamEnded) -> None:
        stream = self._streams.get(event.stream_id or 0)
        if stream is not None and not stream.end_body():
            self._server.refused(self.client and self.client[0])
            self._fail(stream.id, ErrorCodes.PROTOCOL_ERROR)
            stream.leave()

    def _stream_reset(self, event: events.StreamReset) -> None:
        if not event.remote_reset:  # h2 did, over what the client sent; the gate counts what the client resets
            self.wire.gate.spend_reset(trio.current_time())
        self._leave(event.stream_id or 0)

    def _leave(self, stream_id: int) -> None:
        stream = self._streams.get(stream_id)
        if stream is not None:
            stream.leave()

    def _window_updated(self, event: events.WindowUpdated) -> None:
        if event.stream_id:
            stream = self._streams.get(event.stream_id)
            if stream is not None:
                stream.open_window()
        else:
            self._open_windows()

    def _settings_changed(self, _event: events.RemoteSettingsChanged) -> None:
        self._open_windows()

    def _open_windows(self) -> None:
        for stream in self._streams.values():
            stream.open_window()

    def _ping_answered(self, event: events.PingAckReceived) -> None:
        if event.ping_data == HEARD_ANSWERS and self._draining:
            self._announce_end()
        elif event.ping_data == HEARD_GOAWAY and self._announced:
            self._grace_by = -math.inf
