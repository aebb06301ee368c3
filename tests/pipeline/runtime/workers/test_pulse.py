"""When a worker counts as one that hangs, and when not."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import pytest
import trio
from trio.testing import MockClock

from sluiceway.pipeline.model.document import Document, Run
from sluiceway.pipeline.model.options import Duration
from sluiceway.pipeline.runtime.workers.member import Member, Phase, WorkerGone
from sluiceway.pipeline.runtime.workers.messages import Order, Ping, Pong, Reply, Snapshot
from sluiceway.pipeline.runtime.workers.plan import Plan
from sluiceway.pipeline.runtime.workers.pulse import EVERY_S, await_hang
from sluiceway.pipeline.runtime.workers.sockets import Sockets


class Worker:
    """What a `Member` looks like to who watches it; answers after some seconds, until it does not."""

    def __init__(self, *, hang_timeout: float, answers_for: float = math.inf, delay: float = 0.0) -> None:
        run = Run(hang_timeout=Duration(hang_timeout))
        self.plan = Plan("f", (), Document(run=run), Snapshot(contents={}, matches={}), Sockets())
        self.phase = Phase.READY
        self.begun, self.spoken, self.gone = trio.Event(), trio.Event(), trio.Event()
        self.begun.set()
        self.told: list[Order] = []
        self.heard = 0
        self.asked: list[float] = []
        self.is_there = True
        self.is_mute = False
        self._hangs_at = trio.current_time() + answers_for
        self._delay = delay

    async def tell(self, order: Order) -> bool:
        self.told.append(order)
        if not self.is_mute:
            self.spoken.set()
        return True

    async def ask(self, make: Callable[[int], Order]) -> Reply:
        self.asked.append(trio.current_time())
        order = make(7)
        assert isinstance(order, Ping)
        if not self.is_there:
            raise WorkerGone
        await trio.sleep(self._delay)
        if trio.current_time() >= self._hangs_at:
            await trio.sleep_forever()
        self.heard += 1
        return Pong(number=order.number)

    async def hangs_after(self, within: float) -> float:
        """Seconds until it counts as one that hangs; infinite if it does not within that time."""
        start = trio.current_time()
        with trio.move_on_after(within):
            await await_hang(cast("Member", self))
            return trio.current_time() - start
        return math.inf


async def test_one_that_stops_answering_hangs_after_the_time_it_has(autojump_clock: MockClock) -> None:
    """Asked every ten seconds, it has 30 s to answer; the last answer was its fifth."""
    worker = Worker(hang_timeout=30.0, answers_for=45.0)

    assert await worker.hangs_after(1000.0) == 50.0 + 30.0
    assert worker.told == [Ping(number=0)]
    assert worker.asked == [10, 20, 30, 40, 50, 65]


async def test_one_that_answers_does_not_hang_however_long(autojump_clock: MockClock) -> None:
    """Even if it takes nearly as long as it may."""
    quick, slow = Worker(hang_timeout=30.0), Worker(hang_timeout=30.0, delay=14.0)

    assert await quick.hangs_after(2 * 86400.0) == math.inf
    assert await slow.hangs_after(10_000.0) == math.inf


async def test_whoever_has_less_time_is_asked_more_often(autojump_clock: MockClock) -> None:
    """With two seconds, every two."""
    worker = Worker(hang_timeout=2.0, answers_for=3.0)

    assert await worker.hangs_after(1000.0) == 4.0 + 2.0


async def test_without_a_time_nobody_hangs_and_nobody_is_asked(autojump_clock: MockClock) -> None:
    """A reload that gives it one is heeded."""
    worker = Worker(hang_timeout=0.0, answers_for=5.0)
    forever = await worker.hangs_after(1000.0)
    asked = len(worker.asked)
    worker.plan = Worker(hang_timeout=30.0).plan

    assert forever == math.inf
    assert asked == 0
    assert await worker.hangs_after(1000.0) == 30.0 + EVERY_S


async def test_its_first_word_may_take_its_time(autojump_clock: MockClock) -> None:
    """It reads its configuration on a machine with more to do."""
    worker = Worker(hang_timeout=30.0, answers_for=0.0)
    worker.is_mute = True

    assert await worker.hangs_after(1000.0) == math.inf
    assert worker.asked == []


async def test_one_that_drains_is_left_alone(autojump_clock: MockClock) -> None:
    """Its time is that of the drain."""
    worker = Worker(hang_timeout=30.0, answers_for=5.0)
    worker.phase = Phase.DRAINING

    assert await worker.hangs_after(1000.0) == math.inf


async def test_whatever_it_says_is_a_sign_of_life(autojump_clock: MockClock) -> None:
    """Its answer may wait behind a lot of other words, which the supervisor takes its time to read."""
    worker = Worker(hang_timeout=30.0, answers_for=5.0)

    async def say() -> None:
        for _ in range(100):
            await trio.sleep(12.0)
            worker.heard += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(say)
        hung = await worker.hangs_after(10_000.0)
        nursery.cancel_scope.cancel()

    assert 1200.0 <= hung <= 1200.0 + EVERY_S + 30.0


@pytest.mark.parametrize("gone", [True, False])
async def test_one_that_is_gone_does_not_hang(autojump_clock: MockClock, gone: bool) -> None:
    """Whoever waits for its end deals with that; but it has to end."""
    worker = Worker(hang_timeout=30.0)
    worker.is_there = False
    if gone:
        worker.gone.set()

    hung = await worker.hangs_after(1000.0)

    assert hung == (math.inf if gone else 10.0 + 30.0)
