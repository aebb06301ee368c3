"""A gateway with a WebSocket source, clients for it, and a scripted WebSocket server for the sink."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio_websocket import (
    ConnectionClosed,
    WebSocketConnection,
    WebSocketRequest,
    WebSocketServer,
    connect_websocket_url,
    serve_websocket,
)
from wsproto.utilities import LocalProtocolError

from sluiceway.pipeline.config import from_data
from sluiceway.pipeline.runtime.engine import Engine

MODERN: dict[str, Any] = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {"roots": {}},
}
INITIALIZE: dict[str, Any] = {
    "protocolVersion": "2025-11-25",
    "capabilities": {"sampling": {}, "elicitation": {}, "roots": {}},
    "clientInfo": {"name": "c", "version": "1"},
}


class Speaker:
    """A client on a WebSocket."""

    def __init__(self, socket: WebSocketConnection) -> None:
        self.socket = socket

    async def write(self, text: str | bytes) -> None:
        """Send a raw message."""
        await self.socket.send_message(text)

    async def send(self, **message: object) -> None:
        """Send one message."""
        await self.write(json.dumps({"jsonrpc": "2.0", **message}))

    async def next(self) -> dict[str, Any]:
        """The next message."""
        message: dict[str, Any] = json.loads(await self.socket.get_message())
        return message

    async def call(self, method: str, request_id: object = 1, **params: object) -> dict[str, Any]:
        """Send a request and read the next message."""
        await self.send(id=request_id, method=method, params=params)
        return await self.next()

    async def call_modern(self, method: str = "tools/call", request_id: object = 1, **params: object) -> dict[str, Any]:
        """A request of 2026-07-28."""
        return await self.call(method, request_id, **{"name": "echo", "_meta": MODERN, **params})

    async def initialize(self, **params: object) -> dict[str, Any]:
        """Make the handshake."""
        reply = await self.call("initialize", "init", **{**INITIALIZE, **params})
        await self.send(method="notifications/initialized")
        return reply

    async def closed(self) -> tuple[int, str | None]:
        """Read on to the end; with which code and reason it came."""
        with pytest.raises(ConnectionClosed) as caught:  # noqa: PT012  # messages may come before the end
            while True:
                await self.socket.get_message()
        assert caught.value.reason is not None
        return caught.value.reason.code, caught.value.reason.reason


@asynccontextmanager
async def speaking(
    url: str, *, subprotocols: tuple[str, ...] = ("mcp",), context: ssl.SSLContext | None = None, **headers: str
) -> AsyncIterator[Speaker]:
    """A client of a source; leaves with a close frame, or without if the source has left."""
    try:
        async with trio.open_nursery() as nursery:
            raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
            socket = await connect_websocket_url(nursery, url, context, subprotocols=subprotocols, extra_headers=raw)
            try:
                yield Speaker(socket)
            finally:
                with trio.move_on_after(1, shield=True):
                    await socket.aclose()
                await trio.aclose_forcefully(socket._stream)  # which aclose leaves open if the other end left first
                nursery.cancel_scope.cancel()
    except* LocalProtocolError:
        pass  # trio-websocket answers a ping though it has said goodbye


@asynccontextmanager
async def gateway(sinks: dict[str, Any], *, sink: str = "up", chain: list[Any] | None = None, run: Any = None,
                  **options: object) -> AsyncIterator[Engine]:  # fmt: skip
    """A running gateway with a source `ws` in front of sinks."""
    document = {
        "version": 1,
        "sources": {"ws": {"websocket": {"bind": "127.0.0.1:0", **options}}},
        "pipelines": {"main": {"sink": sink, "chain": chain or []}},
        "sinks": sinks,
        **({"run": run} if run else {}),
    }
    with trio.fail_after(30):
        engine = Engine(from_data(document))
        async with engine.running():
            yield engine


def url_of(engine: Engine, source: str = "ws") -> str:
    """Where clients find a source of a gateway."""
    url: str = engine.sources[source].urls[0]  # type: ignore[attr-defined]  # sources that listen have them
    return url


Script = Callable[[WebSocketConnection], Awaitable[None]]


class ScriptedServer:
    """An upstream on a WebSocket that does what a script says with each connection."""

    def __init__(self) -> None:
        self.script: Script = answering
        self.headers: list[dict[bytes, bytes]] = []
        self.refuse_with: int | None = None
        self.refuse_once = False
        self.subprotocol: str | None = "mcp"
        self.open: list[WebSocketConnection] = []
        self.url = ""

    async def handle(self, request: WebSocketRequest) -> None:
        """Serve a connection."""
        self.headers.append(dict(request.headers))
        if self.refuse_with is not None:
            status, self.refuse_with = self.refuse_with, None if self.refuse_once else self.refuse_with
            await request.reject(status, body=b"no")
            return
        socket = await request.accept(subprotocol=self.subprotocol)
        self.open.append(socket)
        try:
            await self.script(socket)
        except ConnectionClosed:
            pass
        finally:
            self.open.remove(socket)


async def answering(socket: WebSocketConnection) -> None:
    """Answer every request with its params and everything with what it is."""
    while True:
        message = json.loads(await socket.get_message())
        if "method" in message and "id" in message:
            await reply(socket, message["id"], reply_of(message))


def reply_of(message: dict[str, Any]) -> dict[str, Any]:
    """What a plain server of both eras says."""
    if message["method"] == "initialize":
        return {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "s", "version": "1"}}
    if message["method"] == "server/discover":
        return {"supportedVersions": ["2026-07-28"], "capabilities": {}, "resultType": "complete"}
    return {"method": message["method"], "params": message.get("params", {})}


async def reply(socket: WebSocketConnection, request_id: object, result: dict[str, Any]) -> None:
    """Send a result."""
    await socket.send_message(json.dumps({"jsonrpc": "2.0", "id": request_id, "result": result}))


@asynccontextmanager
async def scripted_server(tls: ssl.SSLContext | None = None) -> AsyncIterator[ScriptedServer]:
    """Run a scripted server on a free port."""
    scripted = ScriptedServer()
    async with trio.open_nursery() as nursery:
        server: WebSocketServer = await nursery.start(serve_websocket, scripted.handle, "127.0.0.1", 0, tls)
        scripted.url = f"{'ws' if tls is None else 'wss'}://127.0.0.1:{server.port}/mcp?a=b"
        yield scripted
        nursery.cancel_scope.cancel()


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so that happens behind a socket."""
    while not condition():  # noqa: ASYNC110  # nobody there can set an event
        await trio.sleep(0.005)


class Kit:
    """All of it, for tests, which cannot import this file."""

    MODERN = MODERN
    INITIALIZE = INITIALIZE
    speaking = staticmethod(speaking)
    gateway = staticmethod(gateway)
    url_of = staticmethod(url_of)
    scripted_server = staticmethod(scripted_server)
    answering = staticmethod(answering)
    reply = staticmethod(reply)
    reply_of = staticmethod(reply_of)
    until = staticmethod(until)


@pytest.fixture
def kit() -> type[Kit]:
    """Gateways, clients and upstreams on WebSockets."""
    return Kit
