"""An HTTP/2 server by hand, frame by frame in memory, and a client that is connected to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, TypeVar

import hpack
import pytest
import trio
import trio.testing
from attrs import define, field
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from sluiceway.pipeline.model.origin import Origin
from sluiceway.transports.http_client.client import Http2Offer, HttpClient
from sluiceway.transports.http_client.pool import PoolLimits
from sluiceway.transports.http_client.response import Response

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
ORIGIN = Origin(False, "up.example", 80, "/mcp")
F = TypeVar("F", bound=Frame)


class MemoryTransport:
    """The client's end of a connection in memory."""

    def __init__(self, stream: trio.StapledStream[Any, Any], *, http2: bool = True) -> None:
        self._stream = stream
        self.speaks_http2 = http2
        self.closed = False

    def send_nowait(self, data: bytes) -> int:
        return 0

    async def send_all(self, data: bytes | memoryview) -> None:
        await self._stream.send_all(data)

    async def receive_some(self, max_bytes: int) -> bytes:
        return bytes(await self._stream.receive_some(max_bytes))

    def close(self) -> None:
        self.closed = True
        self._stream.send_stream.close()
        self._stream.receive_stream.close()

    def is_readable(self) -> bool:
        return False


class Hung(Exception):
    """The client closed the connection."""


@define(eq=False)
class Asked:
    """A request as the server got it."""

    stream_id: int
    headers: dict[str, str]
    body: bytes


class Peer:
    """The server's end of one connection."""

    def __init__(self, stream: trio.StapledStream[Any, Any], number: int) -> None:
        self.stream = stream
        self.number = number
        self.encoder = hpack.Encoder()
        self._decoder = hpack.Decoder()
        self._buffer = bytearray()
        self.seen: list[Frame] = []
        """All frames that came."""
        self.polite = True
        """Answers pings and settings, and opens windows again."""
        self._later: list[Frame] = []
        self._begun: dict[int, Asked] = {}
        self._sending = trio.StrictFIFOLock()
        self._initial = 65535
        self._windows: dict[int, int] = {0: 65535}

    async def _read(self, count: int) -> bytes:
        while len(self._buffer) < count:
            try:
                data = await self.stream.receive_some(65536)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise Hung from error
            if not data:
                raise Hung
            self._buffer += data
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    async def frame(self) -> Frame:
        """The next frame, whatever it is."""
        return self._later.pop(0) if self._later else await self._next()

    async def _next(self) -> Frame:
        frame, length = Frame.parse_frame_header(memoryview(await self._read(9)))
        frame.parse_body(memoryview(await self._read(length)))
        self.seen.append(frame)
        if isinstance(frame, WindowUpdateFrame):
            self._windows[frame.stream_id] = self._windows.get(frame.stream_id, self._initial) + frame.window_increment
        elif isinstance(frame, SettingsFrame) and "ACK" not in frame.flags:
            self._initial = frame.settings.get(SettingsFrame.INITIAL_WINDOW_SIZE, self._initial)
        if self.polite:
            await self._be_polite(frame)
        return frame

    async def _be_polite(self, frame: Frame) -> None:
        if isinstance(frame, PingFrame) and "ACK" not in frame.flags:
            await self.send(PingFrame(0, frame.opaque_data, flags=["ACK"]))
        elif isinstance(frame, SettingsFrame) and "ACK" not in frame.flags:
            await self.send(SettingsFrame(0, flags=["ACK"]))
        elif isinstance(frame, DataFrame) and frame.flow_controlled_length:
            await self.window(0, frame.flow_controlled_length)
            if "END_STREAM" not in frame.flags:
                await self.window(frame.stream_id, frame.flow_controlled_length)

    async def until(self, kind: type[F]) -> F:
        """The next frame of a kind; others are noted in `seen`."""
        while True:
            frame = await self.frame()
            if isinstance(frame, kind):
                return frame

    async def greet(self, settings: dict[int, int] | None = None) -> None:
        """Take the preface, and send the settings."""
        assert await self._read(len(PREFACE)) == PREFACE
        await self.send(SettingsFrame(0, settings=settings or {}))

    async def request(self) -> Asked:
        """The next whole request; those that are called off before they are whole are left out."""
        while True:
            frame = await self.frame()
            begun = self._begun
            if isinstance(frame, HeadersFrame):
                headers = {str(k): str(v) for k, v in self._decoder.decode(frame.data)}
                begun[frame.stream_id] = Asked(frame.stream_id, headers, b"")
            elif isinstance(frame, DataFrame) and frame.stream_id in begun:
                begun[frame.stream_id].body += frame.data
            elif isinstance(frame, RstStreamFrame):
                begun.pop(frame.stream_id, None)
            if "END_STREAM" in frame.flags and frame.stream_id in begun:
                return begun.pop(frame.stream_id)

    async def begun(self) -> int:
        """The stream id of the next request, of which only the head was read."""
        head = await self.until(HeadersFrame)
        self._decoder.decode(head.data)
        return head.stream_id

    async def send(self, *frames: Frame) -> None:
        await self.raw(b"".join(frame.serialize() for frame in frames))

    async def raw(self, data: bytes) -> None:
        try:
            async with self._sending:
                await self.stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise Hung from error

    def head(self, stream_id: int, status: int = 200, *, ends: bool = False, **headers: str) -> HeadersFrame:
        fields = [(":status", str(status)), *((k.replace("_", "-"), v) for k, v in headers.items())]
        flags = ["END_HEADERS"] + ["END_STREAM"] * ends
        return HeadersFrame(stream_id, self.encoder.encode(fields), flags=flags)

    def data(self, stream_id: int, data: bytes, *, ends: bool = False) -> DataFrame:
        return DataFrame(stream_id, data, flags=["END_STREAM"] if ends else [])

    async def answer(self, asked: Asked | int, body: bytes = b"ok", status: int = 200, **headers: str) -> None:
        """A whole response, as fast as the client's windows allow."""
        stream_id = asked if isinstance(asked, int) else asked.stream_id
        await self.send(self.head(stream_id, status, **headers))
        await self.pour(stream_id, body, ends=True)

    async def pour(self, stream_id: int, body: bytes, *, ends: bool = False) -> None:
        """A part of a response, as fast as the client's windows allow, until it is called off."""
        at, more = 0, True
        while more:
            room = min(self._windows[0], self._windows.setdefault(stream_id, self._initial), 16384)
            if body and room <= 0:
                self._later.append(await self._next())
                if isinstance(self._later[-1], RstStreamFrame) and self._later[-1].stream_id == stream_id:
                    return
                continue
            piece = body[at : at + room]
            at += len(piece)
            more = at < len(body)
            self._windows[0] -= len(piece)
            self._windows[stream_id] -= len(piece)
            await self.send(self.data(stream_id, piece, ends=ends and not more))

    async def goaway(self, last: int, code: int = 0) -> None:
        await self.send(GoAwayFrame(0, last_stream_id=last, error_code=code))

    async def reset(self, stream_id: int, code: int) -> None:
        await self.send(RstStreamFrame(stream_id, error_code=code))

    async def window(self, stream_id: int, by: int) -> None:
        await self.send(WindowUpdateFrame(stream_id, window_increment=by))

    async def serve(self) -> None:
        """Answer everything with what it says."""
        while True:
            asked = await self.request()
            await self.answer(asked, asked.body)

    def hang_up(self) -> None:
        self.stream.send_stream.close()
        self.stream.receive_stream.close()

    def count(self, kind: type[Frame]) -> int:
        """How many frames of a kind came."""
        return sum(isinstance(frame, kind) for frame in self.seen)


