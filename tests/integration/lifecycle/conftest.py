"""
Whole gateways between plain sockets: clients of both eras, and upstreams that write down what they see.

Nothing here waits for time to pass. A test waits until the upstream's book has an entry, and the order of the entries
is what it asserts.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import h11
import pytest
import trio
from attrs import define, field

from sluiceway.pipeline.config import from_data
from sluiceway.pipeline.model.document import Document
from sluiceway.pipeline.protocol.mcp import LATEST, LATEST_LEGACY, MetaKey

SCRIPTED = Path(__file__).parent / "upstreams" / "scripted.py"
META = {MetaKey.VERSION.value: LATEST, MetaKey.CLIENT_CAPABILITIES.value: {}}
ABOUT = {"capabilities": {"tools": {}}, "serverInfo": {"name": "scripted", "version": "1"}}
ECHO = {"name": "echo", "description": "Says it again.", "inputSchema": {"type": "object"}}
Entry = dict[str, Any]


@define(eq=False)
class Book:
    """What upstreams saw, in order."""

    seen: list[Entry] = field(factory=list)
    _news: trio.Event = field(factory=trio.Event)

    def add(self, entry: Entry) -> None:
        self.seen.append(entry)
        self._news.set()
        self._news = trio.Event()

    async def wait_for(self, count: int = 1, **wanted: Any) -> Entry:
        """The first entry, or the one with this number, that has these values."""
        while True:
            found = self.of(**wanted)
            if len(found) >= count:
                return found[count - 1]
            await self._news.wait()

    def of(self, **wanted: Any) -> list[Entry]:
        return [each for each in self.seen if wanted.items() <= each.items()]

    async def keep(self, stream: trio.SocketStream) -> None:
        """Take the reports of one child process; the end of the stream is the end of the child."""
        rest, pid = b"", None
        async with stream:
            with suppress(trio.BrokenResourceError):
                async for data in stream:
                    *lines, rest = (rest + data).split(b"\n")
                    for line in lines:
                        entry = json.loads(line)
                        pid = entry["pid"]
                        self.add(entry)
        self.add({"what": "ended", "pid": pid})


@define(eq=False)
class HttpUpstream:
    """A Streamable HTTP server of one era, as `upstreams/scripted.py` is one over stdio."""

    book: Book
    modern: bool
    _sessions: int = 0
    _held: list[tuple[Any, trio.Event]] = field(factory=list)

    async def serve(self, stream: trio.SocketStream) -> None:
        """One connection."""
        async with stream:
            connection = h11.Connection(h11.SERVER)
            with suppress(trio.BrokenResourceError):
                while (request := await _message(connection, stream)) is not None:
                    head, body = request
                    if not await self._respond(head, body, connection, stream):
                        return
                    if connection.our_state is not h11.DONE:
                        return
                    connection.start_next_cycle()

    async def _respond(self, head: Any, body: bytes, connection: h11.Connection, stream: trio.SocketStream) -> bool:
        if head.method != b"POST":
            self.book.add({"what": head.method.decode().lower()})
            await _send(connection, stream, 405 if head.method == b"GET" else 200, b"")
            return True
        message = json.loads(body)
        method, params, request_id = message["method"], message.get("params", {}), message.get("id")
        session = dict(head.headers).get(b"mcp-session-id", b"").decode()
        if request_id is None:
            self.book.add({"what": "notice", "method": method, "params": params, "session": session})
            await _send(connection, stream, 202, b"")
            return True
        entry = {"what": "request", "method": method, "id": request_id, "name": params.get("name"), "session": session}
        self.book.add(entry)
        if method == "tools/call":
            return await self._call(request_id, params, connection, stream)
        await self._introduce(method, params, request_id, connection, stream)
        return True

    async def _introduce(self, method: str, params: Any, request_id: Any, connection: Any, stream: Any) -> None:
        if method == "tools/list":
            tools = {"tools": [ECHO], "resultType": "complete"}
            await _send_json(connection, stream, {"id": request_id, "result": tools})
        elif method == "ping":
            await _send_json(connection, stream, {"id": request_id, "result": {}})
        elif method == ("server/discover" if self.modern else "initialize"):
            versions = (
                {"supportedVersions": [LATEST]} if self.modern else {"protocolVersion": params["protocolVersion"]}
            )
            self._sessions += not self.modern
            headers = [] if self.modern else [("mcp-session-id", f"session-{self._sessions}")]
            result = {"resultType": "complete", **versions, **ABOUT}
            await _send_json(connection, stream, {"id": request_id, "result": result}, headers=headers)
        else:
            error = {"code": -32601, "message": f"{method} is not known here"}
            await _send_json(connection, stream, {"id": request_id, "error": error}, status=400)

    async def _call(self, request_id: Any, params: Any, connection: h11.Connection, stream: trio.SocketStream) -> bool:
        name = params["name"]
        if name == "crash":
            await _start_events(connection, stream)
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
        if name in ("hang", "hold", "silence"):
            if name != "silence":
                await _start_events(connection, stream)
                token = params.get("_meta", {}).get("progressToken")
                progress = {"progressToken": token, "progress": 1}
                await _event(connection, stream, {"method": "notifications/progress", "params": progress})
            released = trio.Event()
            self._held.append((request_id, released))
            if not await _unless_closed(stream, released):
                self.book.add({"what": "closed", "id": request_id})
                return False
            await _event(connection, stream, {"id": request_id, "result": _text("held")})
            await stream.send_all(connection.send(h11.EndOfMessage()))
            return True
        if name == "release":
            for _, released in self._held:
                released.set()
        said = params.get("arguments", {}).get("text", "")
        await _send_json(connection, stream, {"id": request_id, "result": _text(said)})
        return True


@define(eq=False)
class Call:
    """A request on a connection of its own."""

    id: Any
    stream: trio.SocketStream
    events: list[Any] = field(factory=list)
    status: int = 0
    last_event_id: str = ""
    headers: dict[str, str] = field(factory=dict)
    _rest: bytes = b""
    _as_events: bool = False
    _connection: h11.Connection = field(factory=lambda: h11.Connection(h11.CLIENT))

    async def send(self, method: str, path: str, headers: dict[str, str], body: bytes) -> None:
        lines = [*headers.items(), ("host", f"127.0.0.1:{self.stream.socket.getpeername()[1]}")]
        if body:
            lines.append(("content-length", str(len(body))))
        out = self._connection.send(h11.Request(method=method, target=path, headers=lines)) or b""
        out += self._connection.send(h11.Data(body)) or b"" if body else b""
        await self.stream.send_all(out + (self._connection.send(h11.EndOfMessage()) or b""))

    async def started(self) -> None:
        """Wait until the response has begun with an event that is a message."""
        while not self.events:
            await self._more()

    async def reply(self) -> Any:
        """The answer with the call's own id; None when the response ends without one."""
        while True:
            for event in self.events:
                if event.get("id") == self.id and "method" not in event:
                    return event
            if not await self._more():
                return None

    async def leave(self, *, rudely: bool = False) -> None:
        """Close the connection, or reset it."""
        if rudely:
            self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await self.stream.aclose()

    async def _more(self) -> bool:
        event = self._connection.next_event()
        while event is h11.NEED_DATA:
            self._connection.receive_data(await self.stream.receive_some(65536))
            event = self._connection.next_event()
        match event:
            case h11.Response():
                self.status = event.status_code
                self._as_events = b"event-stream" in dict(event.headers).get(b"content-type", b"")
                self._rest = b""
                self.headers = {k.decode(): v.decode() for k, v in event.headers}
            case h11.Data():
                self._rest += event.data
                if self._as_events:
                    *whole, self._rest = self._rest.split(b"\n\n")
                    for each in whole:
                        self._take(each.decode())
            case h11.EndOfMessage():
                if not self._as_events and self._rest:
                    self.events.append(json.loads(self._rest))
                return bool(self._rest) and not self._as_events
            case _:
                return False
        return True

    def _take(self, event: str) -> None:
        for line in event.split("\n"):
            name, _, value = line.partition(": ")
            if name == "id":
                self.last_event_id = value
            elif name == "data" and value:
                self.events.append(json.loads(value))


