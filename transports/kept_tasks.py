"""Tasks that are kept when their job is done, and given the next one: cheaper than a task for each request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import copy_context
from typing import Any, Final, final

import trio

from sluiceway.pipeline.model.kept_scope import KeptScope
from sluiceway.pipeline.model.parking import Parking

_MAX_KEPT: Final = 64
"""Tasks at rest; more are ended."""


@final
class _Kept:
    """A task, as its owner sees it while it is at rest, and what it is to do next: nothing, once it is to end."""

    __slots__ = ("args", "async_fn", "rest")

    def __init__(self, async_fn: Callable[..., Awaitable[object]], args: tuple[Any, ...]) -> None:
        self.async_fn: Callable[..., Awaitable[object]] | None = async_fn
        self.args = args
        self.rest = Parking()


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
        self._resting: list[_Kept] = []

    @property
    def kept(self) -> int:
        """Tasks at rest."""
        return sum(kept.rest.taken for kept in self._resting)

    def run(self, async_fn: Callable[..., Awaitable[object]], *args: Any) -> None:
        """
        Have a job done, from the next pass of the scheduler on.

        Raises:
            RuntimeError: The nursery is closed.
        """
        while self._resting:
            kept = self._resting.pop()  # the one that came to rest last: its memory is the warmest
            task = kept.rest.wake()
            if task is not None:  # else it was cancelled, and ends
                kept.async_fn, kept.args = async_fn, args
                task.context = self._context.copy()
                return
        self._context.copy().run(self._nursery.start_soon, self._work, _Kept(async_fn, args))

    def close(self) -> None:
        """Keep no task any more: those at rest end, the others when their job is done. Idempotent."""
        self._max_kept = 0
        while self._resting:
            self._resting.pop().rest.wake()

    async def _work(self, kept: _Kept) -> None:
        me = trio.lowlevel.current_task()
        resting, rest = self._resting, kept.rest
        scope = _scopes[me] = KeptScope()
        try:
            while kept.async_fn is not None:
                try:
                    await kept.async_fn(*kept.args)
                except Exception as error:  # a boundary: what a job raises is for the owner to deal with
                    self._contain(error)
                    return
                kept.async_fn, kept.args = None, ()
                if len(resting) >= self._max_kept:
                    return
                me.context = self._context  # what the job left in its own goes with it
                resting.append(kept)
                await rest.wait()
        finally:
            if kept in resting:
                resting.remove(kept)
            del _scopes[me]
            scope.close()
