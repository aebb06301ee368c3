"""Places in a pipeline: bounded, first come first served, none lost."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from sluiceway.pipeline.model.document import Limits
from sluiceway.pipeline.protocol.errors import CapacityExceeded
from sluiceway.pipeline.runtime.admission import Admission, Listeners


def test_without_a_waiting_room_full_means_refused_at_once() -> None:
    """With the limit, the remedy and a hint when to come back."""
    admission = Admission(Limits(max_in_flight=1))

    assert admission.enter_nowait()
    assert not admission.enter_nowait()
    with pytest.raises(CapacityExceeded, match="1 exchanges in flight and 0 waiting; raise max_in_flight") as caught:
        trio.run(admission.enter)
    assert 1.0 == caught.value.retry_after_s


async def test_a_listener_never_waits() -> None:
    """It is refused when all places are taken, and may come back when one is free."""
    listeners = Listeners(Limits(max_in_flight=5, max_waiting=5, max_listeners=1))

    assert listeners.enter_nowait()
    assert not listeners.enter_nowait()
    with pytest.raises(CapacityExceeded, match="max_listeners is 1"):
        await listeners.enter()
    listeners.leave()
    assert listeners.enter_nowait()


async def test_waiters_are_served_in_order(autojump_clock: Any, nursery: trio.Nursery) -> None:
    """And a newcomer does not overtake them."""
    admission = Admission(Limits(max_in_flight=1, max_waiting=3, wait_at_most=100))
    served: list[int] = []

    async def come(number: int) -> None:
        await admission.enter()
        served.append(number)

    assert admission.enter_nowait()
    for number in range(3):
        nursery.start_soon(come, number)
        await trio.testing.wait_all_tasks_blocked()
    assert 3 == admission.waiting
    for _ in range(3):
        admission.leave()
        assert not admission.enter_nowait()
        await trio.testing.wait_all_tasks_blocked()

    assert [0, 1, 2] == served
    admission.leave()
    assert 0 == admission.in_flight


async def test_waiting_ends_after_wait_at_most(autojump_clock: Any) -> None:
    """With a refusal that names the time."""
    admission = Admission(Limits(max_in_flight=1, max_waiting=1, wait_at_most=2))
    admission.enter_nowait()

    with pytest.raises(CapacityExceeded, match="within 2 s"):
        await admission.enter()
    assert (2.0, 0, 1) == (trio.current_time(), admission.waiting, admission.in_flight)


async def test_a_place_granted_to_somebody_who_is_cancelled_is_passed_on(autojump_clock: Any) -> None:
    """The cancel and the grant meet in the same step; no place is lost."""
    admission = Admission(Limits(max_in_flight=1, max_waiting=2, wait_at_most=100))
    admission.enter_nowait()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(admission.enter)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            admission.leave()

    assert (0, 0, 1) == (admission.in_flight, admission.waiting, admission.admitted)


@given(
    limit=st.integers(1, 4),
    waiting=st.integers(0, 4),
    visitors=st.lists(st.tuples(st.floats(0, 5), st.floats(0, 3), st.floats(0.1, 5)), max_size=25),
)
@settings(max_examples=60, deadline=None)
def test_never_more_than_the_limit_and_no_place_is_lost(
    limit: int, waiting: int, visitors: list[tuple[float, float, float]]
) -> None:
    """Whoever comes, stays and gives up whenever (arrival, stay, patience)."""
    admission = Admission(Limits(max_in_flight=limit, max_waiting=waiting, wait_at_most=2))
    inside = most = 0

    async def visit(arrival: float, stay: float, patience: float) -> None:
        nonlocal inside, most
        await trio.sleep(arrival)
        with trio.move_on_after(patience):
            try:
                if not admission.enter_nowait():
                    await admission.enter()
            except CapacityExceeded:
                return
            inside += 1
            most = max(most, inside)
            try:
                await trio.sleep(stay)
            finally:
                inside -= 1
                admission.leave()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for visitor in visitors:
                nursery.start_soon(visit, *visitor)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))

    assert most <= limit
    assert (0, 0) == (admission.in_flight, admission.waiting)
