"""Results that are too long to be held pass through the gateway in pieces, between real sockets."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import h11
import pytest
import trio
from attrs import define, field
from trio.testing import wait_all_tasks_blocked

from sluiceway.pipeline.config import from_data
from sluiceway.pipeline.protocol.mcp import LATEST, LATEST_LEGACY, MetaKey
from sluiceway.pipeline.runtime.engine import Engine

MIB = 1024 * 1024
PIECE = b"0123456789abcde\\" + b'"' * 1 + b"x" * (64 * 1024 - 17)
META = {MetaKey.VERSION.value: LATEST, MetaKey.CLIENT_CAPABILITIES.value: {}}


@define(eq=False)
class Upstream:
    """Answers `tools/call` with as much text as it is asked for, as JSON or as an event."""

    events: bool
    breaks: bool = False
    written: int = 0
    left: trio.Event = field(factory=trio.Event)

    async def serve(self, stream: trio.SocketStream) -> None:
        connection = h11.Connection(h11.SERVER)
        async with stream:
            while True:
                event, body = connection.next_event(), b""
                while not isinstance(event, h11.EndOfMessage):
                    if event is h11.NEED_DATA:
                        connection.receive_data(await stream.receive_some(65536))
                    elif isinstance(event, h11.ConnectionClosed):
                        return
                    elif isinstance(event, h11.Data):
                        body += event.data
                    event = connection.next_event()
                await self._answer(json.loads(body or b"{}"), connection, stream)
                if connection.our_state is not h11.DONE:
                    return
                connection.start_next_cycle()

    async def _answer(self, message: Any, connection: h11.Connection, stream: trio.SocketStream) -> None:
        send: Callable[[Any], Any] = lambda event: stream.send_all(connection.send(event))  # noqa: E731
        method = message.get("method")
        if method not in ("initialize", "server/discover", "tools/call"):
            await send(h11.Response(status_code=405 if not message else 202, headers=[("content-length", "0")]))
            await send(h11.EndOfMessage())
            return
        kind = "text/event-stream" if self.events else "application/json"
        lines = [("content-type", kind), ("transfer-encoding", "chunked")]
        await send(h11.Response(status_code=200, headers=lines))
        opening = b'{"result":' if not self.events else b'event: message\ndata: {"result":'
        closing = b',"jsonrpc":"2.0","id":%b}' % json.dumps(message["id"]).encode()
        about = {"capabilities": {}, "serverInfo": {"name": "long", "version": "1"}, "resultType": "complete"}
        if method == "tools/call":
            try:
                await self._text(message["params"]["arguments"]["pieces"], opening, send)
            except trio.BrokenResourceError:
                self.left.set()
                raise
            if self.breaks:
                return
        elif method == "initialize":
            version = {"protocolVersion": message["params"]["protocolVersion"]}
            await send(h11.Data(opening + json.dumps({**about, **version}).encode()))
        else:
            await send(h11.Data(opening + json.dumps({**about, "supportedVersions": [LATEST]}).encode()))
        await send(h11.Data(closing + (b"\n\n" if self.events else b"")))
        await send(h11.EndOfMessage())

    async def _text(self, count: int, opening: bytes, send: Any) -> None:
        await send(h11.Data(opening + b'{"resultType":"complete","content":[{"type":"text","text":"'))
        for _ in range(count):
            await send(h11.Data(PIECE))
            self.written += len(PIECE)
        await send(h11.Data(b'"}],"isError":false}'))


@define(eq=False)
class Caller:
    """A client that looks at what it gets, and keeps none of it."""

    port: int
    session: str = ""
    size: int = 0
    first: bytes = b""
    last: bytes = b""
    media: str = ""
    complete: bool = False

    async def start(self) -> None:
        hello = {"protocolVersion": LATEST_LEGACY, "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}
        async with await self._post({"id": 0, "method": "initialize", "params": hello}) as stream:
            headers = await self._read(stream)
        self.session = headers["mcp-session-id"]

    async def open(self, pieces: int, *, events: bool = False) -> trio.SocketStream:
        params = {"name": "text", "arguments": {"pieces": pieces}}
        message = {"id": 7, "method": "tools/call", "params": params if self.session else {**params, "_meta": META}}
        return await self._post(
            message, accept="text/event-stream" if events else "application/json, text/event-stream"
        )

    async def ask(self, pieces: int, *, events: bool = False) -> None:
        async with await self.open(pieces, events=events) as stream:
            await self._read(stream)

    async def _post(self, message: Any, accept: str = "application/json, text/event-stream") -> trio.SocketStream:
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        headers = {"host": f"127.0.0.1:{self.port}", "content-length": str(len(body)), "accept": accept}
        headers["content-type"] = "application/json"
        if self.session:
            headers |= {"mcp-session-id": self.session, "mcp-protocol-version": LATEST_LEGACY}
        elif message["method"] == "tools/call":
            headers |= {"mcp-protocol-version": LATEST, "mcp-method": "tools/call", "mcp-name": "text"}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        await stream.send_all(f"POST /mcp HTTP/1.1\r\n{head}\r\n".encode() + body)
        return stream

    async def _read(self, stream: trio.SocketStream) -> dict[str, str]:
        connection, headers = h11.Connection(h11.CLIENT), {}
        connection.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
        connection.send(h11.EndOfMessage())
        self.size, self.first, self.last, self.complete = 0, b"", b"", False
        while True:
            try:
                event = connection.next_event()
            except h11.RemoteProtocolError:
                return headers
            if event is h11.NEED_DATA:
                connection.receive_data(await stream.receive_some(65536))
            elif isinstance(event, h11.Response):
                headers = {name.decode(): value.decode() for name, value in event.headers}
                self.media = headers["content-type"]
            elif isinstance(event, h11.Data):
                self.size += len(event.data)
                self.first = (self.first + bytes(event.data))[:200]
                self.last = (self.last + bytes(event.data))[-40:]
            elif isinstance(event, h11.EndOfMessage):
                self.complete = True
                return headers
            else:
                return headers


@asynccontextmanager
async def world(*, modern: bool, chain: Any = ("request_id", "metrics"), **options: Any) -> AsyncIterator[Any]:
    """An upstream, a gateway in front of it, and a client that has begun."""
    upstream = Upstream(**options)
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")

        async def contained(stream: trio.SocketStream) -> None:
            with suppress(trio.BrokenResourceError):
                await upstream.serve(stream)

        nursery.start_soon(trio.serve_listeners, contained, [listener])
        url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}/mcp"
        document = from_data(
            {
                "version": 1,
                "sources": {"web": {"http": {"bind": "127.0.0.1:0"}}},
                "pipelines": {"main": {"chain": list(chain), "sink": "up"}},
                "sinks": {"up": {"http": {"url": url, "max_message": "64MiB"}}},
                "run": {"log_level": "error"},
            }
        )
        engine = Engine(document)
        with trio.fail_after(60):
            async with engine.running():
                caller = Caller(int(str(engine.sources["web"].addresses[0]).rpartition(":")[2]))
                if not modern:
                    await caller.start()
                yield upstream, caller, engine
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("modern", [True, False])
@pytest.mark.parametrize("upstream_events", [True, False])
@pytest.mark.parametrize("client_events", [True, False])
async def test_32_mib_pass_at_flat_memory(modern, upstream_events, client_events):
    """However both sides want it: the text arrives whole, and a small part of it is in memory at a time."""
    async with world(modern=modern, events=upstream_events) as (_, caller, _engine):
        await caller.ask(8, events=client_events)
        tracemalloc.start()
        try:
            await caller.ask(512, events=client_events)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

    opening = b'{"jsonrpc":"2.0","id":7,"result":{"resultType":"complete","content":[{"type":"text","text":"0123'
    assert caller.complete, caller.first
    assert caller.size - 512 * len(PIECE) < 300
    assert ("text/event-stream" if client_events else "application/json") == caller.media
    assert (b"data: " + opening if client_events else opening) in caller.first
    assert caller.last.strip().endswith(b'"}],"isError":false}}')
    assert peak < 6 * MIB


@pytest.mark.parametrize("modern", [True, False])
@pytest.mark.parametrize("events", [True, False])
async def test_an_upstream_that_breaks_off_breaks_the_response(modern, events):
    """The client sees that the result is not whole; nothing is repeated, and the next call is served."""
    chain = ("request_id", {"retry": {"repeat": ["text"], "base_delay": "1ms"}}, "metrics")
    async with world(modern=modern, events=events, breaks=True, chain=chain) as (upstream, caller, _engine):
        await caller.ask(20)
        first, upstream.breaks = caller.complete, False
        written = upstream.written
        await caller.ask(20)

    assert not first
    assert written == 20 * len(PIECE)
    assert caller.complete


@pytest.mark.parametrize("modern", [True, False])
async def test_a_client_that_leaves_in_the_middle_stops_the_upstream(modern):
    """What it was getting can be kept for nobody, so the upstream is told to stop in both eras."""
    async with world(modern=modern, events=True) as (upstream, caller, engine):
        stream = await caller.open(100_000)
        while upstream.written < 2 * MIB:
            await stream.receive_some(65536)
        await stream.aclose()
        await upstream.left.wait()
        await engine.pipelines["main"].lane.wait_idle()

    assert upstream.written < 100 * MIB


@pytest.mark.parametrize("modern", [True, False])
async def test_who_reads_slowly_holds_the_upstream_back(modern):
    """A client that stops reading costs what the sockets on both sides hold, and a piece."""
    async with world(modern=modern, events=False) as (upstream, caller, _engine):
        async with await caller.open(2_000) as stream:
            await stream.receive_some(10)
            before = -1
            while before != upstream.written:
                before = upstream.written
                await wait_all_tasks_blocked(0.05)

        assert upstream.written < 30 * MIB


@pytest.mark.parametrize("modern", [True, False])
async def test_a_stage_that_reads_results_gets_them_whole(modern):
    """`redact` masks what is inside, so the result is read before it goes on."""
    chain = ({"redact": {"keys": ["text"]}},)
    async with world(modern=modern, events=False, chain=chain) as (_, caller, _engine):
        await caller.ask(20)

    assert caller.complete
    assert caller.size < 1000
    assert b"xxxx" not in caller.last
