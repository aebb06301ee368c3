"""Wires over real socket pairs: with the reactor, and the way they work where there is no epoll."""

from __future__ import annotations

import gc
import os
import socket
import struct
from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing

from sluiceway.transports.reactor import Reactor
from sluiceway.transports.wire import Wire

Pair = tuple[Wire, Wire]


@pytest.fixture(params=[True, False], ids=["epoll", "fallback"])
def _epoll(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything holds with and without epoll."""
    monkeypatch.setattr("sluiceway.transports.reactor.HAS_EPOLL", request.param)


@pytest.fixture
async def pair(_epoll: None) -> AsyncIterator[Pair]:
    """Two ends of a connection."""
    ours, theirs = map(Wire, socket.socketpair())
    yield ours, theirs
    ours.close()
    theirs.close()
    await trio.testing.wait_all_tasks_blocked()


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a TCP connection of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        return ours, listener.accept()[0]


async def settle() -> None:
    """Let everything happen that can."""
    await trio.testing.wait_all_tasks_blocked(0.005)


# Reading and writing.


async def test_what_was_written_is_read_and_the_end_is_empty(pair: Pair) -> None:
    """As on any stream, in pieces as small as asked for."""
    ours, theirs = pair
    await ours.send_all(b"hello")
    await ours.send_eof()

    assert [await theirs.receive(4) for _ in range(4)] == [b"hell", b"o", b"", b""]


async def test_a_reader_waits_for_what_comes(pair: Pair) -> None:
    """One that came first, and again after what came was read."""
    ours, theirs = pair
    got = []

    async def read() -> None:
        got.extend([await theirs.receive_some(), await theirs.receive_some()])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await settle()
        await ours.send_all(b"a")
        await settle()
        assert got == []
        await ours.send_all(b"b")

    assert got == [b"a", b"b"]


async def test_nothing_to_read_is_none_and_not_the_end(pair: Pair) -> None:
    """And what arrives later is found once the edge came."""
    ours, theirs = pair
    assert theirs.receive_nowait(10) is None
    assert theirs.receive_nowait(10) is None

    ours.send_nowait(b"ab")
    await settle()

    assert theirs.receive_nowait(1) == b"a"
    assert theirs.receive_nowait(5) == b"b"
    assert theirs.receive_nowait(5) is None


async def test_a_wire_knows_that_it_was_read_empty() -> None:
    """After a read that got fewer bytes than it asked for, until more come; not after one that got all it asked for."""
    ours, theirs = map(Wire, socket.socketpair())
    known = []
    with ours.socket, theirs.socket:
        ours.send_nowait(b"ab")
        for size in (1, 1, 1):
            theirs.receive_nowait(size)
            known.append(theirs.has_more)
        ours.send_nowait(b"ab")
        await settle()
        known.append(theirs.has_more)
        theirs.receive_nowait(5)
        known.append(theirs.has_more)
        ours.close()
        theirs.close()

    assert known == [True, True, False, True, False]


async def test_both_directions_can_be_full_and_lose_nothing(pair: Pair) -> None:
    """Two megabytes each way through buffers of a few hundred kilobytes, both writers waiting."""
    data = bytes(range(256)) * 8192
    got = {wire: bytearray() for wire in pair}

    async def read(wire: Wire) -> None:
        while len(got[wire]) < len(data):
            got[wire] += await wire.receive(50_000)

    async with trio.open_nursery() as nursery:
        for wire in pair:
            nursery.start_soon(wire.send_all, data)
        await settle()
        assert [wire.send_nowait(b"more") for wire in pair] == [0, 0]
        for wire in pair:
            nursery.start_soon(read, wire)

    assert [bytes(each) for each in got.values()] == [data, data]


async def test_who_waits_for_room_gets_it(pair: Pair) -> None:
    """At once while there is some, else when the peer reads."""
    ours, theirs = pair
    await ours.wait_send_all_might_not_block()
    while ours.send_nowait(bytes(65536)):
        pass
    with trio.move_on_after(0.01) as scope:
        await ours.wait_send_all_might_not_block()
    assert scope.cancelled_caught

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.wait_send_all_might_not_block)
        await settle()
        while theirs.receive_nowait(65536):
            pass


async def test_an_empty_write_writes_nothing(pair: Pair) -> None:
    """And does not wait."""
    await pair[0].send_all(b"")

    assert pair[1].receive_nowait(1) is None


@pytest.mark.usefixtures("_epoll")
async def test_sockets_of_trio_are_taken_over() -> None:
    """The old object is of no use any more, so that only one can close the descriptor."""
    ours, theirs = trio.socket.socketpair()
    number = ours.fileno()
    wire, peer = Wire.take(ours), Wire.take(theirs)
    await wire.send_all(b"a")

    assert (number, -1) == (wire.socket.fileno(), ours.fileno())
    assert await peer.receive(1) == b"a"
    await wire.aclose()
    await peer.aclose()


# The peer leaves.


async def test_a_peer_that_left_is_seen_behind_what_it_sent(pair: Pair) -> None:
    """With epoll even before anything is read."""
    ours, theirs = pair
    assert not ours.ended
    theirs.send_nowait(b"bye")
    theirs.close()
    await settle()

    assert ours.ended is (ours._reactor is not None)
    assert [await ours.receive(100), await ours.receive(100)] == [b"bye", b""]
    assert ours.ended


@pytest.mark.usefixtures("_epoll")
async def test_a_reset_is_an_error_for_reader_and_writer() -> None:
    """Not an end: something may be missing."""
    ours, theirs = map(Wire, tcp_pair())
    theirs.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    async with trio.open_nursery() as nursery:

        async def read() -> None:
            with pytest.raises(trio.BrokenResourceError):
                await ours.receive(1)

        nursery.start_soon(read)
        await settle()
        theirs.close()

    assert ours.ended
    with pytest.raises(trio.BrokenResourceError):
        await ours.send_all(b"a")
    ours.close()
    await settle()


@pytest.mark.usefixtures("_epoll")
async def test_a_writer_that_waits_is_told_of_a_reset() -> None:
    """It would wait for ever for a buffer that nobody empties."""
    ours, theirs = map(Wire, tcp_pair())
    theirs.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    async with trio.open_nursery() as nursery:

        async def write() -> None:
            with pytest.raises(trio.BrokenResourceError):
                await ours.send_all(bytes(50_000_000))

        nursery.start_soon(write)
        await settle()
        theirs.close()
    ours.close()
    await settle()


@pytest.mark.usefixtures("_epoll")
async def test_bytes_behind_an_urgent_one_are_not_forgotten() -> None:
    """A read stops short of urgent data, so a short one does not prove that there is nothing left."""
    ours, theirs = map(Wire, tcp_pair())
    theirs.socket.send(b"before")
    theirs.socket.send(b"!", socket.MSG_OOB)
    theirs.socket.send(b"after")
    await settle()
    got = b""
    with trio.move_on_after(5):
        while b"after" not in got:
            got += await ours.receive(100)

    assert got == b"beforeafter"
    ours.close()
    theirs.close()
    await settle()


# Closing.


async def test_closing_wakes_who_reads_and_who_writes(pair: Pair) -> None:
    """And who comes later is told the same."""
    ours, _ = pair
    told = []

    async def expect_closed(async_fn: object, *args: object) -> None:
        with pytest.raises(trio.ClosedResourceError):
            await async_fn(*args)  # type: ignore[operator]  # methods of the wire
        told.append(async_fn)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(expect_closed, ours.receive, 1)
        nursery.start_soon(expect_closed, ours.send_all, bytes(50_000_000))
        await settle()
        assert told == []
        ours.close()
        ours.close()
    await expect_closed(ours.receive, 1)
    await expect_closed(ours.send_all, b"a")
    await expect_closed(ours.wait_send_all_might_not_block)
    with pytest.raises(trio.ClosedResourceError):
        ours.receive_nowait(1)
    ours.send_eof_nowait()

    assert len(told) == 5
    assert ours.closed
    assert ours.is_readable()


async def test_who_waits_for_room_is_told_of_the_close(pair: Pair) -> None:
    """As a writer is."""
    ours, _ = pair
    while ours.send_nowait(bytes(65536)):
        pass
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await ours.wait_send_all_might_not_block()

        nursery.start_soon(wait)
        await settle()
        ours.close()


async def test_only_one_reads_and_only_one_writes(pair: Pair) -> None:
    """Two would take each other's bytes."""
    ours, _ = pair
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.receive, 1)
        nursery.start_soon(ours.send_all, bytes(50_000_000))
        await settle()
        with pytest.raises(trio.BusyResourceError):
            await ours.receive(1)
        with pytest.raises(trio.BusyResourceError):
            await ours.send_all(b"a")
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("poll", [True, False])
async def test_readable_is_what_the_kernel_says(pair: Pair, poll: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before any edge was reported, and without taking anything away; also where there is no poll(2)."""
    if not poll:
        monkeypatch.delattr("select.poll")
    ours, theirs = pair
    assert not ours.is_readable()
    theirs.send_nowait(b"a")
    assert ours.is_readable()
    assert await ours.receive(5) == b"a"
    assert not ours.is_readable()
    await ours.wait_send_all_might_not_block()
    theirs.close()
    assert ours.is_readable()


# Being cancelled.


async def test_a_read_that_is_cancelled_loses_nothing(pair: Pair) -> None:
    """Whether nothing was there, or something is."""
    ours, theirs = pair
    for _ in range(2):
        with trio.CancelScope() as scope:
            scope.cancel()
            await ours.receive(5)
        assert scope.cancelled_caught
        theirs.send_nowait(b"a")
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ours.receive, 1)
            nursery.cancel_scope.cancel()

    assert await ours.receive(5) == b"aa"


async def test_a_reader_that_waits_can_be_cancelled_and_another_may_come(pair: Pair) -> None:
    """What arrives then is the other's."""
    ours, theirs = pair
    with trio.move_on_after(0.01) as scope:
        await ours.receive(1)
    assert scope.cancelled_caught
    theirs.send_nowait(b"a")

    assert await ours.receive(1) == b"a"


async def test_a_write_that_is_cancelled_before_it_began_writes_nothing(pair: Pair) -> None:
    """Who gave up must not be heard."""
    ours, theirs = pair
    with trio.CancelScope() as scope:
        scope.cancel()
        await ours.send_all(b"a")
    ours.close()

    assert scope.cancelled_caught
    assert await theirs.receive(1) == b""


async def test_a_writer_that_waits_can_be_cancelled(pair: Pair) -> None:
    """Part of it is gone then, and the next can wait in its place."""
    ours, theirs = pair
    for _ in range(2):
        with trio.move_on_after(0.01) as scope:
            await ours.send_all(bytes(50_000_000))
        assert scope.cancelled_caught
    ours.close()
    got = 0
    while piece := await theirs.receive(65536):
        got += len(piece)

    assert 0 < got < 50_000_000


# Being called.


async def test_a_callback_is_called_for_what_was_there_and_for_each_edge(pair: Pair) -> None:
    """The end is one too; after it was taken away, readers are served."""
    ours, theirs = pair
    got = []

    def take() -> None:
        while (data := ours.receive_nowait(2)) is not None:
            got.append(data)
            if not data:
                return

    theirs.send_nowait(b"abc")
    ours.on_readable = take
    assert ours.on_readable is not None
    await settle()
    assert b"".join(got) == b"abc"
    theirs.send_nowait(b"d")
    await settle()
    assert b"".join(got) == b"abcd"
    ours.on_readable = None
    theirs.send_nowait(b"e")
    assert await ours.receive(5) == b"e"
    ours.on_readable = take
    theirs.close()
    await settle()

    assert got[-2:] == [b"d", b""]


async def test_who_stops_reading_is_called_no_more_until_it_read_on(pair: Pair) -> None:
    """Not over and over again: the peer is held back."""
    ours, theirs = pair
    calls = []
    ours.on_readable = lambda: calls.append(ours.receive_nowait(1))
    theirs.send_nowait(b"abc")
    await settle()
    assert calls[0] == b"a"
    assert len(calls) == 1

    assert ours.receive_nowait(100) == b"bc"
    theirs.send_nowait(b"d")
    await settle()
    assert calls == [b"a", b"d"]


async def test_a_callback_that_raises_ends_its_wire_and_no_other(pair: Pair) -> None:
    """A bug in one connection is not everybody's."""
    ours, theirs = pair
    others = list(map(Wire, socket.socketpair()))

    def crash() -> None:
        ours.receive_nowait(1)
        raise LookupError("a bug")

    ours.on_readable = crash
    theirs.send_nowait(b"a")
    assert await theirs.receive(1) == b""
    assert ours.closed
    others[0].send_nowait(b"a")
    assert await others[1].receive(1) == b"a"
    for wire in others:
        wire.close()
    await settle()


@pytest.mark.usefixtures("_epoll")
async def test_callbacks_may_close_other_wires_of_the_same_batch() -> None:
    """What takes over the number of one of them is not called in its place."""
    wires = [Wire(end) for _ in range(10) for end in socket.socketpair()]
    ours, theirs = wires[::2], wires[1::2]
    fresh: list[Wire] = []
    called: list[object] = []

    def close_all_others(me: Wire) -> None:
        called.append(me)
        for other in ours:
            if other is not me:
                other.close()
        for end in socket.socketpair():
            fresh.append(Wire(end))
            fresh[-1].on_readable = lambda: called.append("fresh")

    for wire in ours:
        wire.on_readable = lambda me=wire: close_all_others(me)
    for wire in theirs:
        wire.close()
    numbers = {wire.socket.fileno() for wire in ours}
    await settle()

    assert len([each for each in called if isinstance(each, Wire)]) == 1
    assert "fresh" not in called
    assert not any(wire.ended for wire in fresh)
    assert {wire.socket.fileno() for wire in fresh} & numbers
    for wire in ours + fresh:
        wire.close()
    await settle()


# Many, and one after the other.


@pytest.mark.usefixtures("_epoll")
async def test_a_thousand_wires_at_once() -> None:
    """More than one batch holds; each gets what is its own."""
    pairs = [list(map(Wire, socket.socketpair())) for _ in range(1000)]
    got = {}

    async def echo(number: int, wire: Wire) -> None:
        got[number] = await wire.receive(10)
        await wire.send_all(got[number])

    async with trio.open_nursery() as nursery:
        for number, (_, theirs) in enumerate(pairs):
            nursery.start_soon(echo, number, theirs)
        await settle()
        for number, (ours, _) in enumerate(pairs):
            ours.send_nowait(b"%d" % number)

    assert got == {number: b"%d" % number for number in range(1000)}
    assert [int(await ours.receive(10)) for ours, _ in pairs] == list(range(1000))
    for wires in pairs:
        for wire in wires:
            wire.close()
    await settle()


async def test_a_wire_that_is_always_ready_does_not_starve_other_tasks(pair: Pair) -> None:
    """Neither its reader nor its callback."""
    ours, theirs = pair
    turns = 0

    async def other() -> None:
        nonlocal turns
        for _ in range(3):
            await trio.lowlevel.checkpoint()
            turns += 1

    theirs.send_nowait(bytes(1000))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        for _ in range(200):
            await ours.receive(1)
        assert turns == 3
        turns = 0
        ours.on_readable = lambda: theirs.send_nowait(b"a") and ours.receive_nowait(1000)
        theirs.on_readable = lambda: ours.send_nowait(b"a") and theirs.receive_nowait(1000)
        theirs.send_nowait(b"a")
        nursery.start_soon(other)

    assert turns == 3


async def test_who_reads_much_at_once_lets_others_have_their_turn_after_each_read(pair: Pair) -> None:
    """What is made of 64 KiB of the smallest frames or chunks takes long enough."""
    ours, theirs = pair
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(theirs.send_all, bytes(8 * 65536))
        await settle()
        nursery.start_soon(other)
        read = [len(await ours.receive(16384)) for _ in range(16)]
        nursery.cancel_scope.cancel()

    assert len(read) == 16
    assert turns >= 2


@pytest.mark.usefixtures("_epoll")
def test_two_runs_one_after_the_other() -> None:
    """Each has a reactor of its own, which ends with its last wire and leaves neither task nor descriptor."""

    async def main() -> int:
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(2):
            ours, theirs = map(Wire, socket.socketpair())
            await ours.send_all(b"a")
            await theirs.receive(1)
            ours.close()
            theirs.close()
        return len(os.listdir("/proc/self/fd")) - before

    assert [trio.run(main), trio.run(main)] == [0, 0]


def test_a_run_that_is_cancelled_leaves_nothing_behind() -> None:
    """Who forgot a wire can still close it when the run is over."""
    forgotten: list[Wire] = []

    async def main() -> None:
        forgotten.extend(map(Wire, socket.socketpair()))
        await settle()
        assert trio.lowlevel.current_statistics().tasks_living > 3

    trio.run(main)
    for wire in forgotten:
        wire.close()
    gc.collect()


def test_no_wire_is_made_in_the_last_words_of_a_run() -> None:
    """Nobody would serve it; the descriptor of the set is not left behind."""
    ends = socket.socketpair()

    async def late() -> AsyncIterator[None]:
        try:
            yield
        finally:
            with pytest.raises(RuntimeError):
                Wire(ends[0])

    generator = late()

    async def main() -> None:
        await anext(generator)

    trio.run(main)
    for end in ends:
        end.close()


async def test_the_reactor_is_there_while_there_are_wires() -> None:
    """It is started by the first, serves all, and ends with the last: also when one is closed in a callback."""
    first, second = map(Wire, socket.socketpair())
    reactor = Reactor.current()
    assert reactor is not None
    assert len(reactor) == 2
    first.on_readable = first.close
    second.close()
    await settle()

    assert first.closed
    assert len(reactor) == 0
    third, fourth = map(Wire, socket.socketpair())
    assert Reactor.current() is not reactor
    third.close()
    assert await fourth.receive(1) == b""
    fourth.close()
    await settle()


async def test_a_clock_that_jumps_is_not_held_up(autojump_clock: trio.testing.MockClock) -> None:
    """An idle reactor waits as any task does."""
    ours, theirs = map(Wire, socket.socketpair())
    await trio.sleep(3600)
    ours.send_nowait(b"a")

    assert await theirs.receive(1) == b"a"
    ours.close()
    theirs.close()
    await settle()
