"""Who runs next in a Trio run can be decided."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Thread

import trio

from sluiceway.pipeline.replay.turns import taking_turns

Task = trio.lowlevel.Task


async def run_three(choose_name: str) -> list[str]:
    """Three tasks that can run at once; the chosen one runs first."""
    order: list[str] = []

    async def note(name: str) -> None:
        await trio.lowlevel.checkpoint()
        order.append(name)

    def choose(tasks: Sequence[Task]) -> Task:
        return next((task for task in tasks if task.name == choose_name), tasks[0])

    with taking_turns(choose):
        async with trio.open_nursery() as nursery:
            for name in ("one", "two", "three"):
                nursery.start_soon(note, name, name=name)
    return order


async def test_the_chosen_task_runs_first() -> None:
    """Trio still has the way that `turns` relies on."""
    assert [await run_three(name) for name in ("one", "two", "three")] == [
        ["one", "two", "three"],
        ["two", "one", "three"],
        ["three", "one", "two"],
    ]


async def test_nobody_runs_until_it_may(autojump_clock: trio.testing.MockClock) -> None:
    """A task that has to wait, here before it begins to sleep, is asked about again when somebody says so."""
    times: list[float] = []
    may = False

    async def wake() -> None:
        await trio.sleep(1)
        times.append(trio.current_time())

    def choose(tasks: Sequence[Task]) -> Task | None:
        return next((task for task in tasks if may or task.name != "late"), None)

    with taking_turns(choose) as turns:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wake, name="late")
            await trio.sleep(3)
            may = True
            turns.resume()

    assert times == [4.0]


async def test_other_runs_of_the_process_are_left_alone() -> None:
    """A run in another thread is scheduled by Trio, also while this one takes turns."""
    found: list[int] = []

    async def other() -> None:
        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(note, number)

    async def note(number: int) -> None:
        await trio.lowlevel.checkpoint()
        found.append(number)

    with taking_turns(lambda tasks: tasks[0]):
        thread = Thread(target=trio.run, args=(other,))
        thread.start()
        thread.join()

    assert sorted(found) == [0, 1, 2]


async def test_trio_is_as_it_was_afterwards() -> None:
    """Neither its generator nor its switch stay changed."""
    from trio._core import _run

    before = _run._r, _run._ALLOW_DETERMINISTIC_SCHEDULING

    await run_three("two")

    assert (_run._r, _run._ALLOW_DETERMINISTIC_SCHEDULING) == before
