"""Messages and descriptors between two processes, in one."""

from __future__ import annotations

import os
import resource
import socket
import struct
from contextlib import aclosing

import pytest
import trio

from sluiceway.pipeline.runtime.workers.channel import REST_S, Channel, receive_first
from sluiceway.pipeline.runtime.workers.messages import (
    Announce,
    Drain,
    Hand,
    Order,
    Prepare,
    Ready,
    Report,
    Snapshot,
    Take,
)


def pair() -> tuple[Channel[Report], Channel[Order]]:
    """The ends of a supervisor and a worker."""
    ours, theirs = socket.socketpair()
    return Channel(ours, Report), Channel(theirs, Order)


def prepare(snapshot: Snapshot) -> Prepare:
    """An order with a snapshot."""
    return Prepare(number=1, snapshot=snapshot)


async def test_messages_arrive_in_order_each_with_its_own_descriptor() -> None:
    """However much comes at once."""
    with trio.fail_after(5):
        supervisor, worker = pair()
        names = {name: os.memfd_create(name) for name in ("a", "c")}
        for take in ("a", "b", "c"):
            assert await supervisor.send(Take(source=take), names.get(take))
        supervisor.close()
        for each in names.values():
            os.close(each)
        found = [(order, descriptor) async for order, descriptor in worker.messages()]
        targets = [each and os.readlink(f"/proc/self/fd/{each}").split(":")[1].split()[0] for _, each in found]
        for _, each in found:
            if each is not None:
                os.close(each)
        worker.close()

    assert [order for order, _ in found] == [Take(source=name) for name in "abc"]
    assert targets == ["a", None, "c"]


async def test_a_descriptor_that_cannot_be_received_is_lost_and_no_other() -> None:
    """A process that has as many open as it may goes on: whoever is at the other end finds it closed."""
    with trio.fail_after(5):
        supervisor, worker = pair()
        ends = [os.pipe() for _ in range(2)]
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        async with aclosing(worker.messages()) as messages:
            await supervisor.send(Take(source="a"), ends[0][0])
            resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
            try:
                first = await anext(messages)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            await supervisor.send(Take(source="b"), ends[1][0])
            second, received = await anext(messages)
        assert received is not None
        same = os.fstat(received).st_ino == os.fstat(ends[1][0]).st_ino
        for each in (received, *(each for pair in ends for each in pair)):
            os.close(each)
        supervisor.close()
        worker.close()

    assert first == (Take(source="a"), None)
    assert second == Take(source="b")
    assert same


async def test_a_message_larger_than_any_buffer_arrives_whole() -> None:
    """A snapshot of a configuration has no bound that matters."""
    with trio.fail_after(10):
        supervisor, worker = pair()
        snapshot = Snapshot(contents={"a": b"x" * 3_000_000}, matches={})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervisor.send, prepare(snapshot))
            async with aclosing(worker.messages()) as messages:
                order, _ = await anext(messages)
        supervisor.close()
        worker.close()

    assert order == prepare(snapshot)


async def test_sending_to_nobody_says_so() -> None:
    """A worker that is gone is no error of its supervisor's."""
    supervisor, worker = pair()
    worker.close()

    assert not await supervisor.send(Announce())
    supervisor.close()
    assert not await supervisor.send(Announce())
    assert [message async for message in supervisor.messages()] == []


async def test_who_does_not_read_holds_nobody_up_for_ever(autojump_clock: trio.testing.MockClock) -> None:
    """Half a message is of no use: its connection is closed, on cancellation as well."""
    supervisor, worker = pair()
    before = trio.current_time()

    assert not await supervisor.send(prepare(Snapshot(contents={"a": b"x" * 3_000_000}, matches={})))
    assert REST_S == pytest.approx(trio.current_time() - before)
    assert not await supervisor.send(Drain())
    worker.close()


async def test_descriptors_that_nobody_took_are_closed() -> None:
    """Those of a message that never came whole."""
    ours, theirs = socket.socketpair()
    worker: Channel[Report] = Channel(theirs, Report)
    reading, writing = os.pipe()
    with trio.fail_after(5):
        socket.send_fds(ours, [struct.pack("!IB", 100, 1)], [reading])
        os.close(reading)
        ours.close()
        assert [message async for message in worker.messages()] == []
        worker.close()
        with pytest.raises(BrokenPipeError):
            os.write(writing, b"x")
        os.close(writing)


def test_the_first_message_is_read_without_an_event_loop() -> None:
    """And a supervisor that is gone is told from it."""
    ours, theirs = socket.socketpair()
    with ours, theirs:

        async def send() -> None:
            supervisor: Channel[Order] = Channel(ours.dup(), Order)
            await supervisor.send(Ready())
            supervisor.close()

        trio.run(send)
        theirs.setblocking(True)
        assert receive_first(theirs, Ready) == Ready()
        ours.close()
        with pytest.raises(EOFError):
            receive_first(theirs, Ready)


def test_a_hand_says_whose_it_is() -> None:
    """A client's connection is not one between workers."""
    assert not Hand(mark="w1", source="sources.web").client
