"""
Clients of the matrix, one small one for each transport, on libraries that are not the gateway's.

Whatever comes to a client, on whichever stream, goes into its book; what it sends is one message at a time. Only how a
request is given up depends on the transport, and is `Wire.abandon`.
"""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any, Protocol

import trio
import trio_websocket
from attrs import define

from .book import Book, Entry
from .http_wires import LEGACY, Http2Wire, HttpWire, SseWire
from .server import LARGE, MODERN, VERSION_KEY

SSE_LEGACY = "2024-11-05"
CAPABILITIES: dict[str, Any] = {"elicitation": {"form": {}}}
CLIENT = {"name": "matrix", "version": "1"}
META: dict[str, Any] = {
    VERSION_KEY: MODERN,
    "io.modelcontextprotocol/clientCapabilities": CAPABILITIES,
    "io.modelcontextprotocol/clientInfo": CLIENT,
}


class Wire(Protocol):
    """One transport, as a client of it sees it."""

    closes_streams: bool
    """Whether a modern client gives a request up by closing its stream."""

    async def send(self, message: dict[str, Any]) -> None:
        """Send one message; does not wait for what it leads to."""
        ...

    async def abandon(self, request_id: Any) -> None:
        """Close the stream of a request."""
        ...

    async def listen(self) -> None:
        """Open what a legacy session hears on what belongs to no request, if that is a stream of its own."""
        ...


@define(eq=False)
class Client:
    """A client of one era on any transport."""

    wire: Wire
    book: Book
    modern: bool
    version: str
    _ids: int = 0

    async def start(self) -> None:
        """Shake hands, if the era has it."""
        if self.modern:
            return
        hello = {"protocolVersion": self.version, "capabilities": CAPABILITIES, "clientInfo": CLIENT}
        reply = await self.ask("initialize", hello)
        assert reply["result"]["protocolVersion"] == self.version, reply
        await self.say({"method": "notifications/initialized"})
        await self.wire.listen()

    async def ask(self, method: str, params: dict[str, Any]) -> Entry:
        """Send a request and wait for its response."""
        return await self.reply(await self.begin(method, params))

    async def begin(self, method: str, params: dict[str, Any]) -> int:
        """Send a request; its id, which is its progress token as well."""
        self._ids += 1
        meta = {**(META if self.modern else {}), "progressToken": self._ids}
        if method != "initialize":
            params = {**params, "_meta": meta}
        await self.say({"id": self._ids, "method": method, "params": params})
        return self._ids

    async def call(self, name: str, **arguments: Any) -> Entry:
        """Call a tool."""
        return await self.ask("tools/call", {"name": name, "arguments": arguments})

    async def reply(self, request_id: int) -> Entry:
        """The response to a request, or that there will be none: `{"lost": ...}`."""
        return await self.book.wait_for(lambda entry: entry.get("id") == request_id and "method" not in entry)

    async def heard(self, method: str, start: int = 0) -> Entry:
        """A notification or a question."""
        return await self.book.wait_for(lambda entry: entry.get("method") == method, start)

    async def give_up(self, request_id: int) -> None:
        """Cancel a request, as the era and the transport have it."""
        if self.modern and self.wire.closes_streams:
            await self.wire.abandon(request_id)
        else:
            await self.say({"method": "notifications/cancelled", "params": {"requestId": request_id}})

    async def say(self, message: dict[str, Any]) -> None:
        """Send a message of any kind."""
        if self.modern and message.get("method", "").startswith("notifications/"):
            message = {**message, "params": {**message.get("params", {}), "_meta": META}}
        await self.wire.send({"jsonrpc": "2.0", **message})


@define(eq=False)
class ConnectionWire:
    """A transport that carries messages both ways on one connection."""

    write: Callable[[str], Any]
    closes_streams: bool = False

    async def send(self, message: dict[str, Any]) -> None:
        await self.write(json.dumps(message))

    async def abandon(self, request_id: Any) -> None:
        """There is no stream of a request."""

    async def listen(self) -> None:
        """All is heard on one connection."""


@define(eq=False)
class Door:
    """Where clients of a gateway come in."""

    port: int = 0
    tls: ssl.SSLContext | None = None
    standard_input: int = -1
    standard_output: int = -1


@asynccontextmanager
async def open_client(kind: str, modern: bool, door: Door) -> AsyncIterator[Client]:
    """A client that has not said anything yet."""
    book = Book()
    async with AsyncExitStack() as outside, trio.open_nursery() as nursery:
        wire = await OPENERS[kind](modern, door, book, nursery, outside)
        yield Client(wire, book, modern, SSE_LEGACY if kind == "sse" else LEGACY)
        nursery.cancel_scope.cancel()


async def _http(modern: bool, door: Door, book: Book, nursery: trio.Nursery, outside: AsyncExitStack) -> Wire:
    return HttpWire(modern, book=book, nursery=nursery, port=door.port)


async def _http2(modern: bool, door: Door, book: Book, nursery: trio.Nursery, outside: AsyncExitStack) -> Wire:
    tcp = await trio.open_tcp_stream("127.0.0.1", door.port)
    assert door.tls is not None
    stream = trio.SSLStream(tcp, door.tls, server_hostname="localhost", https_compatible=True)
    outside.push_async_callback(trio.aclose_forcefully, stream)
    await stream.do_handshake()
    assert stream.selected_alpn_protocol() == "h2"
    wire = Http2Wire(modern, book=book, stream=stream)
    await nursery.start(wire.start)
    return wire


async def _sse(modern: bool, door: Door, book: Book, nursery: trio.Nursery, outside: AsyncExitStack) -> Wire:
    wire = SseWire(book, nursery, door.port)
    await wire.start()
    return wire


async def _websocket(modern: bool, door: Door, book: Book, nursery: trio.Nursery, outside: AsyncExitStack) -> Wire:
    url = f"ws://127.0.0.1:{door.port}/mcp"
    socket = await trio_websocket.connect_websocket_url(nursery, url, subprotocols=["mcp"], max_message_size=2 * LARGE)
    outside.push_async_callback(trio.aclose_forcefully, socket._stream)
    nursery.start_soon(_hear, socket, book)
    return ConnectionWire(socket.send_message)


async def _stdio(modern: bool, door: Door, book: Book, nursery: trio.Nursery, outside: AsyncExitStack) -> Wire:
    reader = await outside.enter_async_context(trio.lowlevel.FdStream(door.standard_output))
    writer = await outside.enter_async_context(trio.lowlevel.FdStream(door.standard_input))
    nursery.start_soon(_hear_lines, reader, book)

    async def write(text: str) -> None:
        await writer.send_all(text.encode() + b"\n")

    return ConnectionWire(write)


OPENERS = {"http": _http, "http2": _http2, "sse": _sse, "websocket": _websocket, "stdio": _stdio}


async def _hear(socket: trio_websocket.WebSocketConnection, book: Book) -> None:
    with suppress(trio_websocket.ConnectionClosed):
        while True:
            book.add(json.loads(await socket.get_message()))


async def _hear_lines(reader: trio.lowlevel.FdStream, book: Book) -> None:
    rest = b""
    async for data in reader:
        *lines, rest = (rest + bytes(data)).split(b"\n")
        for line in lines:
            book.add(json.loads(line))


def pipes() -> tuple[tuple[int, int], tuple[int, int]]:
    """The standard streams of a gateway that a client starts: what it reads from and writes to, and the other ends."""
    (reads, standard_input), (standard_output, writes) = os.pipe(), os.pipe()
    return (reads, writes), (standard_input, standard_output)
