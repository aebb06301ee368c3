"""Upstreams of the matrix: the scripted server on each transport, with what it saw."""

from __future__ import annotations

import json
import socket
import struct
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import hypercorn.trio
import trio
from attrs import define, field
from hypercorn.config import Config

from .book import Book
from .server import Server

CHILD = str(Path(__file__).with_name("child.py"))
MESSAGES = "/messages"


@define(eq=False)
class Relay:
    """TCP on the way to a server, which breaks all its connections when that dies."""

    server_port: int = 0
    _open: dict[trio.SocketStream, trio.CancelScope] = field(factory=dict)

    def die(self) -> None:
        """Reset every connection."""
        for stream, scope in self._open.items():
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            scope.cancel()

    async def serve(self, near: trio.SocketStream) -> None:
        """One connection."""
        async with (
            near,
            await trio.open_tcp_stream("127.0.0.1", self.server_port) as far,
            trio.open_nursery() as nursery,
        ):
            self._open[near] = nursery.cancel_scope
            nursery.start_soon(self._copy, near, far, nursery.cancel_scope)
            await self._copy(far, near, nursery.cancel_scope)
        del self._open[near]

    async def _copy(self, source: trio.SocketStream, sink: trio.SocketStream, scope: trio.CancelScope) -> None:
        with suppress(trio.BrokenResourceError):
            async for data in source:
                await sink.send_all(data)
        scope.cancel()


