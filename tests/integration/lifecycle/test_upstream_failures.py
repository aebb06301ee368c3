"""
Cases 32 and 45 of the reliability table: upstreams that refuse, vanish, break off or never end.

Over real sockets and through a breaker: the answer has the client's id and the right status, the breaker counts each
failure once, and what an upstream sends too much of is not read.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import pytest
import trio

from sluiceway.pipeline.config import from_data
from sluiceway.pipeline.runtime.engine import Engine

MIB = 2**20
SEND = 64 * 1024
pytestmark = pytest.mark.real


async def blackhole(stream: trio.SocketStream) -> None:
    """Takes everything and says nothing."""
    while await stream.receive_some(65536):
        pass


async def reset_in_the_body(stream: trio.SocketStream) -> None:
    """Breaks off in the middle of its answer."""
    await stream.receive_some(65536)
    await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 90\r\n\r\n{")
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def close_before_the_reply(stream: trio.SocketStream) -> None:
    """Reads the request and goes."""
    await stream.receive_some(65536)


@asynccontextmanager
async def gateway(
    url: str, *, chain: Any = (), timeout: str = "20s", **limits: Any
) -> AsyncIterator[tuple[Engine, int]]:
    """A gateway in front of one modern upstream."""
    document = from_data(
        {
            "version": 1,
            "sources": {"web": {"http": {"bind": "127.0.0.1:0"}}},
            "pipelines": {"main": {"chain": [], "sink": "up", "timeout": timeout, **limits}},
            "sinks": {"up": {"http": {"url": url, "era": "modern"}, "chain": list(chain)}},
        }
    )
    engine = Engine(document)
    with trio.fail_after(50):
        async with engine.running():
            yield engine, int(str(engine.sources["web"].addresses[0]).rpartition(":")[2])  # type: ignore[attr-defined]  # an HTTP source


@asynccontextmanager
async def serving(serve: Callable[[trio.SocketStream], Awaitable[None]]) -> AsyncIterator[str]:
    """An upstream of raw sockets; yields its url."""

    async def handle(stream: trio.SocketStream) -> None:
        async with stream:
            with suppress(trio.BrokenResourceError):
                await serve(stream)

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, handle, 0, host="127.0.0.1"))
        yield f"http://127.0.0.1:{listener.socket.getsockname()[1]}/mcp"
        nursery.cancel_scope.cancel()


async def asked(client: Any, **options: Any) -> tuple[int, Any]:
    """Status and reply of one call, the id of which must be the client's."""
    call = await client.call("echo", **options)
    reply = await call.reply()
    await call.leave()
    assert reply["id"] == call.id
    return call.status, reply


@pytest.mark.parametrize(
    ("serve", "status", "reason"),
    [
        (None, 502, "connect_failed"),
        (blackhole, 504, "deadline_exceeded"),
        (reset_in_the_body, 502, "upstream_closed"),
        (close_before_the_reply, 502, "upstream_closed"),
    ],
)
async def test_each_way_to_fail_has_its_answer_and_counts_once(serve: Any, status: int, reason: str, peer: Any) -> None:
    """Case 32: 502, 504, 502, 502; after exactly as many as `failures` says, the breaker answers itself."""
    breaker = {"circuit_breaker": {"failures": 3, "open_for": "5m"}}
    async with serving(serve or blackhole) as url:
        if serve is None:
            with socket.socket() as nobody:
                nobody.bind(("127.0.0.1", 0))
                url = f"http://127.0.0.1:{nobody.getsockname()[1]}/mcp"
        async with gateway(url, chain=[breaker]) as (_, port):
            client = peer(port, modern=True)
            answers = [await asked(client, timeout_ms=200) for _ in range(3)]
            refused = await asked(client, timeout_ms=200)

    assert [(status, reason)] * 3 == [(code, reply["error"]["data"]["reason"]) for code, reply in answers]
    assert (503, "circuit_open") == (refused[0], refused[1]["error"]["data"]["reason"])
    assert refused[1]["error"]["data"]["retry_after_ms"] > 0


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\n%b\r\n\r\n"
ENDLESS = {
    "json with its length": (b"application/json", b"content-length: 104857600", b'{"jsonrpc":"2.0","id":1,"result":"'),
    "json in chunks": (b"application/json", b"transfer-encoding: chunked", b'{"jsonrpc":"2.0","id":1,"result":"'),
    "one event": (b"text/event-stream", b"transfer-encoding: chunked", b"data: "),
}


@pytest.mark.parametrize("kind", list(ENDLESS))
async def test_a_hundred_megabytes_are_cut_at_the_limit(kind: str, peer: Any) -> None:
    """Case 45: 502, and the connection is closed long before the rest was sent."""
    sent, cut = 0, trio.Event()
    media, framing, start = ENDLESS[kind]

    async def flood(stream: trio.SocketStream) -> None:
        nonlocal sent
        await stream.receive_some(65536)
        await stream.send_all(HEAD % (media, framing))
        chunked = b"chunked" in framing
        try:
            for piece in [start, *[b"x" * SEND] * (100 * MIB // SEND)]:
                await stream.send_all(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
                sent += len(piece)
        except trio.BrokenResourceError:
            cut.set()

    async with serving(flood) as url, gateway(url) as (_, port):
        status, reply = await asked(peer(port, modern=True))
        await cut.wait()

    assert (502, "upstream_protocol_error") == (status, reply["error"]["data"]["reason"])
    assert "16777216 bytes" in reply["error"]["message"]
    assert sent < 32 * MIB  # the limit, and what buffers of the system hold


async def test_progress_without_an_end_is_cut_at_timeout_max(peer: Any) -> None:
    """Case 45: however much there is, an exchange ends; the upstream sees its stream closed."""
    cut = trio.Event()

    async def babble(stream: trio.SocketStream) -> None:
        await stream.receive_some(65536)
        await stream.send_all(HEAD % (b"text/event-stream", b"transfer-encoding: chunked"))
        try:
            for number in range(1_000_000):
                params = {"progressToken": "t", "progress": number}
                note = json.dumps({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})
                event = f"data: {note}\n\n".encode()
                await stream.send_all(b"%x\r\n%b\r\n" % (len(event), event))
        except trio.BrokenResourceError:
            cut.set()

    async with (
        serving(babble) as url,
        gateway(url, timeout="300ms", timeout_max="600ms") as (_, port),
    ):
        status, reply = await asked(peer(port, modern=True), token="t")
        await cut.wait()

    assert status == 200  # the response had begun
    assert (50400, "deadline_exceeded") == (reply["error"]["code"], reply["error"]["data"]["reason"])
