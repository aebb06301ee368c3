"""Two workers at one listening socket."""

from __future__ import annotations

import socket
from typing import Any

import pytest
import trio

from sluiceway.transports.fairness import FairListener


class Place:
    """A worker with so many connections more than another."""

    def __init__(self, lead: int) -> None:
        self._lead = lead

    def lead(self) -> int:
        return self._lead


def listener(opened: socket.socket, lead: int) -> FairListener:
    """Of a worker, with a descriptor of its own."""
    place: Any = Place(lead)
    return FairListener(opened.dup(), place)


async def test_who_has_more_lets_the_other_accept() -> None:
    """As long as the other one is there to do so."""
    with trio.fail_after(5), socket.create_server(("127.0.0.1", 0)) as opened:
        much, little = listener(opened, 5), listener(opened, 0)
        got: list[str] = []

        async def accept(name: str, each: FairListener) -> None:
            while True:
                stream = await each.accept()
                got.append(name)
                await stream.aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept, "much", much)
            nursery.start_soon(accept, "little", little)
            for _ in range(3):
                async with await trio.open_tcp_stream(*opened.getsockname()) as client:
                    assert await client.receive_some() == b""
            nursery.cancel_scope.cancel()
        await little.aclose()
        async with await trio.open_tcp_stream(*opened.getsockname()), await much.accept() as alone:
            assert alone.socket.getsockname() == opened.getsockname()
        await much.aclose()

    assert got == ["little"] * 3


async def test_a_closed_listener_says_so() -> None:
    """As Trio's own does."""
    with socket.create_server(("127.0.0.1", 0)) as opened:
        closed = listener(opened, 0)
    await closed.aclose()

    with pytest.raises(trio.ClosedResourceError):
        await closed.accept()
