"""
A place where one task waits until another one wakes it, for those who do so once or twice in every call.

It is `trio.lowlevel.wait_task_rescheduled` without what that makes anew each time: an object that says what to do when
the wait is cancelled, a function for it, and an outcome that says nothing. All waits share one object, which Trio gives
us itself. A wait that is cancelled needs no function of its own, because `Task.custom_sleep_data` tells whether the
task is still here: Trio clears it when a task is woken, whoever does it.
"""

from __future__ import annotations

import types
from collections.abc import Generator
from typing import Any, Final

import msgspec
import trio

_WOKEN: Final[Any] = object()
"""What a task is sent that was woken; whatever else it is sent is one of Trio's outcomes, which it has to unwrap."""


def _give_up(_: object) -> trio.lowlevel.Abort:
    return trio.lowlevel.Abort.SUCCEEDED


def _trap() -> object:
    """What a task of Trio's yields to wait until it is rescheduled. It says only what to call when it is cancelled."""
    waiting = trio.lowlevel.wait_task_rescheduled(_give_up)  # noqa: ASYNC105  # driven by hand, to see what it yields
    trap: object = waiting.send(None)
    waiting.close()
    return trap


_TRAP: Final = _trap()


class Parking(msgspec.Struct, eq=False):
    """Has room for one task. What a task waits for may be made of it. A struct, for one is made with many a call."""

    busy: str = "another task waits here already"
    """What is said to a second one."""
    _task: trio.lowlevel.Task | None = None

    @property
    def taken(self) -> bool:
        """Whether a task waits here that was not cancelled."""
        return self._task is not None and self._task.custom_sleep_data is self

    @types.coroutine
    def wait(self) -> Generator[object, Any, None]:
        """
        Wait for `wake`. One that came before does not count. Always a checkpoint, but for `BusyResourceError`.

        Raises:
            trio.BusyResourceError: Another task waits here.
        """
        other = self._task
        if other is not None and other.custom_sleep_data is self:
            raise trio.BusyResourceError(self.busy)
        task = self._task = trio.lowlevel.current_task()
        task.custom_sleep_data = self
        sent = yield _TRAP
        if sent is not _WOKEN:
            if self._task is task:
                self._task = None
            sent.unwrap()

    def wake(self) -> trio.lowlevel.Task | None:
        """Have the task that waits here go on, from the next pass of the scheduler on. Returns it, if there is one."""
        task = self._task
        if task is None:
            return None
        self._task = None
        if task.custom_sleep_data is not self:  # its wait was cancelled, and it has not noticed yet
            return None
        trio.lowlevel.reschedule(task, _WOKEN)
        return task
