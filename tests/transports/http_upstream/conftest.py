"""A scripted HTTP/1.1 server in memory, and an `http` sink that is connected to it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from attrs import define, field, frozen

from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.model.session import Client, Session
from sluiceway.pipeline.protocol.mcp import LATEST, LATEST_LEGACY, Era, MetaKey
from sluiceway.pipeline.protocol.messages import Notification, Reply
from sluiceway.pipeline.testing import memory_exchange
from sluiceway.transports.http_sink import HttpSink
from sluiceway.transports.http_upstream import reach
from sluiceway.transports.http_upstream.config import HttpSinkConfig

META = {MetaKey.VERSION.value: LATEST, MetaKey.CLIENT_CAPABILITIES.value: {}}
SERVER = {"protocolVersion": LATEST_LEGACY, "capabilities": {}, "serverInfo": {"name": "fake", "version": "1"}}


class MemoryTransport:
    """One end of a connection in memory."""

    def __init__(self, stream: trio.StapledStream[Any, Any]) -> None:
        self._stream = stream
        self.peer_left = False

    def send_nowait(self, data: bytes) -> int:
        return 0

    async def send_all(self, data: bytes | memoryview) -> None:
        await self._stream.send_all(data)

    async def receive_some(self, max_bytes: int) -> bytes:
        return bytes(await self._stream.receive_some(max_bytes))

    def close(self) -> None:
        self._stream.send_stream.close()
        self._stream.receive_stream.close()

    def is_readable(self) -> bool:
        return self.peer_left

    @property
    def speaks_http2(self) -> bool:
        return False


@frozen
class Seen:
    """A request as the server got it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    raw_head: bytes
    connection: int

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def rpc(self) -> str:
        """The JSON-RPC method; `answer` for a response."""
        return self.json.get("method", "answer")


class Answer:
    """What the server does with a request."""

    def __init__(self, stream: trio.StapledStream[Any, Any], transport: MemoryTransport) -> None:
        self._stream = stream
        self._transport = transport

    async def send(self, status: int, body: bytes = b"", **headers: str) -> None:
        """A whole response; underscores in names are hyphens."""
        await self._stream.send_all(self._head(status, {**headers, "content-length": str(len(body))}) + body)

    async def json(self, value: Any, status: int = 200, **headers: str) -> None:
        await self.send(status, json.dumps(value).encode(), content_type="application/json", **headers)

    async def result(self, seen: Seen, value: Any, **headers: str) -> None:
        await self.json({"jsonrpc": "2.0", "id": seen.json["id"], "result": value}, **headers)

    async def error(self, seen: Seen, code: int, status: int = 200, data: Any = None) -> None:
        error = {"code": code, "message": "no", "data": data}
        await self.json({"jsonrpc": "2.0", "id": seen.json.get("id"), "error": error}, status)

    async def start(self, **headers: str) -> None:
        """The head of an event stream."""
        head = {"content_type": "text/event-stream", "transfer_encoding": "chunked", **headers}
        await self._stream.send_all(self._head(200, head))

    async def event(self, value: Any, event_id: str = "", retry: int | None = None) -> None:
        lines = [f"id: {event_id}"] if event_id else []
        lines += [f"retry: {retry}"] if retry is not None else []
        lines.append(f"data: {json.dumps(value) if value is not None else ''}")
        await self.chunk(("\n".join(lines) + "\n\n").encode())

    async def chunk(self, data: bytes) -> None:
        await self._stream.send_all(b"%x\r\n%b\r\n" % (len(data), data))

    async def end(self) -> None:
        await self._stream.send_all(b"0\r\n\r\n")

    async def raw(self, data: bytes) -> None:
        await self._stream.send_all(data)

    def drop(self) -> None:
        """Close the connection."""
        self._transport.peer_left = True
        self._stream.send_stream.close()
        self._stream.receive_stream.close()

    def _head(self, status: int, headers: dict[str, str]) -> bytes:
        lines = [f"HTTP/1.1 {status} Whatever", *(f"{k.replace('_', '-')}: {v}" for k, v in headers.items())]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()


Handler = Callable[[Seen, Answer], Awaitable[None]]


