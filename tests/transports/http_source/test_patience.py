"""Calls that wait are hurried in their order, each at its time."""

from __future__ import annotations

import math

import trio

from sluiceway.pipeline.runtime.deadlines import SLOT_S, Deadlines
from sluiceway.transports.http_source.patience import Patience


class Waiter:
    """A call that notes when it was hurried."""

    def __init__(self) -> None:
        self.hurried: float | None = None

    def hurry(self) -> None:
        self.hurried = trio.current_time()


async def test_each_is_hurried_when_it_has_waited_and_only_then(nursery: trio.Nursery, autojump_clock: object) -> None:
    """Those that ended before are not; one that comes after a pause has its own time."""
    deadlines = Deadlines()
    nursery.start_soon(deadlines.serve)
    patience = Patience(deadlines, 15)
    first, ended, second, late = (Waiter() for _ in range(4))
    patience.add(first)
    await trio.sleep(1)
    patience.add(ended)
    await trio.sleep(1)
    patience.add(second)
    await trio.sleep(5)
    patience.discard(ended)
    await trio.sleep(93)
    patience.add(late)
    await trio.sleep(50)
    patience.discard(late)

    assert [15.0, None, 17.0, 115.0] == [each.hurried for each in (first, ended, second, late)]
    assert (0, 0) == (len(patience), len(deadlines))
    nursery.cancel_scope.cancel()


async def test_a_time_that_no_slot_meets_exactly_is_met_all_the_same(
    nursery: trio.Nursery, autojump_clock: object
) -> None:
    """Slots are multiples of 0.01 s as a float has them; this time is a hair behind one."""
    deadlines = Deadlines()
    nursery.start_soon(deadlines.serve)
    seconds = math.nextafter(3 * SLOT_S, 1)
    assert math.ceil(seconds / SLOT_S) * SLOT_S < seconds
    patience = Patience(deadlines, seconds)
    waiter = Waiter()
    patience.add(waiter)
    await trio.sleep(1)

    assert waiter.hurried is not None
    nursery.cancel_scope.cancel()