@define(eq=False)
class Peer:
    """A client of one era; every request goes over a connection of its own."""

    port: int
    modern: bool
    prefix: str = ""
    session: str = ""
    version: str = LATEST_LEGACY
    """Of a legacy client."""
    _ids: int = 0

    async def start(self) -> Any:
        """Shake hands, if the era has it; returns the answer to that."""
        if self.modern:
            return None
        hello = {
            "protocolVersion": self.version, "capabilities": {}, "clientInfo": {"name": "peer", "version": "1"},
        }  # fmt: skip
        self.session = ""
        call = await self.send("initialize", hello)
        async with call.stream:
            reply = await call.reply()
        self.session = call.headers.get("mcp-session-id", "")
        if "result" in reply:
            await self.notify("notifications/initialized")
        return reply

    async def call(self, name: str, *, timeout_ms: int | None = None, token: Any = None, **arguments: Any) -> Call:
        """Send a `tools/call` and return while it is in flight."""
        meta: dict[str, Any] = {} if timeout_ms is None else {MetaKey.TIMEOUT.value: timeout_ms}
        if token is not None:
            meta["progressToken"] = token
        return await self.send("tools/call", {"name": self.prefix + name, "arguments": arguments, "_meta": meta})

    async def ask(self, name: str, **arguments: Any) -> str:
        """Call a tool, with a new session if the old one is gone, and return what it says."""
        call = await self.call(name, **arguments)
        async with call.stream:
            reply = await call.reply()
        if call.status == 404:
            await self.start()
            return await self.ask(name, **arguments)
        return str(reply["result"]["content"][0]["text"])

    async def send(self, method: str, params: Any) -> Call:
        self._ids += 1
        if self.modern:
            params = {**params, "_meta": {**META, **params.get("_meta", {})}}
        return await self._open(self._ids, {"id": self._ids, "method": method, "params": params})

    async def notify(self, method: str, **params: Any) -> int:
        """Send a notification; returns the status of its acknowledgement."""
        call = await self._open(None, {"method": method, "params": params})
        async with call.stream:
            await call.reply()
        return call.status

    async def resume(self, call: Call) -> Call:
        """Go on with a response that broke."""
        again = Call(call.id, await trio.open_tcp_stream("127.0.0.1", self.port))
        await again.send("GET", "/mcp", {**self._headers({}), "last-event-id": call.last_event_id}, b"")
        return again

    async def leave(self) -> None:
        """End the session."""
        if self.session:
            call = Call(None, await trio.open_tcp_stream("127.0.0.1", self.port))
            await call.send("DELETE", "/mcp", self._headers({}), b"")
            await call.reply()
            await call.leave()

    async def _open(self, request_id: Any, message: Any) -> Call:
        call = Call(request_id, await trio.open_tcp_stream("127.0.0.1", self.port))
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        try:
            await call.send("POST", "/mcp", {"content-type": "application/json", **self._headers(message)}, body)
        except (OSError, trio.BrokenResourceError):  # it was gone before, or while, it was written to
            await call.leave()
            raise
        return call

    def _headers(self, message: Any) -> dict[str, str]:
        headers = {"accept": "application/json, text/event-stream" if message else "text/event-stream"}
        if self.modern:
            headers |= {"mcp-protocol-version": LATEST, "mcp-method": message["method"]}
            return headers | ({"mcp-name": message["params"]["name"]} if "name" in message["params"] else {})
        if self.session:
            headers |= {"mcp-protocol-version": self.version, "mcp-session-id": self.session}
        return headers


