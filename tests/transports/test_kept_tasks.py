"""Tasks that are kept for the next job."""

from __future__ import annotations

import weakref
from collections.abc import AsyncIterator
from contextvars import ContextVar

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
