"""Probes that are no MCP, over real sockets."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio

from sluiceway.transports.balance.reach import Address, parse_address, reach


@asynccontextmanager
async def server(answer: bytes):
    """A server that says one thing; yields its port and what it was asked."""
    asked: list[bytes] = []

    async def serve(stream):
        if answer:
            asked.append(await stream.receive_some(4096))
            await stream.send_all(answer)
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(
            trio.serve_tcp,
            serve,
            0,
        )
        yield listeners[0].socket.getsockname()[1], asked
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("answer", "well"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", True),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", False),
        (b"HTTP/1.1 2\r\n\r\n", False),
        (b"SSH-2.0-x 200 x\r\n", False),
        (b"\r\n", False),
        (b"HTTP/1.1 200", True),
        (b"x" * 10_000, False),
    ],
)
async def test_a_page_must_answer_2xx(answer, well):
    """Nothing else counts."""
    async with server(answer) as (port, asked):
        assert await reach(parse_address(f"http://127.0.0.1:{port}/up?deep=1")) is well
        assert asked[0].startswith(b"GET /up?deep=1 HTTP/1.1\r\nhost: 127.0.0.1:")


async def test_a_connection_is_enough_for_tcp_and_none_is_not():
    """Whoever listens; and nobody who does not."""
    async with server(b"") as (port, _):
        assert await reach(parse_address(f"tcp://127.0.0.1:{port}"))
        assert not await reach(parse_address(f"https://127.0.0.1:{port}/"))
    assert not await reach(parse_address(f"tcp://127.0.0.1:{port}"))


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("tcp://10.0.0.1:80", Address("10.0.0.1", 80)),
        ("http://h/", Address("h", 80, "/")),
        ("https://h", Address("h", 443, "/", True)),
        ("http://[::1]:8080/a", Address("::1", 8080, "/a")),
    ],
)
def test_addresses_are_read(text, address):
    """As urls are written."""
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text", ["tcp://host", "10.0.0.1:80", "ftp://h/", "http:///x", "http://h/\n", "http://h:99999/"]
)
def test_other_text_is_refused(text):
    """With what is expected, or what is wrong with the port."""
    with pytest.raises(ValueError, match=r"probe: expected|[Pp]ort"):
        parse_address(text)
