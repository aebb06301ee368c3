"""Tasks that are kept for the next job."""

from __future__ import annotations

import weakref
from collections.abc import AsyncIterator
from contextvars import ContextVar
from itertools import pairwise

import pytest
import trio
import trio.testing
from trio.testing import Sequencer

from sluiceway.pipeline.runtime.nursery import open_background_nursery
from sluiceway.transports.kept_tasks import KeptTasks

_said: ContextVar[str] = ContextVar("_said", default="nothing")


@pytest.fixture
async def contained() -> list[Exception]:
    """What jobs raised."""
    return []


@pytest.fixture
async def tasks(contained: list[Exception]) -> AsyncIterator[KeptTasks]:
    """Two may be at rest."""
    async with open_background_nursery() as nursery:
        yield KeptTasks(nursery, contained.append, max_kept=2)


async def test_a_task_is_kept_and_gets_the_next_job(tasks: KeptTasks) -> None:
    """It is the same one, and nothing is started while one is at rest."""
    ran = []

    async def job(name: str) -> None:
        ran.append((name, trio.lowlevel.current_task()))

    tasks.run(job, "first")
    assert ran == []
    await trio.testing.wait_all_tasks_blocked()
    assert tasks.kept == 1
    tasks.run(job, "second")
    assert tasks.kept == 0
    await trio.testing.wait_all_tasks_blocked()

    assert [name for name, _ in ran] == ["first", "second"]
    assert ran[0][1] is ran[1][1]


async def test_jobs_run_side_by_side_and_only_some_tasks_are_kept(tasks: KeptTasks) -> None:
    """However many run, no more rest than may."""
    go, done = trio.Event(), []

    async def job(number: int) -> None:
        await go.wait()
        done.append(number)

    for number in range(10):
        tasks.run(job, number)
    await trio.testing.wait_all_tasks_blocked()
    go.set()
    await trio.testing.wait_all_tasks_blocked()

    assert sorted(done) == list(range(10))
    assert tasks.kept == 2


async def test_what_a_job_binds_to_its_context_the_next_does_not_see(tasks: KeptTasks) -> None:
    """Each has a copy of the context in which the tasks were made, also when the one who asks has another."""
    seen = []

    async def job(says: str) -> None:
        seen.append(_said.get())
        _said.set(says)
        await trio.lowlevel.checkpoint()
        seen.append(_said.get())

    _said.set("the caller's")
    tasks.run(job, "a")
    await trio.testing.wait_all_tasks_blocked()
    for says in ("b", "c"):
        tasks.run(job, says)
        await trio.testing.wait_all_tasks_blocked()

    assert seen == ["nothing", "a", "nothing", "b", "nothing", "c"]


async def test_a_task_at_rest_keeps_nothing_of_its_job_alive(tasks: KeptTasks) -> None:
    """Neither what it was given nor what it bound."""

    class Thing:
        """Something that can be watched."""

    _thing: ContextVar[Thing] = ContextVar("_thing")
    given = Thing()
    gone = [weakref.ref(given)]

    async def job(_given: Thing) -> None:
        bound = Thing()
        gone.append(weakref.ref(bound))
        _thing.set(bound)

    tasks.run(job, given)
    del given
    await trio.testing.wait_all_tasks_blocked()

    assert tasks.kept == 1
    assert [each() for each in gone] == [None, None]


async def test_a_cancelled_scope_of_one_job_does_not_reach_the_next(tasks: KeptTasks) -> None:
    """Scopes are opened and closed within a job."""
    ran = []

    async def cancelled() -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            await trio.sleep_forever()
        ran.append(scope.cancelled_caught)

    async def job() -> None:
        await trio.lowlevel.checkpoint()
        ran.append(True)

    tasks.run(cancelled)
    await trio.testing.wait_all_tasks_blocked()
    tasks.run(job)
    await trio.testing.wait_all_tasks_blocked()

    assert ran == [True, True]


async def test_what_a_job_raises_is_contained_and_its_task_not_kept(
    tasks: KeptTasks, contained: list[Exception]
) -> None:
    """Other jobs go on, and later ones get a task."""
    error, ran = ValueError("a bug"), []

    async def crash() -> None:
        raise error

    async def job() -> None:
        ran.append(True)

    tasks.run(crash)
    await trio.testing.wait_all_tasks_blocked()
    assert contained == [error]
    assert tasks.kept == 0
    tasks.run(job)
    await trio.testing.wait_all_tasks_blocked()

    assert ran == [True]


async def test_tasks_end_with_their_nursery(contained: list[Exception]) -> None:
    """Those at rest and those at work; a job that comes too late is cancelled at its first checkpoint."""
    ran = []

    async def job(seq: Sequencer) -> None:
        async with seq(0):
            pass

    async def late() -> None:
        ran.append("begun")
        await trio.lowlevel.checkpoint()
        ran.append("not cancelled")

    async with trio.open_nursery() as nursery:
        tasks = KeptTasks(nursery, contained.append)
        tasks.run(job, Sequencer())
        await trio.testing.wait_all_tasks_blocked()
        assert tasks.kept == 1
        tasks.run(trio.sleep_forever)
        tasks.run(job, Sequencer())
        await trio.testing.wait_all_tasks_blocked()
        assert tasks.kept == 1
        nursery.cancel_scope.cancel()
        assert tasks.kept == 0
        tasks.run(late)

    assert ran == ["begun"]
    assert contained == []
    with pytest.raises(RuntimeError, match="closed"):
        tasks.run(late)


