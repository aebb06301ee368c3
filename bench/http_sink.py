"""
What a call over the `http` sink costs, and how its pool behaves: CPU of this process over real loopback sockets.

    python bench/http_sink.py --json bench/results/http_sink.json

The upstream is a process of its own that reads a request and writes an answer it has ready, so that everything
measured is the sink: making headers, the pool, writing, parsing, reading the envelope of the answer. Exchanges are made
before. The floor is a write and a read on a wire, without any HTTP; what is above it is ours. CPU time, median of
rounds. HTTP/2 is measured against the same upstream, which then has h2 as well.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

import trio
from figures import report
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, StreamEnded

from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.model.session import Client, Session
from sluiceway.pipeline.protocol.codec import decode_message
from sluiceway.pipeline.protocol.mcp import LATEST, LATEST_LEGACY, Era
from sluiceway.pipeline.protocol.messages import Result
from sluiceway.pipeline.testing import memory_exchange
from sluiceway.transports.http_sink import HttpSink
from sluiceway.transports.http_upstream.config import HttpSinkConfig
from sluiceway.transports.wire import Wire

BOUNDS = {
    "modern, one at a time, us": 120.0,
    "modern, 32 at a time, us": 80.0,
    "legacy, one at a time, us": 120.0,
    "legacy, 32 at a time, us": 80.0,
    "modern over HTTP/2, one at a time, us": 700.0,
    "modern over HTTP/2, 32 at a time, us": 600.0,
    "modern, 32 at a time, connections": 32.0,
}
MANY = 32
CALL = (
    '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"%s","arguments":{"text":"hello"},"_meta":'
    '{"io.modelcontextprotocol/protocolVersion":"' + LATEST + '","io.modelcontextprotocol/clientCapabilities":{}}}}'
)
ANSWER = b'{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"hello"}],"resultType":"complete"}}'
HELLO = b'{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"%b","capabilities":{},"serverInfo":{"name":"u"}}}' % (
    LATEST_LEGACY.encode()
)
NOTE = b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"t","progress":1}}'


def _answer(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nmcp-session-id: s\r\ncontent-length: %d\r\n\r\n%b" % (
        len(body),
        body,
    )


def _events(*bodies: bytes) -> bytes:
    events = b"".join(b"data: %b\n\n" % body for body in bodies)
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    return head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(events), events)


async def _upstream_http2(connection: trio.SocketStream, data: bytes) -> None:
    """The same over HTTP/2: all that was asked in one read is answered in one write."""
    state = H2Connection(H2Configuration(client_side=False, validate_inbound_headers=False))
    state.initiate_connection()
    head = [(":status", "200"), ("content-type", "application/json"), ("content-length", str(len(ANSWER)))]
    while data:
        for event in state.receive_data(data):
            if isinstance(event, DataReceived):
                state.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, StreamEnded):
                state.send_headers(event.stream_id, head)
                state.send_data(event.stream_id, ANSWER, end_stream=True)
        await connection.send_all(state.data_to_send())
        data = await connection.receive_some(65536)


async def upstream() -> None:
    """Answer what stands in the request: `echo` with JSON, others with events; tells how many connected."""
    plain, hello = _answer(ANSWER), _answer(HELLO)
    streams = {b'"events"': _events(NOTE, NOTE, NOTE, ANSWER), b'"event"': _events(ANSWER)}
    nothing = b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n"
    connected = 0

    async def serve(connection: trio.SocketStream) -> None:
        nonlocal connected
        connected += 1
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while data := await connection.receive_some(65536):
            if data.startswith(b"PRI * HTTP/2.0"):
                await _upstream_http2(connection, data)
            elif data == b"connected?":
                await connection.send_all(str(connected - 1).encode())
            elif data.startswith((b"GET", b"DELETE")):
                await connection.send_all(nothing.replace(b"202 Accepted", b"405 No"))
            elif b"notifications/initialized" in data:
                await connection.send_all(nothing)
            else:
                stream = next((events for name, events in streams.items() if name in data), plain)
                await connection.send_all(hello if b'"initialize"' in data else stream)

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    print(listener.socket.getsockname()[1], flush=True)
    await trio.serve_listeners(serve, [listener])


def _connected(port: int) -> int:
    with socket.create_connection(("127.0.0.1", port)) as probe:
        probe.sendall(b"connected?")
        return int(probe.recv(100))


def _exchange(name: str, client: Client | None = None):
    exchange = memory_exchange(**({"client": client} if client is not None else {}))
    return exchange.with_request(decode_message((CALL % name).encode()))


async def _cpu(make, *, at_once: int, count: int) -> float:
    """Microseconds of CPU of one of so many calls; `make` makes what each of those at the same time does."""

    async def several(call) -> None:
        for _ in range(count // at_once):
            await call()

    calls = [make() for _ in range(at_once)]
    start = time.process_time()
    async with trio.open_nursery() as nursery:
        for call in calls:
            nursery.start_soon(several, call)
    return (time.process_time() - start) / (count // at_once * at_once) * 1e6


def _calls(sink: HttpSink, name: str, client: Client | None = None):
    """Makes what asks for this tool again and again."""

    def make():
        exchange = _exchange(name, client)

        async def call() -> None:
            assert isinstance(await sink(exchange), Result)

        return call

    return make


async def _legacy_client(sink: HttpSink, number: int) -> Client:
    """A client with a session upstream."""
    client = Client(
        era=Era.LEGACY, version=LATEST_LEGACY, session=Session(id=f"s{number}", source="bench", notify=lambda _: None)
    )
    hello = {"protocolVersion": LATEST_LEGACY, "capabilities": {}, "clientInfo": {"name": "b", "version": "1"}}
    assert isinstance(await sink(memory_exchange("initialize", hello, client=client)), Result)
    await sink(memory_exchange("notifications/initialized", client=client))
    return client


async def measure(port: int, rounds: int, count: int) -> dict[str, float]:
    """All figures, median of interleaved rounds."""
    url = f"http://127.0.0.1:{port}/mcp"
    wires = [Wire.take((await trio.open_tcp_stream("127.0.0.1", port)).socket) for _ in range(MANY)]
    spent: dict[str, list[float]] = {}
    connections: dict[str, float] = {}

    async def rounds_of(name: str, make, at_once: int) -> None:
        spent.setdefault(name, []).append(await _cpu(make, at_once=at_once, count=count))

    def floor():
        free = iter(wires)

        def make():
            wire = next(free)

            async def call() -> None:
                await wire.send_all(b"POST")
                await wire.receive(65536)

            return call

        return make

    modern = HttpSink(HttpSinkConfig(url=url, era="modern"), Context(id="modern"))
    legacy = HttpSink(HttpSinkConfig(url=url, era="legacy"), Context(id="legacy"))
    http2 = HttpSink(HttpSinkConfig(url=url, era="modern", http2="always"), Context(id="http2"))
    async with modern.open(), legacy.open(), http2.open():
        client = await _legacy_client(legacy, 1)

        for _ in range(rounds):
            for name, make in (
                ("floor, a write and a read", floor),
                ("modern", lambda: _calls(modern, "echo")),
                ("modern over HTTP/2", lambda: _calls(http2, "echo")),
                ("modern, a stream of one event", lambda: _calls(modern, "event")),
                ("modern, 3 notes in a stream", lambda: _calls(modern, "events")),
                ("legacy", lambda: _calls(legacy, "echo", client)),
            ):
                await rounds_of(f"{name}, one at a time, us", make(), 1)
                await rounds_of(f"{name}, {MANY} at a time, us", make(), MANY)
    for at_once in (1, 32, 200):
        before = _connected(port)
        sink = HttpSink(HttpSinkConfig(url=url, era="modern"), Context(id="pool"))
        async with sink.open():
            await _cpu(_calls(sink, "echo"), at_once=at_once, count=900)  # a connection serves 1000
        connections[f"modern, {at_once} at a time, connections"] = _connected(port) - before - 1
    for wire in wires:
        wire.close()
    return {**{name: statistics.median(values) for name, values in spent.items()}, **connections}


def main() -> int:
    """Measure, print, and write as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--count", type=int, default=1600)
    parser.add_argument("--upstream", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.upstream:
        trio.run(upstream)
    with subprocess.Popen([sys.executable, __file__, "--upstream"], stdout=subprocess.PIPE, text=True) as process:
        try:
            port = int(process.stdout.readline())
            figures = trio.run(measure, port, options.rounds, options.count)
        finally:
            os.kill(process.pid, signal.SIGTERM)
    return report(figures, BOUNDS, options.json)


if __name__ == "__main__":
    sys.exit(main())