@define(eq=False)
class FakeUpstream:
    """The server: replace `handle` to say what it does."""

    nursery: trio.Nursery
    seen: list[Seen] = field(factory=list)
    connections: int = 0
    open: int = 0
    """Connections that neither side has closed."""
    handle: Handler | None = None
    refuse: bool = False
    """Whether connecting fails."""

    def of(self, rpc: str) -> list[Seen]:
        """What came as POST with this JSON-RPC method."""
        return [each for each in self.seen if each.method == "POST" and each.rpc == rpc]

    async def dial(self) -> MemoryTransport:
        await trio.lowlevel.checkpoint()
        if self.refuse:
            raise http_sink_dial_failed()
        ours, theirs = trio.testing.memory_stream_pair()
        self.connections += 1
        transport = MemoryTransport(ours)
        self.nursery.start_soon(self._serve, theirs, transport, self.connections)
        return transport

    async def _serve(self, stream: trio.StapledStream[Any, Any], transport: MemoryTransport, number: int) -> None:
        self.open += 1
        buffer = bytearray()
        try:
            while True:
                while b"\r\n\r\n" not in buffer:
                    data = await stream.receive_some(65536)
                    if not data:
                        return
                    buffer += data
                head, _, rest = bytes(buffer).partition(b"\r\n\r\n")
                first, *lines = head.decode("latin-1").split("\r\n")
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
                assert len(headers) == len(lines), "a header stands twice"
                buffer[:] = rest
                while len(buffer) < int(headers["content-length"]):
                    buffer += await stream.receive_some(65536)
                body = bytes(buffer[: int(headers["content-length"])])
                del buffer[: len(body)]
                method, path, _ = first.split(" ")
                seen = Seen(method, path, headers, body, head, number)
                self.seen.append(seen)
                if not await self._answer(seen, stream, transport, buffer):
                    return
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            self.open -= 1
            transport.peer_left = True
            stream.send_stream.close()
            stream.receive_stream.close()

    async def _answer(self, seen: Seen, stream: Any, transport: MemoryTransport, buffer: bytearray) -> bool:
        """Run the handler until it is done, or the client goes; whether the connection lives on."""
        alive = True
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                nonlocal alive
                try:
                    data = await stream.receive_some(65536)
                except trio.ClosedResourceError:
                    data = b""
                buffer.extend(data)
                alive = bool(data)
                if not data:
                    nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            assert self.handle is not None
            try:
                await self.handle(seen, Answer(stream, transport))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                alive = False
            nursery.cancel_scope.cancel()
        return alive


def http_sink_dial_failed() -> Exception:
    """What a dialer raises."""
    from sluiceway.transports.http_client.connect import DialFailed

    return DialFailed("it cannot be connected to")


@pytest.fixture
async def upstream(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> FakeUpstream:
    """A server that every `http` sink of the test is connected to, whatever its url."""
    fake = FakeUpstream(nursery)
    monkeypatch.setattr(reach, "Dialer", lambda **_: fake.dial)
    return fake


@pytest.fixture
def make_sink() -> Callable[..., Any]:
    """`async with make_sink(option=...) as sink`: an open sink whose era is known, unless said otherwise."""

    @asynccontextmanager
    async def make(context: Context | None = None, **options: Any) -> AsyncIterator[HttpSink]:
        config = HttpSinkConfig(**{"url": "http://up.example/mcp", "era": "auto", "translate": False, **options})
        sink = HttpSink(config, context or Context(id="up"))
        async with sink.open():
            yield sink

    return make


class LegacyPeer:
    """A legacy client with its session, by hand."""

    def __init__(self, session_id: str = "s") -> None:
        self.notices: list[Notification] = []
        self.session = Session(id=session_id, source="test", notify=self.notices.append)
        self.interim: list[Notification] = []

    def exchange(
        self, method: str, params: dict[str, Any] | None = None, *, request_id: Any = 1, ask: Any = None
    ) -> Any:
        client = Client(era=Era.LEGACY, version=LATEST_LEGACY, session=self.session)
        return memory_exchange(
            method, params or {}, request_id=request_id, client=client, interim=self.interim, ask=ask
        )

    async def start(self, sink: HttpSink) -> Reply:
        """Handshake."""
        hello = {
            "protocolVersion": LATEST_LEGACY,
            "capabilities": {"roots": {}},
            "clientInfo": {"name": "t", "version": "1"},
        }
        reply = await sink(self.exchange("initialize", hello, request_id="hello"))
        await sink(self.exchange("notifications/initialized"))
        return reply


@pytest.fixture
def peer() -> LegacyPeer:
    """A legacy client."""
    return LegacyPeer()


@pytest.fixture(params=["http", "stdio"])
def modern(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Makes exchanges of a modern client: of one whose headers are its own to make, and of one that has none."""

    def make(
        method: str = "tools/call",
        *,
        headers: dict[str, str] | None = None,
        request_id: Any = 1,
        interim: Any = None,
        transport: str = request.param,
        **params: Any,
    ) -> Any:
        client = Client(era=Era.MODERN, version=LATEST, transport=transport, headers=headers or {})
        meta = {**META, **params.pop("_meta", {})}
        return memory_exchange(method, {**params, "_meta": meta}, request_id=request_id, client=client, interim=interim)

    return make
