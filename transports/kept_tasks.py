"""Tasks that are kept when their job is done, and given the next one: cheaper than a task for each request."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from typing import Any, Final, final

import trio

from sluiceway.pipeline.model.kept_scope import KeptScope
from sluiceway.pipeline.model.parking import Parking

_MAX_KEPT: Final = 64
"""Tasks at rest; more are ended."""
_IN_A_ROW: Final = 16
"""Jobs that a task does before others have their turn."""

_Job = tuple[Callable[..., Awaitable[object]], tuple[Any, ...]]


_scopes: Final[dict[trio.lowlevel.Task, KeptScope]] = {}


def kept_scope() -> KeptScope | None:
    """The scope for the exchanges of the current task, if that is kept: for a job that has opened none around them."""
    return _scopes.get(trio.lowlevel.current_task())


@final
class KeptTasks:
    """
    Hands jobs to tasks, and starts one where none is at rest.

    A job begins as if its task was new: in a context that is as the one in which this object was made, and under no
    cancel scope but the nursery's. It may run for as long as it likes, and there is no limit to how many run.

    Jobs wait in line for whoever comes first. One task is called for the first in line, and it calls more if there is
    more to do; but most jobs are taken by tasks that have just done another one, which saves waking one for each.

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
        self._jobs: deque[_Job] = deque()
        self._resting: list[Parking] = []
        self._called = 0
        """Tasks that were woken or started, and will look for a job: one at least while jobs wait."""
        self._round = 1
        """How many were called together the last time."""

    @property
    def kept(self) -> int:
        """Tasks at rest."""
        return sum(place.taken for place in self._resting)

    def run(self, async_fn: Callable[..., Awaitable[object]], *args: Any) -> None:
        """
        Have a job done, after the caller's own step.

        Raises:
            RuntimeError: The nursery is closed.
        """
        self._jobs.append((async_fn, args))
        if self._called:
            return
        try:
            self._round = 1
            self._call()
        except RuntimeError:
            self._jobs.pop()
            raise

    def close(self) -> None:
        """Keep no task any more: those at rest end, the others when their job is done. Idempotent."""
        self._max_kept = 0
        while self._resting:
            self._called += self._resting.pop().wake() is not None

    def _call(self) -> None:
        """Have a task look for a job: the one that came to rest last, whose memory is the warmest, or a new one."""
        while self._resting:
            if self._resting.pop().wake() is not None:  # else it was cancelled, and ends
                break
        else:
            self._context.copy().run(self._nursery.start_soon, self._work)
        self._called += 1

    def _call_more(self) -> None:
        """Twice as many each time: many jobs at once are soon all begun, also if nobody comes back from another one."""
        self._round = min(len(self._jobs), 2 * self._round)
        for _ in range(self._round):
            self._call()

    async def _work(self) -> None:
        me, jobs, resting, place = trio.lowlevel.current_task(), self._jobs, self._resting, Parking()
        scope = _scopes[me] = KeptScope()
        done = 0
        try:
            self._called -= 1
            while True:
                if not jobs or done == _IN_A_ROW:
                    if len(resting) >= self._max_kept:
                        return
                    resting.append(place)
                    await place.wait()
                    self._called -= 1
                    done = 0
                    continue
                async_fn, args = jobs.popleft()
                if jobs and not self._called:
                    self._call_more()
                try:
                    await async_fn(*args)
                    is_clean = me.context == self._context
                except Exception as error:  # a boundary: what a job raises is for the owner to deal with
                    self._contain(error)
                    return
                del async_fn, args  # at rest, a task keeps nothing of its job alive
                done += 1
                if not is_clean:  # what the job left in its context goes with it: the next step has another
                    me.context = self._context.copy()
                    done = _IN_A_ROW
        finally:
            if place in resting:
                resting.remove(place)
            del _scopes[me]
            scope.close()
