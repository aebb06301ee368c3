"""
One HTTP/2 connection of our server: reading, writing, and the times a client gets for each.

One task reads and never waits for anything else, so that it sees what is cancelled behind what is stuck; one writes
whatever has come together; and each request has a task. A response that the client does not take waits in its own task,
having given the connection no more than `HIGH_WATER` bytes.
"""

from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, final

import trio
from h2 import events
from h2.errors import ErrorCodes
from hypercorn.utils import parse_socket_addr

from .frames import FrameRefused
from .streams import Streams
from .wire import HEARD_ANSWERS, HEARD_GOAWAY, Wire
from .writer import GONE, Writer

if TYPE_CHECKING:
    from ..server import HttpServer

MAX_RECV: Final = 64 * 1024
LINGER_S: Final = 1.0
"""How long to read and drop after the last frame: closing with unread bytes would reset it away."""
GRACE_S: Final = 1.0
"""How long a client that was told to go may take to say that it heard."""
_MAX_LINGER: Final = 8 * 1024 * 1024


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
        self._writer = Writer(self.wire, stream, limits.stall_timeout)
        self._server = server
        self._limits = limits
        self._stream = stream
        self._streams = Streams(self, server)
        self._reading = trio.CancelScope()
        self._deadline = math.inf
        self._head_by = math.inf
        self._idle_by = math.inf
        self._draining = False
        self._announced = False
        self._grace_by = math.inf
        self._finished = False

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
            async with trio.open_nursery() as nursery:
                self._server.opened(self)
                self._streams.open(nursery)
                nursery.start_soon(self._writer.run, self._is_complete, self._give_up)
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
        self._writer.wake()

    async def until_taken(self) -> None:
        """Wait until the socket gets what waits for it."""
        await self._writer.until_taken()

    def common_headers(self) -> list[tuple[bytes, bytes]]:
        """Of every response."""
        return self._server.hypercorn.response_headers("h2")

    def asked(self) -> None:
        """The client asks for something more."""
        if self._draining:
            self._announce_end()

    def rested(self) -> None:
        """Everything is answered that the client asked for."""
        self._rest(trio.current_time())
        if self._draining and not self._announced:
            self._grace_by = trio.current_time() + GRACE_S
            self.wire.ping(HEARD_ANSWERS)
            self.wake()
        self._look()

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
                except GONE:
                    left = True
            if self._reading.cancelled_caught:
                if trio.current_time() >= self._deadline:
                    self._finish(ErrorCodes.NO_ERROR)
            elif left or not data:
                left = True
                self._finish(ErrorCodes.NO_ERROR)
            elif not self._finished:  # else the writer has found the client gone, and what it had sent asks for nothing
                self._received(data)
        await self._writer.until_ended()
        if not left:
            await self._linger()

    def _received(self, data: bytes) -> None:
        greeted, now = self.wire.gate.greeted, trio.current_time()
        try:
            for event in self.wire.receive(data, now):
                if isinstance(event, events.PingAckReceived):
                    self._ping_answered(event)
                else:
                    self._streams.take(event)
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
        self._streams.leave()
        self._reading.cancel()
        self.wake()

    def _is_complete(self) -> bool:
        return self._finished and not self._streams

    def _give_up(self) -> None:
        self._finish(ErrorCodes.NO_ERROR)

    async def _linger(self) -> None:
        lingered = 0
        with trio.move_on_after(LINGER_S), suppress(*GONE):
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

    def _ping_answered(self, event: events.PingAckReceived) -> None:
        if event.ping_data == HEARD_ANSWERS and self._draining:
            self._announce_end()
        elif event.ping_data == HEARD_GOAWAY and self._announced:
            self._grace_by = -math.inf
