"""Requests over HTTP/2 that are called off: at every step, in great numbers, and what becomes of the others."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing
from hyperframe.frame import DataFrame, RstStreamFrame, SettingsFrame

from sluiceway.pipeline.testing import cancel_everywhere
from sluiceway.transports.http_client.client import Use

CANCEL = 8
MAX_STREAMS = SettingsFrame.MAX_CONCURRENT_STREAMS


async def idle(kit: Any) -> None:
    """Let what is under way arrive, then see that nothing is in hand."""
    await trio.sleep(12)
    report = kit.client.reports()["call"]
    assert (report.requests, report.waiting, kit.client.taken) == (0, 0, 0)


@pytest.mark.parametrize("size", [0, 5, 200_000])
async def test_a_call_can_be_cancelled_at_every_step(h2, autojump_clock, size):
    """From the wait for a connection to the last byte of the body; the connection goes on."""
    async with h2.speaking(h2.greeted) as kit:
        body = bytes(size)

        async def call() -> None:
            assert await kit.ask(body) == b"200 " + body

        await cancel_everywhere(call)
        await idle(kit)
        assert await kit.ask(b"after") == b"200 after"
        assert len(kit.server.peers) == 1


async def test_calls_can_be_cancelled_at_every_moment_of_opening_connections(h2, autojump_clock):
    """With others that wait for the same one, and peers that go away."""

    async def serve(peer: Any) -> None:
        await peer.greet({MAX_STREAMS: 1})
        for _ in range(2):
            asked = await peer.request()
            await peer.answer(asked, asked.body)
        await peer.goaway(0x7FFFFFFF)
        await peer.serve()

    async with h2.speaking(serve, max_connections=2) as kit:
        for step in range(40):
            with trio.move_on_after(0.001 * step):
                async with trio.open_nursery() as nursery:
                    for number in range(5):
                        nursery.start_soon(kit.ask, b"%d" % number)
            if step % 7 == 0:
                await idle(kit)
        await idle(kit)
        assert await kit.ask(b"after") == b"200 after"


async def test_ten_thousand_cancelled_calls_leave_nothing(h2, autojump_clock):
    """Waiting for a place, for a window, for the head, or in the middle of the body."""

    async def serve(peer: Any) -> None:
        peer.polite = False
        await peer.greet({MAX_STREAMS: 50})
        async with trio.open_nursery() as nursery:

            async def begin(stream_id: int) -> None:
                if stream_id % 4 == 1:
                    await peer.send(peer.head(stream_id), peer.data(stream_id, b"part"))

            while True:
                nursery.start_soon(begin, await peer.begun())

    async with h2.speaking(serve, max_connections=2, max_waiting=100_000) as kit:
        cancelled = 0

        async def one(number: int) -> None:
            nonlocal cancelled
            with trio.move_on_after(0.02 + 0.001 * (number % 11)) as scope:
                await kit.ask(bytes(100_000 if number % 50 == 0 else 5))
            cancelled += scope.cancelled_caught

        for batch in range(20):
            async with trio.open_nursery() as nursery:
                for number in range(500):
                    nursery.start_soon(one, batch * 500 + number)

        assert cancelled == 10_000
        await idle(kit)
        resets = sum(peer.count(RstStreamFrame) for peer in kit.server.peers)
        assert resets > 1000
        assert not [connection for pool in kit.client._http2_pools.values() for connection in pool._connections
                    if connection._state.streams or connection._lingering]  # fmt: skip


async def test_an_answer_that_crosses_its_cancel_harms_nobody(h2, autojump_clock):
    """Head, body and end of a stream that was reset may be under way; they are read over."""

    async def serve(peer: Any) -> None:
        await peer.greet()
        slow = await peer.request()
        quick = await peer.request()
        await peer.until(RstStreamFrame)
        await peer.answer(slow, b"too late")
        await peer.answer(quick, b"in time")
        await peer.serve()

    async with h2.speaking(serve) as kit:
        answers: list[bytes] = []

        async def quick() -> None:
            await trio.sleep(0.1)
            answers.append(await kit.ask(b"quick"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(quick)
            with trio.move_on_after(1):
                await kit.ask(b"slow")

        assert answers == [b"200 in time"]
        for number in range(50):
            assert await kit.ask(b"%d" % number) == b"200 %d" % number
        assert len(kit.server.peers) == 1
        await idle(kit)


async def test_a_cancel_tears_no_frame_of_the_others(h2, autojump_clock):
    """On a transport that takes a few bytes at a time, and takes its time."""
    async with h2.speaking(h2.greeted) as kit:
        await kit.ask()
        transport = kit.server.transports[0]
        send_all = transport.send_all

        async def slowly(data: bytes) -> None:
            for at in range(0, len(data), 7):
                await trio.sleep(0.001)
                await send_all(data[at : at + 7])

        transport.send_all = slowly
        answers = []

        async def lives(number: int) -> None:
            answers.append(await kit.ask(b"%d" % number * 50))

        async def dies(number: int) -> None:
            with trio.move_on_after(0.001 * number):
                await kit.ask(b"dies" * 50)

        async with trio.open_nursery() as nursery:
            for number in range(30):
                nursery.start_soon(lives, number)
                nursery.start_soon(dies, number)
                await trio.sleep(0.002)

        assert sorted(answers) == sorted(b"200 " + b"%d" % number * 50 for number in range(30))
        assert len(kit.server.peers) == 1
        await idle(kit)


async def test_a_request_that_is_cancelled_while_its_content_waits_is_reset(h2, autojump_clock):
    """And what was not sent never is."""

    async def serve(peer: Any) -> None:
        peer.polite = False
        await peer.greet({SettingsFrame.INITIAL_WINDOW_SIZE: 10})
        stream_id = await peer.begun()
        assert len((await peer.until(DataFrame)).data) == 10
        reset = await peer.until(RstStreamFrame)
        assert (reset.stream_id, reset.error_code) == (stream_id, CANCEL)
        await peer.window(stream_id, 1000)
        await peer.serve()

    async with h2.speaking(serve) as kit:
        with trio.move_on_after(1):
            await kit.ask(bytes(100))
        assert await kit.ask(b"next") == b"200 next"
        assert sum(len(f.data) for f in kit.server.peers[0].seen if isinstance(f, DataFrame)) == 14
        await idle(kit)


async def test_requests_that_are_called_off_do_not_pile_up_in_front_of_a_stalled_peer(h2, autojump_clock):
    """Their heads and resets cannot be taken back; from some point on nobody begins one there."""
    async with h2.speaking(h2.greeted, max_connections=1) as kit:
        await kit.ask()
        transport, stalled = kit.server.transports[0], trio.Event()
        send_all = transport.send_all

        async def stalling(data: bytes) -> None:
            await stalled.wait()
            await send_all(data)

        transport.send_all = stalling
        most = 0
        (connection,) = kit.client._http2_pools[Use.CALL]._connections

        async def dies() -> None:
            nonlocal most
            with trio.move_on_after(0.001):
                await kit.client.send(kit.head, b"x-long: %b\r\n" % (b"v" * 1000), repeatable=False)
            most = max(most, connection._state.unsent)

        for _ in range(50):
            async with trio.open_nursery() as nursery:
                for _ in range(50):
                    nursery.start_soon(dies)
        assert 100_000 < most < 200_000

        stalled.set()
        assert await kit.ask(b"after") == b"200 after"
        assert len(kit.server.peers) == 1
        await idle(kit)