def _text(said: str) -> Any:
    return {"content": [{"type": "text", "text": said}], "resultType": "complete"}


async def _message(connection: h11.Connection, stream: trio.SocketStream) -> tuple[Any, bytes] | None:
    head, body = None, b""
    while True:
        event = connection.next_event()
        match event:
            case h11.NEED_DATA:
                connection.receive_data(await stream.receive_some(65536))
            case h11.Request():
                head = event
            case h11.Data():
                body += event.data
            case h11.EndOfMessage():
                return head, body
            case _:
                return None


async def _send(connection: Any, stream: Any, status: int, body: bytes, headers: Any = ()) -> None:
    lines = [*headers, ("content-length", str(len(body)))]
    out = connection.send(h11.Response(status_code=status, headers=lines))
    await stream.send_all(out + connection.send(h11.Data(body)) + connection.send(h11.EndOfMessage()))


async def _send_json(connection: Any, stream: Any, message: Any, *, status: int = 200, headers: Any = ()) -> None:
    body = json.dumps({"jsonrpc": "2.0", **message}).encode()
    await _send(connection, stream, status, body, [*headers, ("content-type", "application/json")])


async def _start_events(connection: Any, stream: Any) -> None:
    head = h11.Response(
        status_code=200, headers=[("content-type", "text/event-stream"), ("transfer-encoding", "chunked")]
    )
    await stream.send_all(connection.send(head))


