"""
Cancel something at every point at which Trio can cancel it.

The thing is run again and again. A Trio instrument counts the scheduler steps of its tasks and cancels it at the k-th
point, for k = 0, 1, 2, ..., until it completes before its turn comes. There are two points to a step: just before it
(what the task waited for has happened, and the cancellation comes at the same moment) and just after it (the task
waits, and is cancelled while it waits).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Final, final

import trio
from trio.testing import wait_all_tasks_blocked

from ..runtime.nursery import unwrap_single
from .leaks import leak_check, where

Trial = Awaitable[object] | AbstractAsyncContextManager[Callable[[], Awaitable[object]]]
"""What `make` returns: a coroutine, or a context manager around a function that makes one."""

NEVER: Final = -1


@final
class _Cancelling(trio.abc.Instrument):
    """Cancels a scope at the k-th point of a task and of the tasks it starts."""

    def __init__(self, scope: trio.CancelScope, at: int) -> None:
        self._scope = scope
        self._tasks: set[trio.lowlevel.Task] = set()
        self._at = at
        self._points = 0
        self.place: str | None = None
        """Where it struck; None if it has not."""

    def follow(self, task: trio.lowlevel.Task) -> None:
        self._tasks.add(task)

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        if task.parent_nursery is not None and task.parent_nursery.parent_task in self._tasks:
            self._tasks.add(task)

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        self._tasks.discard(task)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._reach(task, "before step")

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self._reach(task, "waiting after step")

    def _reach(self, task: trio.lowlevel.Task, how: str) -> None:
        if task not in self._tasks:
            return
        if self._points == self._at:
            self.place = f"{how} {self._points // 2}, {where(task)}"
            self._scope.cancel(reason="cancel_everywhere")
        self._points += 1


async def cancel_everywhere(make: Callable[[], Trial], *, max_points: int = 2000) -> int:
    """
    Run what `make` makes to its end once, then again and again, cancelled at every point, each under the leak oracle.

    Args:
        make: Called for each run. Returns either a coroutine, or an async context manager that yields a function to
            call; only the call is cancelled, so that what stands after the `yield` can look at what it left.
        max_points: How many points there may be before this gives up.

    Returns:
        The number of points at which it was cancelled.

    Raises:
        Leak: Something was left behind after a cancellation; the message says at which point.
        AssertionError: It still had not completed after `max_points` points.
        Exception: Whatever a run raises, with a note that says at which point.
    """
    await _run(make, NEVER)
    for at in range(max_points):
        place = await _run(make, at)
        if place is None:
            return at
    raise AssertionError(f"not finished after {max_points} points; is there a loop without an end in it?")


async def _run(make: Callable[[], Trial], at: int) -> str | None:
    """One run; returns where it was cancelled, or None if it was not."""
    striking: list[_Cancelling] = []
    # the first run may open what the later ones share, so only they are held against a snapshot
    oracle = leak_check() if at != NEVER else nullcontext()
    try:
        with oracle:
            trial = make()
            if isinstance(trial, AbstractAsyncContextManager):
                async with trial as call:
                    await _cancel_at(call(), at, striking)
            else:
                await _cancel_at(trial, at, striking)
            await wait_all_tasks_blocked()
    except Exception as error:  # raised again; only the place is added
        if striking and striking[0].place is not None:
            error.add_note(f"cancelled {striking[0].place}")
        raise
    return striking[0].place


async def _cancel_at(awaitable: Awaitable[object], at: int, striking: list[_Cancelling]) -> None:
    scope = trio.CancelScope()

    async def target() -> None:
        with scope:
            await awaitable

    instrument = _Cancelling(scope, at)
    striking.append(instrument)
    trio.lowlevel.add_instrument(instrument)
    try:
        # a task of its own, so that the steps of whoever called are not counted
        with unwrap_single():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(target, name="cancelled everywhere")
                instrument.follow(*nursery.child_tasks)
    finally:
        trio.lowlevel.remove_instrument(instrument)