Serve = Callable[[Peer], Awaitable[None]]


@define(eq=False)
class Server:
    """Where the client's connections lead."""

    serve: Serve
    nursery: trio.Nursery
    peers: list[Peer] = field(factory=list)
    transports: list[MemoryTransport] = field(factory=list)
    http2: bool = True
    """What the handshake comes to, where it is asked."""
    failure: Exception | None = None
    """What connecting fails with."""
    dialled: int = 0

    async def dial(self) -> MemoryTransport:
        self.dialled += 1
        await trio.sleep(0.01)
        if self.failure is not None:
            raise self.failure
        ours, theirs = trio.testing.memory_stream_pair()
        transport = MemoryTransport(ours, http2=self.http2)
        peer = Peer(theirs, len(self.peers))
        self.transports.append(transport)
        self.peers.append(peer)
        self.nursery.start_soon(self._host, peer)
        return transport

    async def _host(self, peer: Peer) -> None:
        try:
            await self.serve(peer)
        except* Hung:
            pass
        peer.hang_up()

    @property
    def open(self) -> int:
        """Connections that the client has not closed."""
        return sum(not transport.closed for transport in self.transports)


class Kit:
    """A client, the server it is connected to, and shorthands."""

    def __init__(self, client: HttpClient, server: Server) -> None:
        self.client = client
        self.server = server
        self.head = client.prepare("POST", {"content-type": "application/json"})

    async def send(self, body: bytes = b"hello", *, repeatable: bool = False, **more: Any) -> Response:
        return await self.client.send(self.head, b"", body, repeatable=repeatable, **more)

    async def ask(self, body: bytes = b"hello", **more: Any) -> bytes:
        """Status and body, as one."""
        with self.client.faults, await self.send(body, **more) as response:
            return b"%d %b" % (response.head.status, await response.body(1 << 24))


@asynccontextmanager
async def speaking(serve: Serve, *, only: bool = True, http1: Any = None, **limits: Any) -> AsyncIterator[Kit]:
    """A client with HTTP/2 to a server that is `serve`; bounded in time."""
    max_streams = limits.pop("max_streams", 1000)
    with trio.fail_after(3600):
        async with trio.open_nursery() as nursery:
            server = Server(serve, nursery)

            async def never() -> Any:
                raise AssertionError("HTTP/1.1 was not asked for")

            client = HttpClient(
                "up",
                ORIGIN,
                http1 or never,
                max_message=1 << 24,
                limits=PoolLimits(**limits),
                max_streams=max_streams,
                http2=Http2Offer(server.dial, only),
            )
            await nursery.start(client.run)
            yield Kit(client, server)
            client.close()
            nursery.cancel_scope.cancel()


async def greeted(peer: Peer) -> None:
    """A server that answers everything with what it says."""
    await peer.greet()
    await peer.serve()


@pytest.fixture
def h2() -> SimpleNamespace:
    """What the tests of HTTP/2 share."""
    return SimpleNamespace(speaking=speaking, greeted=greeted, Hung=Hung, MemoryTransport=MemoryTransport)


@pytest.fixture
def nothing_left() -> Callable[[Kit], None]:
    """Fails if a client has anything in hand."""

    def check(kit: Kit) -> None:
        assert kit.client.taken == 0
        for report in kit.client.reports().values():
            assert (report.requests, report.waiting) == (0, 0)

    return check