async def test_closing_lets_a_nursery_come_to_its_end(contained: list[Exception]) -> None:
    """Tasks at rest end at once, those at work when they are done, and jobs are still taken until then."""
    go, done = trio.Event(), []

    async def job(name: str) -> None:
        await go.wait()
        done.append(name)

    async with trio.open_nursery() as nursery:
        tasks = KeptTasks(nursery, contained.append)
        tasks.run(trio.lowlevel.checkpoint)
        await trio.testing.wait_all_tasks_blocked()
        tasks.run(job, "before")
        tasks.run(trio.lowlevel.checkpoint)
        await trio.testing.wait_all_tasks_blocked()
        assert tasks.kept == 1
        tasks.close()
        tasks.close()
        assert tasks.kept == 0
        tasks.run(job, "after")
        go.set()

    assert sorted(done) == ["after", "before"]


async def test_who_has_done_a_job_does_the_next_without_being_called(tasks: KeptTasks) -> None:
    """One task is called for all that was asked for at once, and does it in one step as long as nothing waits."""
    ran = []

    async def job(name: str) -> None:
        task = trio.lowlevel.current_task()
        ran.append((name, task, task._schedule_points))

    for name in ("a", "b", "c"):
        tasks.run(job, name)
    await trio.testing.wait_all_tasks_blocked()

    assert [name for name, _, _ in ran] == ["a", "b", "c"]
    assert len({(task, steps) for _, task, steps in ran}) == 1


async def test_many_jobs_that_wait_are_soon_all_begun(tasks: KeptTasks) -> None:
    """Twice as many tasks are called each time: a hundred are begun within eight passes of the scheduler."""
    begun = []

    async def job() -> None:
        begun.append(True)
        await trio.sleep_forever()

    for _ in range(100):
        tasks.run(job)
    for _ in range(8):
        await trio.lowlevel.checkpoint()

    assert len(begun) == 100


async def test_a_task_with_much_to_do_lets_others_have_their_turn(tasks: KeptTasks) -> None:
    """After sixteen jobs, also when each of them asks for the next one."""
    ran = []

    async def job() -> None:
        ran.append(True)
        if len(ran) < 50:
            tasks.run(job)

    tasks.run(job)
    seen = []
    while len(ran) < 50:
        await trio.lowlevel.checkpoint()
        seen.append(len(ran))

    assert all(later - earlier <= 32 for earlier, later in pairwise(seen))
    assert len(seen) >= 3


async def test_who_has_changed_its_context_takes_no_other_job_in_that_step(tasks: KeptTasks) -> None:
    """Jobs that were asked for at once are done all the same, each in a context that nobody has changed."""
    seen = []

    async def job() -> None:
        seen.append(_said.get())
        _said.set("something")

    for _ in range(5):
        tasks.run(job)
    await trio.testing.wait_all_tasks_blocked()

    assert seen == ["nothing"] * 5


async def test_jobs_behind_one_that_fails_are_done(tasks: KeptTasks, contained: list[Exception]) -> None:
    """By others: the task of the one that failed ends."""
    ran = []

    async def crash() -> None:
        raise ValueError

    async def job() -> None:
        ran.append(True)

    for async_fn in (crash, job, crash, job):
        tasks.run(async_fn)
    await trio.testing.wait_all_tasks_blocked()

    assert ran == [True, True]
    assert len(contained) == 2


async def test_jobs_are_begun_while_a_task_at_rest_is_being_cancelled(contained: list[Exception]) -> None:
    """It is not the one that is called."""
    ran = []

    async def job() -> None:
        ran.append(True)

    async with trio.open_nursery() as nursery:
        tasks = KeptTasks(nursery, contained.append)
        tasks.run(job)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        for _ in range(2):
            tasks.run(job)

    assert ran == [True] * 3


async def test_a_job_that_leaves_something_that_cannot_be_compared_harms_nobody(
    tasks: KeptTasks, contained: list[Exception]
) -> None:
    """What it has bound is asked whether it is what was there before, and may fail to say so."""
    ran = []

    class Odd(str):
        """It does not like to be compared."""

        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            raise LookupError

    async def job() -> None:
        ran.append(_said.get())
        _said.set(Odd("odd"))

    _said.set("something")
    async with open_background_nursery() as nursery:
        tasks = KeptTasks(nursery, contained.append)
        for _ in range(2):
            tasks.run(job)
        await trio.testing.wait_all_tasks_blocked()

    assert ran == ["something"] * 2
    assert [type(error) for error in contained] == [LookupError] * 2
