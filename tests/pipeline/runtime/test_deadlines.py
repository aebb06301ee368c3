"""Deadlines on the mock clock: never early, at most a slot late, nothing left behind."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sluiceway.pipeline.runtime.deadlines import SLOT_S, Deadlines


async def test_an_entry_fires_once_at_its_time(autojump_clock: Any, nursery: trio.Nursery) -> None:
    """Not before, not twice."""
    deadlines, fired = Deadlines(), []
    nursery.start_soon(deadlines.serve)
    deadlines.add(1.5, lambda: fired.append(trio.current_time()))
    await trio.sleep(10)
    nursery.cancel_scope.cancel()

    assert [1.5] == fired
    assert 0 == len(deadlines)


async def test_an_earlier_entry_wakes_a_timer_that_sleeps_longer(autojump_clock: Any, nursery: trio.Nursery) -> None:
    """The timer looks at the nearest entry, also when it came last."""
    deadlines, fired = Deadlines(), []
    nursery.start_soon(deadlines.serve)
    deadlines.add(100, lambda: fired.append("late"))
    await trio.sleep(1)
    deadlines.add(2, lambda: fired.append("soon"))
    await trio.sleep(2)

    assert ["soon"] == fired
    assert 1 == len(deadlines)
    nursery.cancel_scope.cancel()


async def test_moved_and_cancelled_entries(autojump_clock: Any, nursery: trio.Nursery) -> None:
    """A moved entry fires at its new time only; a cancelled one never; an infinite one is not kept."""
    deadlines, fired = Deadlines(), []
    nursery.start_soon(deadlines.serve)
    moved = deadlines.add(1, lambda: fired.append(trio.current_time()))
    cancelled = deadlines.add(1, lambda: fired.append("never"))
    never = deadlines.add(math.inf, lambda: fired.append("never"))
    deadlines.move(moved, 3)
    deadlines.cancel(cancelled)
    deadlines.cancel(cancelled)
    deadlines.cancel(never)

    assert 1 == len(deadlines)
    await trio.sleep(5)
    deadlines.move(moved, 7)
    await trio.sleep(5)
    deadlines.move(moved, math.inf)

    assert [3, 7] == fired
    assert 0 == len(deadlines)
    nursery.cancel_scope.cancel()


async def test_an_entry_in_the_past_fires_at_once(autojump_clock: Any, nursery: trio.Nursery) -> None:
    """A deadline that has passed is not forgotten."""
    deadlines, fired = Deadlines(), []
    await trio.sleep(5)
    nursery.start_soon(deadlines.serve)
    deadlines.add(1, lambda: fired.append(trio.current_time()))
    await trio.sleep(0.5)

    assert [5.0] == fired
    nursery.cancel_scope.cancel()


async def test_a_callback_may_add_and_cancel(autojump_clock: Any, nursery: trio.Nursery) -> None:
    """Also entries of its own slot."""
    deadlines, fired = Deadlines(), []
    nursery.start_soon(deadlines.serve)
    deadlines.add(1, lambda: fired.append(deadlines.add(1, lambda: fired.append("again"))))
    await trio.sleep(2)

    assert "again" == fired[-1]
    nursery.cancel_scope.cancel()


@given(st.lists(st.tuples(st.floats(0, 50), st.one_of(st.none(), st.floats(0, 50))), max_size=40))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_every_entry_fires_within_a_slot_of_its_time(entries: list[tuple[float, float | None]]) -> None:
    """For any mixture of entries, some of them moved."""
    fired: dict[int, float] = {}

    async def main() -> None:
        deadlines = Deadlines()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(deadlines.serve)
            for number, (at, moved) in enumerate(entries):
                entry = deadlines.add(at, lambda number=number: fired.setdefault(number, trio.current_time()))
                if moved is not None:
                    deadlines.move(entry, moved)
            await trio.sleep(60)
            assert 0 == len(deadlines)
            assert not deadlines._slots
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))

    for number, (at, moved) in enumerate(entries):
        due = at if moved is None else moved
        assert due - 1e-9 <= fired[number] <= due + SLOT_S + 1e-9


@pytest.mark.parametrize("at", [0.0, 0.009, 0.01, math.nextafter(3 * SLOT_S, 1), 1.005])
async def test_nothing_fires_early(at: float, autojump_clock: Any, nursery: trio.Nursery) -> None:
    """Slots are rounded up."""
    deadlines, fired = Deadlines(), []
    nursery.start_soon(deadlines.serve)
    deadlines.add(at, lambda: fired.append(trio.current_time()))
    await trio.sleep(3)

    assert at <= fired[0] <= at + SLOT_S
    nursery.cancel_scope.cancel()


class Called:
    """Something that expires, and notes when."""

    def __init__(self, then: Callable[[], None] = lambda: None) -> None:
        self.at: list[float] = []
        self._then = then

    def expire(self) -> None:
        self.at.append(trio.current_time())
        self._then()


async def test_a_line_expires_what_stands_in_it(autojump_clock: Any, nursery: trio.Nursery) -> None:
    """Each at its time, once, and not what was taken out."""
    deadlines = Deadlines()
    line = deadlines.line()
    nursery.start_soon(deadlines.serve)
    await trio.testing.wait_all_tasks_blocked()
    first, out, second = Called(), Called(), Called()
    line.add(first, 1.5)
    line.add(out, 2.0)
    line.add(second, 3.005)
    line.discard(out)
    line.discard(out)
    assert 2 == len(deadlines)
    await trio.sleep(10)

    assert ([1.5], [], [pytest.approx(3.01)]) == (first.at, out.at, second.at)
    assert 0 == len(deadlines)
    nursery.cancel_scope.cancel()


async def test_a_line_meets_a_time_that_no_slot_meets_exactly(autojump_clock: Any, nursery: trio.Nursery) -> None:
    """Slots are multiples of 0.01 s as a float has them; this time is a hair behind one."""
    deadlines, called = Deadlines(), Called()
    at = math.nextafter(3 * SLOT_S, 1)
    assert math.ceil(at / SLOT_S) * SLOT_S < at
    nursery.start_soon(deadlines.serve)
    deadlines.line().add(called, at)
    await trio.sleep(1)
    nursery.cancel_scope.cancel()

    assert [at] == called.at


async def test_an_empty_line_is_forgotten_until_somebody_adds_to_it(autojump_clock: Any, nursery: trio.Nursery) -> None:
    """A line that a reload has left behind costs nothing."""
    deadlines = Deadlines()
    line, first, second = deadlines.line(), Called(), Called()
    nursery.start_soon(deadlines.serve)
    line.add(first, 1)
    line.discard(first)
    await trio.sleep(2)
    forgotten = not deadlines._lines
    line.add(second, 5)
    await trio.sleep(5)

    assert forgotten
    assert ([], [5.0]) == (first.at, second.at)
    nursery.cancel_scope.cancel()


async def test_an_entry_taken_out_by_one_that_expires_with_it_does_not(
    autojump_clock: Any, nursery: trio.Nursery
) -> None:
    """Neither in a line nor among the others."""
    deadlines = Deadlines()
    line, late, fired = deadlines.line(), Called(), []
    line.add(Called(lambda: line.discard(late)), 1)
    line.add(late, 1)
    deadlines.add(2, lambda: deadlines.cancel(entry))
    entry = deadlines.add(2, lambda: fired.append("late"))
    nursery.start_soon(deadlines.serve)
    await trio.sleep(5)

    assert ([], []) == (late.at, fired)
    nursery.cancel_scope.cancel()


def test_slots_that_come_and_go_are_not_kept() -> None:
    """One call at a time, for hours, leaves nothing behind."""
    deadlines = Deadlines()
    for number in range(10_000):
        deadlines.cancel(deadlines.add(number / 100, lambda: None))

    assert len(deadlines._order) < 100
