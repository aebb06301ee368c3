"""A place where one task waits, which rests on how Trio has tasks wait."""

from __future__ import annotations

import outcome
import pytest
import trio
import trio.testing

from sluiceway.pipeline.model import parking
from sluiceway.pipeline.model.parking import Parking


async def stand(place: Parking) -> None:
    """Wait there, as a task's function."""
    await place.wait()


async def test_a_task_waits_until_it_is_woken() -> None:
    """Again and again; who is woken runs in the next pass, and not before."""
    place, steps = Parking(), []

    async def wait() -> None:
        for step in range(3):
            await place.wait()
            steps.append(step)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        for expected in ([], [0], [0, 1]):
            await trio.testing.wait_all_tasks_blocked()
            assert steps == expected
            assert place.taken
            assert place.wake()
            assert steps == expected
            assert not place.taken

    assert steps == [0, 1, 2]


async def test_a_wake_that_finds_nobody_is_forgotten() -> None:
    """Neither before the first wait nor twice for one."""
    place = Parking()
    assert not place.wake()
    with trio.move_on_after(0) as scope:
        await place.wait()
    assert scope.cancelled_caught

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stand, place)
        await trio.testing.wait_all_tasks_blocked()
        assert place.wake() in nursery.child_tasks
        assert place.wake() is None


async def test_there_is_room_for_one() -> None:
    """The second is told so, in the words of the place; the first waits on."""
    place = Parking("somebody reads")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stand, place)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError, match=r"^somebody reads$"):
            await place.wait()
        assert place.wake()


async def test_a_wait_that_was_cancelled_is_over_at_once() -> None:
    """A wake does not find it, though its task has not run yet."""
    place = Parking()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stand, place)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        assert not place.taken
        assert not place.wake()

    assert nursery.cancel_scope.cancelled_caught
    assert not place.wake()


async def test_whoever_comes_after_a_cancelled_one_is_not_sent_away_by_it() -> None:
    """The first notices last, and leaves the place to the second."""
    place, woken = Parking(), []

    async def first(scope: trio.CancelScope) -> None:
        with scope:
            await place.wait()

    async def second() -> None:
        await place.wait()
        woken.append("second")

    for _ in range(20):  # Trio reverses its order at random
        scope = trio.CancelScope()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(first, scope)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(second)
            scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            assert place.wake()

    assert woken == ["second"] * 20


async def test_other_ways_to_end_a_wait_are_heard() -> None:
    """What Trio sends a task that was not woken by us is an outcome, which says why."""
    place = Parking()
    tasks = []

    async def wait() -> None:
        tasks.append(trio.lowlevel.current_task())
        with pytest.raises(KeyError, match="why"):
            await place.wait()
        assert not place.wake()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        trio.lowlevel.reschedule(tasks[0], outcome.Error(KeyError("why")))


def test_trio_has_tasks_wait_as_we_think() -> None:
    """One object for all waits that says only what to call: if this fails, `Parking` has to be written anew."""
    wait = trio.lowlevel.wait_task_rescheduled
    mine, other = wait(parking._give_up), wait(parking._give_up)  # driven by hand
    try:
        assert mine.send(None) == other.send(None) == parking._TRAP
        assert vars(parking._TRAP) == {"abort_func": parking._give_up}
        with pytest.raises(StopIteration) as end:
            mine.send(outcome.Value("sent"))
        assert end.value.value == "sent"
    finally:
        mine.close()
        other.close()


async def test_trio_says_when_a_task_no_longer_waits() -> None:
    """It clears what the task has said about its sleep, whether it is woken or cancelled."""
    task, seen = trio.lowlevel.current_task(), []
    place = Parking()

    async with trio.open_nursery() as nursery:

        async def wake() -> None:
            await trio.testing.wait_all_tasks_blocked()
            seen.append(task.custom_sleep_data)
            place.wake()
            seen.append(task.custom_sleep_data)

        nursery.start_soon(wake)
        await place.wait()
    with trio.move_on_after(0):
        try:
            await place.wait()
        finally:
            seen.append(task.custom_sleep_data)

    assert seen == [place, None, None]
