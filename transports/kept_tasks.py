"""Tasks that are kept when their job is done, and given the next one: cheaper than a task for each request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import copy_context
from typing import Any, Final, final

import trio
from attrs import define

from sluiceway.pipeline.model.kept_scope import KeptScope

_MAX_KEPT: Final = 64
"""Tasks at rest; more are ended."""


@define(eq=False)
class _Job:
    """What a task is to do next; None once it is to end."""

    async_fn: Callable[..., Awaitable[object]] | None
    args: tuple[Any, ...]


_scopes: Final[dict[trio.lowlevel.Task, KeptScope]] = {}


def kept_scope() -> KeptScope | None:
    """The scope for the exchanges of the current task, if that is kept: for a job that has opened none around them."""
    return _scopes.get(trio.lowlevel.current_task())


@final
class KeptTasks:
    """
    Hands jobs to tasks that are at rest, and starts one where there is none.

    A job begins as if its task was new: with a copy of the context in which this object was made, and under no cancel
    scope but the nursery's. It may run for as long as it likes, and there is no limit to how many run.

    Args:
        nursery: Whose children the tasks are. It ends when it is cancelled, or after `close`.
        contain: Called with what a job raises, unless it is a cancellation or alike; its task ends then.
        max_kept: How many tasks may be at rest.
    """

    def __init__(
        self, nursery: trio.Nursery, contain: Callable[[Exception], object], *, max_kept: int = _MAX_KEPT
    ) -> None:
        self._nursery = nursery
        self._contain = contain
        self._max_kept = max_kept
        self._context = copy_context()
        self._resting: dict[trio.lowlevel.Task, _Job] = {}

    @property
    def kept(self) -> int:
        """Tasks at rest."""
        return len(self._resting)

    def run(self, async_fn: Callable[..., Awaitable[object]], *args: Any) -> None:
        """
        Have a job done, from the next pass of the scheduler on.

        Raises:
            RuntimeError: The nursery is closed.
        """
        if not self._resting:
            self._context.copy().run(self._nursery.start_soon, self._work, _Job(async_fn, args))
            return
        task, job = self._resting.popitem()  # the one that came to rest last: its memory is the warmest
        job.async_fn, job.args = async_fn, args
        task.context = self._context.copy()
        trio.lowlevel.reschedule(task)

    def close(self) -> None:
        """Keep no task any more: those at rest end, the others when their job is done. Idempotent."""
        self._max_kept = 0
        while self._resting:
            trio.lowlevel.reschedule(self._resting.popitem()[0])

    async def _work(self, job: _Job) -> None:
        me = trio.lowlevel.current_task()

        def leave(_: object) -> trio.lowlevel.Abort:
            self._resting.pop(me, None)
            return trio.lowlevel.Abort.SUCCEEDED

        scope = _scopes[me] = KeptScope()
        try:
            while job.async_fn is not None:
                try:
                    await job.async_fn(*job.args)
                except Exception as error:  # a boundary: what a job raises is for the owner to deal with
                    self._contain(error)
                    return
                job.async_fn, job.args = None, ()
                if len(self._resting) >= self._max_kept:
                    return
                me.context = self._context  # what the job left in its own goes with it
                self._resting[me] = job
                await trio.lowlevel.wait_task_rescheduled(leave)
        finally:
            del _scopes[me]
            scope.close()
