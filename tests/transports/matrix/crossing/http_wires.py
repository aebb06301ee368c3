"""The clients that speak HTTP: on h11 with a connection for each request, on h2 with one for all."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import h2.config
import h2.connection
import h2.events
import h11
import trio
from attrs import define, field

from .book import Book
from .server import MODERN

LEGACY = "2025-11-25"


@define(eq=False)
class Events:
    """Server-sent events, taken apart."""

    book: Book
    endpoint: str = ""
    _rest: bytes = b""

    def feed(self, data: bytes) -> None:
        """Take bytes; messages go into the book."""
        *whole, self._rest = (self._rest + data).split(b"\n\n")
        for event in whole:
            lines = [line.partition(":") for line in event.decode().split("\n")]
            said = "\n".join(value.removeprefix(" ") for name, _, value in lines if name == "data")
            if any(name == "event" and value.strip() == "endpoint" for name, _, value in lines):
                self.endpoint = said
                self.book.add({"endpoint": said})
            elif said:
                self.book.add(json.loads(said))


@define(eq=False)
class Response:
    """What comes back on one stream of HTTP."""

    book: Book
    request_id: Any
    learn: Callable[[str], None]
    """Told of a session id."""
    events: Events = field(init=False)
    _as_events: bool = False
    _body: bytes = b""

    def __attrs_post_init__(self) -> None:
        self.events = Events(self.book)

    def head(self, status: int, headers: dict[str, str]) -> None:
        """Take the head."""
        self._as_events = headers.get("content-type", "").startswith("text/event-stream")
        if session := headers.get("mcp-session-id"):
            self.learn(session)
        if status >= 400 and self.request_id is not None:
            self.book.add({"status": status, "of": self.request_id})

    def data(self, data: bytes) -> None:
        """Take a piece of the body."""
        if self._as_events:
            self.events.feed(data)
        else:
            self._body += data

    def end(self) -> None:
        """Nothing more comes."""
        if self._body and not self._as_events:
            self.book.add(json.loads(self._body))
        self.book.add({"lost": True, "id": self.request_id})  # found only if nothing with that id came before


@define(eq=False)
class _Http:
    """What Streamable HTTP is over any version of HTTP."""

    modern: bool
    session: str = ""
    closes_streams: bool = True

    def learn(self, session: str) -> None:
        self.session = session

    def headers(self, message: Any) -> dict[str, str]:
        accept = "text/event-stream" if message is None else "application/json, text/event-stream"
        headers = {"accept": accept} | ({"content-type": "application/json"} if message is not None else {})
        if self.modern:
            params = message.get("params", {})
            name = params.get("name") if message["method"] == "tools/call" else None
            headers |= {"mcp-protocol-version": MODERN, "mcp-method": message["method"]}
            return headers | ({"mcp-name": name} if name else {})
        if self.session and (message is None or message.get("method") != "initialize"):
            headers |= {"mcp-session-id": self.session, "mcp-protocol-version": LEGACY}
        return headers


@define(eq=False)
class HttpWire(_Http):
    """Streamable HTTP over HTTP/1.1, a connection for each request."""

    book: Book = field(kw_only=True)
    nursery: trio.Nursery = field(kw_only=True)
    port: int = field(kw_only=True)
    _open: dict[Any, trio.CancelScope] = field(factory=dict)

    async def send(self, message: dict[str, Any]) -> None:
        await self.nursery.start(self._exchange, "POST", "/mcp", message)

    async def abandon(self, request_id: Any) -> None:
        self._open[request_id].cancel()

    async def listen(self) -> None:
        await self.nursery.start(self._exchange, "GET", "/mcp", None)

    async def _exchange(self, method: str, path: str, message: Any, *, task_status: Any) -> None:
        request_id = message.get("id") if message and "method" in message else None
        response = Response(self.book, request_id, self.learn)
        with trio.CancelScope() as scope:
            self._open[request_id] = scope
            await http1(self.port, method, path, self.headers(message), message, response, task_status)


async def http1(port: int, method: str, path: str, headers: dict[str, str], message: Any, response: Response,
                task_status: Any) -> None:  # fmt: skip
    """One request on a connection of its own. Started once it was sent, or has its head if nobody waits for a reply."""
    connection = h11.Connection(h11.CLIENT)
    body = b"" if message is None else json.dumps(message).encode()
    lines = [*headers.items(), ("host", f"127.0.0.1:{port}"), ("content-length", str(len(body)))]
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        out = connection.send(h11.Request(method=method, target=path, headers=lines)) or b""
        await stream.send_all(out + (connection.send(h11.Data(body)) or b""))
        connection.send(h11.EndOfMessage())
        sooner = response.request_id is not None
        if sooner:
            task_status.started()
        while True:
            match event := connection.next_event():
                case h11.NEED_DATA:
                    try:
                        connection.receive_data(await stream.receive_some(1 << 18))
                    except trio.BrokenResourceError:
                        connection.receive_data(b"")
                case h11.Response():
                    response.head(event.status_code, {k.decode(): v.decode() for k, v in event.headers})
                    if not sooner:
                        task_status.started()
                case h11.Data():
                    response.data(bytes(event.data))
                case _:
                    response.end()
                    return


@define(eq=False)
class Http2Wire(_Http):
    """Streamable HTTP over one connection with HTTP/2."""

    book: Book = field(kw_only=True)
    stream: trio.SSLStream[trio.SocketStream] = field(kw_only=True)
    _h2: Any = field(factory=lambda: h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8")))
    _responses: dict[int, Response] = field(factory=dict)
    _streams: dict[Any, int] = field(factory=dict)
    _lock: trio.Lock = field(factory=trio.Lock)

    async def start(self, *, task_status: Any) -> None:
        """Greet, and read from then on."""
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(1 << 24)
        await self._flush()
        task_status.started()
        while data := await self.stream.receive_some(1 << 18):
            for event in self._h2.receive_data(bytes(data)):
                self._take(event)
            await self._flush()

    def _take(self, event: Any) -> None:
        response = self._responses.get(getattr(event, "stream_id", None) or 0)
        match event:
            case h2.events.ResponseReceived() if response:
                headers: dict[str, str] = dict[Any, Any](event.headers or ())
                response.head(int(headers[":status"]), headers)
                self.book.add({"begun": event.stream_id})
            case h2.events.DataReceived():
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                if response:
                    response.data(event.data)
            case h2.events.StreamEnded() | h2.events.StreamReset() if response:
                response.end()

    async def send(self, message: dict[str, Any]) -> None:
        await self._send("POST", message)

    async def listen(self) -> None:
        stream = await self._send("GET", None)
        await self.book.wait_for(lambda entry: entry.get("begun") == stream)

    async def _send(self, method: str, message: Any) -> int:
        stream: int = self._h2.get_next_available_stream_id()
        request_id = message.get("id") if message and "method" in message else None
        self._responses[stream], self._streams[request_id] = Response(self.book, request_id, self.learn), stream
        pseudo = {":method": method, ":scheme": "https", ":authority": "localhost", ":path": "/mcp"}
        headers = [*pseudo.items(), *self.headers(message).items()]
        self._h2.send_headers(stream, headers, end_stream=message is None)
        if message is not None:
            self._h2.send_data(stream, json.dumps(message).encode(), end_stream=True)
        await self._flush()
        return stream

    async def abandon(self, request_id: Any) -> None:
        del self._responses[self._streams[request_id]]
        self._h2.reset_stream(self._streams[request_id], error_code=8)
        await self._flush()

    async def _flush(self) -> None:
        async with self._lock:
            await self.stream.send_all(self._h2.data_to_send())


@define(eq=False)
class SseWire:
    """HTTP+SSE of 2024-11-05: a stream to hear on, and a POST for each message."""

    book: Book
    nursery: trio.Nursery
    port: int
    closes_streams: bool = False
    path: str = ""

    async def start(self) -> None:
        """Open the stream."""
        hears = Response(self.book, None, lambda _: None)
        headers = {"accept": "text/event-stream"}
        await self.nursery.start(http1, self.port, "GET", "/sse", headers, None, hears)
        self.path = (await self.book.wait_for(lambda entry: "endpoint" in entry))["endpoint"]

    async def send(self, message: dict[str, Any]) -> None:
        headers = {"content-type": "application/json", "accept": "application/json"}
        taken = Response(self.book, None, lambda _: None)
        await self.nursery.start(http1, self.port, "POST", self.path, headers, message, taken)

    async def abandon(self, request_id: Any) -> None:
        """There is no stream of a request."""

    async def listen(self) -> None:
        """All is heard on one stream."""