@define(eq=False)
class Web:
    """The scripted server as an ASGI application: Streamable HTTP and WebSocket at /mcp, HTTP+SSE at /sse."""

    server: Server
    kind: str
    die: Callable[[], None]
    _sessions: int = 0
    _streams: dict[str, Callable[[dict[str, Any]], None]] = field(factory=dict)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        match scope["type"], scope.get("method"), scope.get("path"):
            case "lifespan", _, _:
                await _lifespan(receive, send)
            case "websocket", _, _:
                await self._websocket(receive, send)
            case _, "GET", "/sse" if self.kind == "sse":
                await self._event_session(receive, send)
            case _, "POST", "/messages" if self.kind == "sse":
                await self._event_message(scope, receive, send)
            case _, "POST", "/mcp" if self.kind != "sse":
                await self._post(scope, receive, send)
            case _, "GET", "/mcp" if self.kind != "sse" and not self.server.modern:
                session = dict(scope["headers"])[b"mcp-session-id"]
                with _Said() as (say, said):
                    self.server.hearers[session] = say
                    await self._stream(receive, send, said)
            case _, method, _:
                await _respond(send, 200 if method == "DELETE" else 405)

    async def _post(self, scope: Any, receive: Any, send: Any) -> None:
        message = json.loads(await _body(receive))
        headers = []
        if message.get("method") == "initialize" and not self.server.modern:
            self._sessions += 1
            headers = [(b"mcp-session-id", b"session-%d" % self._sessions)]
        with _Said() as (say, said):
            connection = object()
            self.server.receive(message, say, self.die, connection)
            if "id" not in message or "method" not in message:
                await _respond(send, 202)
            elif message["method"] in ("tools/call", "subscriptions/listen"):
                await self._stream(receive, send, said, until=message["id"], connection=connection)
            else:
                await _respond(send, 200, json.dumps(said.receive_nowait()).encode(), headers)

    async def _stream(self, receive: Any, send: Any, said: Any, *, until: Any = None, connection: Any = None) -> None:
        """Write what is said as events, to a certain response, or until the client leaves."""
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        await send({"type": "http.response.body", "body": b": begun\n\n", "more_body": True})
        ended = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_leave, receive, nursery.cancel_scope)
            async for message in said:
                await send({"type": "http.response.body", "body": _event(message), "more_body": True})
                if ended := message.get("id") == until and "method" not in message:
                    break
            nursery.cancel_scope.cancel()
        if ended:
            await send({"type": "http.response.body", "body": b""})
        elif until is not None:
            self.server.gone(until, "closed", connection)

    async def _event_session(self, receive: Any, send: Any) -> None:
        self._sessions += 1
        session = f"session-{self._sessions}"
        with _Said() as (say, said):
            self._streams[session] = self.server.hearers[session] = say
            try:
                await send(
                    {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}
                )
                endpoint = f"event: endpoint\ndata: {MESSAGES}?session={session}\n\n".encode()
                await send({"type": "http.response.body", "body": endpoint, "more_body": True})
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_leave, receive, nursery.cancel_scope)
                    async for message in said:
                        await send({"type": "http.response.body", "body": _event(message), "more_body": True})
            finally:
                del self._streams[session], self.server.hearers[session]

    async def _event_message(self, scope: Any, receive: Any, send: Any) -> None:
        session = scope["query_string"].decode().partition("=")[2]
        message = json.loads(await _body(receive))
        if session not in self._streams:
            await _respond(send, 404)
            return
        await _respond(send, 202)
        self.server.receive(message, self._streams[session], self.die, session)

    async def _websocket(self, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept", "subprotocol": "mcp"})
        connection = object()
        with _Said() as (say, said):
            if not self.server.modern:
                self.server.hearers[connection] = say
            try:
                async with trio.open_nursery() as nursery:

                    async def read() -> None:
                        while (event := await receive())["type"] == "websocket.receive":
                            self.server.receive(json.loads(event["text"]), say, self.die, connection)
                        nursery.cancel_scope.cancel()

                    nursery.start_soon(read)
                    async for message in said:
                        await send({"type": "websocket.send", "text": json.dumps(message)})
            finally:
                self.server.hearers.pop(connection, None)


class _Said:
    """A queue for what is said on one stream; nothing is kept once that is over."""

    def __enter__(self) -> tuple[Callable[[dict[str, Any]], None], Any]:
        send, self._receive = trio.open_memory_channel[dict[str, Any]](1000)

        def say(message: dict[str, Any]) -> None:
            with suppress(trio.BrokenResourceError):
                send.send_nowait({"jsonrpc": "2.0", **message})

        return say, self._receive

    def __exit__(self, *_: object) -> None:
        self._receive.close()


async def _leave(receive: Any, scope: trio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


async def _body(receive: Any) -> bytes:
    body, more = b"", True
    while more:
        event = await receive()
        body += event.get("body", b"")
        more = event.get("more_body", False)
    return body


async def _respond(send: Any, status: int, body: bytes = b"", headers: Any = ()) -> None:
    lines = [*headers, (b"content-length", b"%d" % len(body))]
    lines += [(b"content-type", b"application/json")] if body else []
    await send({"type": "http.response.start", "status": status, "headers": lines})
    await send({"type": "http.response.body", "body": body})


async def _lifespan(receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


def _event(message: dict[str, Any]) -> bytes:
    return b"event: message\ndata: " + json.dumps(message).encode() + b"\n\n"


@asynccontextmanager
async def open_upstream(kind: str, modern: bool, book: Book) -> AsyncIterator[dict[str, Any]]:
    """The scripted server on a transport; yields the sink for it, as it stands in YAML."""
    if kind == "stdio":
        async with trio.open_nursery() as nursery:
            (reports,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, book.keep, [reports])
            port = str(reports.socket.getsockname()[1])
            command = [sys.executable, "-S", "-E", CHILD, port, "modern" if modern else "legacy"]
            yield {"stdio": {"command": command, "stop_grace": "1s"}}
            nursery.cancel_scope.cancel()
        return
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.accesslog = config.errorlog = None
    config.graceful_timeout = 0.1
    stop = trio.Event()
    relay = Relay()
    app: Any = Web(Server(modern, book.add), kind, relay.die)
    async with trio.open_nursery() as nursery:
        serve = partial(hypercorn.trio.serve, app, config, shutdown_trigger=stop.wait, mode="asgi")
        (address,) = await nursery.start(serve)
        relay.server_port = int(address.rpartition(":")[2])
        (door,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, relay.serve, [door])
        url = f"http://127.0.0.1:{door.socket.getsockname()[1]}"
        match kind:
            case "sse":
                yield {"sse": {"url": f"{url}/sse"}}
            case "websocket":
                yield {"websocket": {"url": f"{url}/mcp".replace("http", "ws", 1)}}
            case _:
                yield {"http": {"url": f"{url}/mcp", "http2": "always" if kind == "http2" else "never"}}
        stop.set()
        nursery.cancel_scope.cancel()
