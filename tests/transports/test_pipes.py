"""Our ends of pipes, with real ones."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing

from sluiceway.transports.pipes import ReadEnd, WriteEnd, portions

Ends = tuple[ReadEnd, WriteEnd]


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    """A pipe between two tasks."""
    read_fd, write_fd = os.pipe()
    reader, writer = ReadEnd(read_fd), WriteEnd(write_fd)
    yield reader, writer
    reader.close()
    writer.close()


async def test_what_was_written_is_read_at_once_and_the_end_is_empty(ends: Ends) -> None:
    """All that is there, in one read."""
    reader, writer = ends
    assert writer.send_nowait(b"a") == 1
    await writer.send_all(b"bc")
    assert await reader.receive_some() == b"abc"
    writer.close()

    assert await reader.receive_some() == b""


async def test_a_full_pipe_takes_nothing_until_somebody_reads(ends: Ends) -> None:
    """A write that need not be whole says how much went; one that must be whole waits, and loses nothing."""
    reader, writer = ends
    data = bytes(range(256)) * 4096
    sent = writer.send_nowait(data)
    assert 0 < sent < len(data)
    assert writer.send_nowait(data) == 0
    got = bytearray()

    async def write() -> None:
        await writer.send_all(data[sent:])
        writer.close()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        await trio.testing.wait_all_tasks_blocked()
        while piece := await reader.receive_some():
            got += piece

    assert got == data


async def test_closing_an_end_wakes_who_waits_at_it(ends: Ends) -> None:
    """And who comes later is told the same."""
    reader, writer = ends

    async def write() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await writer.send_all(bytes(1_000_000))

    async def read() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await reader.receive_some()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        await trio.testing.wait_all_tasks_blocked()
        writer.close()
    while await reader.receive_some():
        pass
    async with trio.open_nursery() as nursery:
        reader.close()
        reader.close()
        nursery.start_soon(read)
    with pytest.raises(trio.ClosedResourceError):
        writer.send_nowait(b"a")


async def test_a_reader_that_waits_is_told_when_its_end_is_closed(ends: Ends) -> None:
    """It does not wait for bytes that it could not read any more."""
    reader, _ = ends

    async def read() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await reader.receive_some()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        reader.close()


async def test_a_pipe_that_nobody_reads_any_more_is_broken(ends: Ends) -> None:
    """For a writer that waits, too."""
    reader, writer = ends

    async def write() -> None:
        with pytest.raises(trio.BrokenResourceError):
            await writer.send_all(bytes(1_000_000))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        await trio.testing.wait_all_tasks_blocked()
        reader.close()
    with pytest.raises(trio.BrokenResourceError):
        writer.send_nowait(b"a")


async def test_what_cannot_be_read_is_broken() -> None:
    """A descriptor that does not belong there is no reason to crash."""
    _, write_fd = ends = os.pipe()
    wrong = ReadEnd(write_fd)
    os.set_blocking(ends[0], False)
    os.close(ends[0])
    with pytest.raises(trio.BrokenResourceError):
        await wrong.receive_some()
    wrong.close()


async def test_a_read_and_a_write_that_are_cancelled_do_nothing(ends: Ends) -> None:
    """Nothing is taken out, and nothing is put in."""
    reader, writer = ends
    writer.send_nowait(b"a")
    with trio.CancelScope() as scope:
        scope.cancel()
        await writer.send_all(b"b")
    assert scope.cancelled_caught
    with trio.CancelScope() as scope:
        scope.cancel()
        await reader.receive_some()
    assert scope.cancelled_caught

    assert await reader.receive_some() == b"a"


async def test_who_is_woken_for_nothing_waits_on() -> None:
    """Somebody else may have read it first: the two ends here are of one pipe."""
    read_fd, write_fd = os.pipe()
    first, second, writer = ReadEnd(os.dup(read_fd)), ReadEnd(read_fd), WriteEnd(write_fd)
    got = []

    async def read(end: ReadEnd) -> None:
        got.append(await end.receive_some())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read, first)
        nursery.start_soon(read, second)
        await trio.testing.wait_all_tasks_blocked()
        writer.send_nowait(b"a")
        await trio.testing.wait_all_tasks_blocked()
        assert got == [b"a"]
        writer.send_nowait(b"b")

    assert got == [b"a", b"b"]
    for end in (first, second, writer):
        end.close()


def test_what_has_a_lot_of_short_lines_comes_in_portions() -> None:
    """All else comes whole: a long message, and as many as are read in a busy moment."""
    for whole in (b"", bytes(65536), b"x" * 300 + b"\n", (b"x" * 300 + b"\n") * 200):
        assert list(portions(whole)) == [whole]
    short = b"x\n" * 32768
    cut = list(portions(short))

    assert b"".join(cut) == short
    assert max(each.count(b"\n") for each in cut) <= 256
