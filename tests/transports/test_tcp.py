"""Reading and writing a connected socket, over real ones."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing

from sluiceway.transports.tcp import receive_from, send_to

Pair = tuple[trio.socket.SocketType, trio.socket.SocketType]


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    """Two ends of a connection."""
    ours, theirs = trio.socket.socketpair()
    yield ours, theirs
    ours.close()
    theirs.close()


async def test_what_was_written_is_read_and_the_end_is_empty(pair: Pair) -> None:
    """As on any stream."""
    ours, theirs = pair
    await send_to(ours, b"hello")
    ours.shutdown(trio.socket.SHUT_WR)

    assert await receive_from(theirs, 3) == b"hel"
    assert await receive_from(theirs, 3) == b"lo"
    assert await receive_from(theirs, 3) == b""


async def test_a_write_waits_for_a_reader_and_loses_nothing(pair: Pair) -> None:
    """More than the kernel holds goes out in parts."""
    ours, theirs = pair
    data, got = bytes(range(256)) * 8192, bytearray()

    async def write() -> None:
        await send_to(ours, data)
        ours.close()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        while piece := await receive_from(theirs, 50_000):
            got += piece

    assert got == data


async def test_a_reader_is_told_when_its_socket_is_closed(pair: Pair) -> None:
    """Whether it waits, or comes later."""
    ours, _ = pair
    raised = []

    async def read() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await receive_from(ours, 1)
        raised.append(True)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        ours.close()
    with pytest.raises(trio.ClosedResourceError):
        await receive_from(ours, 1)
    with pytest.raises(trio.ClosedResourceError):
        await send_to(ours, b"a")

    assert raised == [True]


async def test_a_peer_that_is_gone_is_told(pair: Pair) -> None:
    """As an error of Trio's."""
    ours, theirs = pair
    theirs.close()
    with pytest.raises(trio.BrokenResourceError):
        await send_to(ours, b"a")


async def test_a_write_that_is_cancelled_before_it_began_writes_nothing(pair: Pair) -> None:
    """Who gave up must not be heard."""
    ours, theirs = pair
    with trio.CancelScope() as scope:
        scope.cancel()
        await send_to(ours, b"a")
    ours.close()

    assert scope.cancelled_caught
    assert await receive_from(theirs, 1) == b""
