"""The wire of a WebSocket, where it meets a peer that is gone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from trio.testing import MemoryReceiveStream, MemorySendStream

from sluiceway.transports.websocket.wire import Gone, Refused, Wire, WireLimits, accept


async def test_a_client_that_left_before_it_was_answered_has_just_left(autojump_clock: trio.testing.MockClock) -> None:
    """That is no failure of ours which anybody should read of in the log."""
    ours, theirs = trio.testing.memory_stream_pair()

    async def gone() -> None:
        raise trio.BrokenResourceError

    ours.send_stream.send_all_hook = gone
    limits = WireLimits(1024, 20.0, 20.0)
    with pytest.raises(Refused, match="left"):
        async with accept(ours, "dGhlIHNhbXBsZSBub25jZQ==", "mcp", first=b"", limits=limits):
            pass  # pragma: no cover  # nobody gets here
    await theirs.aclose()


def frame(payload: bytes) -> bytes:
    """A text frame of 126 to 65535 bytes, masked with zeros."""
    return bytes([0x81, 0x80 | 126]) + len(payload).to_bytes(2, "big") + bytes(4) + payload


@asynccontextmanager
async def talking() -> AsyncIterator[tuple[Wire, trio.StapledStream[MemorySendStream, MemoryReceiveStream]]]:
    """Our end of an open WebSocket, and the stream that its client writes frames into."""
    ours, theirs = trio.testing.memory_stream_pair()
    async with accept(ours, "dGhlIHNhbXBsZSBub25jZQ==", "mcp", first=b"", limits=WireLimits(65535, 20.0, 20.0)) as wire:
        assert b" 101 " in await theirs.receive_some()
        yield wire, theirs


async def test_what_nobody_takes_is_not_read_on_for_ever(autojump_clock: trio.testing.MockClock) -> None:
    """The peer is held back; nothing is lost, and what came before the end is there after it."""
    async with talking() as (wire, client):
        pieces = [b"%05d" % number + bytes(40_000) for number in range(10)]
        for piece in pieces:
            await client.send_all(frame(piece))
        await trio.testing.wait_all_tasks_blocked()
        assert wire._frames.held < 3 * 41_000
        got = [await wire.receive() for _ in range(9)]
        await client.aclose()
        await trio.testing.wait_all_tasks_blocked()
        got.append(await wire.receive())
        with pytest.raises(Gone):
            await wire.receive()

        assert got == pieces


async def test_a_client_that_says_a_lot_leaves_others_their_turn(autojump_clock: trio.testing.MockClock) -> None:
    """Also while there is always something to take."""
    turns = 0

    async def other() -> None:
        nonlocal turns
        for _ in range(2):
            await trio.lowlevel.checkpoint()
            turns += 1

    async with talking() as (wire, client), trio.open_nursery() as nursery:
        await client.send_all(frame(bytes(126)) * 300)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(other)
        for _ in range(300):
            await wire.receive()

        assert turns == 2


async def test_what_nobody_takes_any_more_does_not_hide_the_peers_last_word(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Our close frame is answered behind all that was on its way, and that is as polite as any other end."""
    async with talking() as (wire, client):
        for _ in range(10):
            await client.send_all(frame(bytes(40_000)))
        await client.send_all(bytes([0x88, 0x82]) + bytes(4) + (1000).to_bytes(2, "big"))
        await trio.testing.wait_all_tasks_blocked()
        since = trio.current_time()
        await wire.close(1000)

        assert trio.current_time() == since
        with pytest.raises(Gone):
            await wire.receive()


async def test_nothing_is_said_to_a_peer_that_is_gone(autojump_clock: trio.testing.MockClock) -> None:
    """Whoever says it is told."""
    async with talking() as (wire, client):
        await client.aclose()
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(Gone):
            await wire.send([b"a"])