async def _event(connection: Any, stream: Any, message: Any) -> None:
    data = b"data: " + json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n\n"
    await stream.send_all(connection.send(h11.Data(data)))


async def _unless_closed(stream: trio.SocketStream, event: trio.Event) -> bool:
    """Wait for an event; False if the other side closes the connection first."""
    async with trio.open_nursery() as nursery:

        async def watch() -> None:
            with suppress(trio.BrokenResourceError):
                while await stream.receive_some(65536):
                    pass
            nursery.cancel_scope.cancel()

        nursery.start_soon(watch)
        await event.wait()
        nursery.cancel_scope.cancel()
    return event.is_set()


@define(eq=False)
class World:
    """One upstream, known by its book, and how a gateway in front of it is configured."""

    book: Book
    sink: str
    """`stdio`, `http`, or one of these behind a route, together with the other."""
    modern: bool
    down: Path
    """While this file exists, the stdio upstream cannot start."""
    book_port: int
    http_port: int
    _listening: Callable[[], Any]

    @property
    def over_stdio(self) -> bool:
        return self.sink.endswith("stdio")

    @property
    def prefix(self) -> str:
        return "up." if self.sink.startswith("route") else ""

    def data(self, *, pipeline: Any = None, run: Any = None, **http: Any) -> Any:
        """The configuration, as it stands in YAML."""
        child = [sys.executable, "-S", str(SCRIPTED), str(self.book_port)]
        stdio = {"command": [*child, str(self.down)], "stop_grace": "1s"}
        upstream = {"http": {"url": f"http://127.0.0.1:{self.http_port}/mcp"}}
        sinks: dict[str, Any] = {"up": {"stdio": stdio} if self.over_stdio else upstream}
        if self.prefix:
            sinks["all"] = {"route": {"to": ["up", "other"]}}
            sinks["other"] = upstream if self.over_stdio else {"stdio": {"command": child, "stop_grace": "1s"}}
        main = {"chain": ["request_id"], "sink": "all" if self.prefix else "up", **(pipeline or {})}
        return {
            "version": 1,
            "sources": {"web": {"http": {"bind": "127.0.0.1:0", **http}}},
            "pipelines": {"main": main},
            "sinks": sinks,
            "run": {"log_level": "error", **(run or {})},
        }

    def document(self, **options: Any) -> Document:
        return from_data(self.data(**options))

    async def listen(self) -> None:
        """Have the HTTP upstream accept connections; it does, unless the test said `cannot_connect`."""
        await self._listening()

    async def told_to_stop(self, request: Entry, count: int = 1) -> None:
        """
        Wait until the upstream learns that nobody waits for a request any more, in the way of its era and transport.

        A modern upstream over HTTP sees the stream close; every other one is sent a notice with the id that it knows.
        """
        if self.modern and not self.over_stdio:
            await self.book.wait_for(what="closed", id=request["id"])
            return
        notice = await self.book.wait_for(count, what="notice", method="notifications/cancelled")
        assert notice["params"]["requestId"] == request["id"]
        assert type(notice["params"]["requestId"]) is type(request["id"])
        for key in ("pid", "session"):
            assert notice.get(key) == request.get(key)


@asynccontextmanager
async def open_world(sink: str, *, modern: bool, folder: Path, listening: bool = True) -> AsyncIterator[World]:
    """An upstream in front of which there is no gateway yet."""
    book = Book()
    async with trio.open_nursery() as nursery:
        server = HttpUpstream(book, modern)
        (reports,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, book.keep, [reports])
        with socket.socket() as reserved:
            reserved.bind(("127.0.0.1", 0))
            http_port = reserved.getsockname()[1]

        async def listen() -> None:
            listeners = await trio.open_tcp_listeners(http_port, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, server.serve, listeners)

        if listening:
            await listen()
        yield World(book, sink, modern, folder / "down", reports.socket.getsockname()[1], http_port, listen)
        nursery.cancel_scope.cancel()


@pytest.fixture
def world(tmp_path: Path) -> Callable[..., Any]:
    """`async with world(sink, modern=...) as w`."""

    def make(sink: str, **options: Any) -> Any:
        return open_world(sink, folder=tmp_path, **options)

    return make


@pytest.fixture
def peer() -> type[Peer]:
    """Makes clients: `peer(port, modern=..., prefix=...)`."""
    return Peer
