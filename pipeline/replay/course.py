"""
The order in which a tape says that things happened, and who must run next for them to happen so again.

What one exchange does between two of its entries, it does in one go: tasks give way only where they wait. So an
exchange whose next entry stands first on the tape runs first, and what comes from outside comes in when its entry is
the next one. A gateway of another configuration leaves the course; then who is older runs first, which is an order,
too. Timers of a real clock are late, those of a virtual one are not: who wakes a moment before an input that had come
in first waits for it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, NamedTuple, final

import trio
from outcome import Error

from .assembly import exchange_of
from .clock import TapeClock
from .entries import (
    Asked,
    CallAnswered,
    CallAsked,
    Called,
    CallEnded,
    CallRelayed,
    CancelAsked,
    Ended,
    Entry,
    Relayed,
    StageEntered,
    StageLeft,
)
from .turns import Turns, taking_turns

LATE_S: Final = 0.02
"""Seconds by which a timer can have been late."""

NUMBER: Final[ContextVar[int]] = ContextVar("exchange")
"""The number on the tape of the exchange that a task works for; tasks that it begins inherit it."""

_ENDINGS: Final = ("connection", "shutdown")
"""Ends of exchanges that come from outside."""


_BEGINNINGS: Final = (Called, StageEntered, Relayed, Asked)
"""What nobody does who is being cancelled."""


class _Act(NamedTuple):
    """An entry that an exchange will make."""

    n: int
    t: float
    kind: type[Entry]
    sink: str
    """Id of the sink where it happens, if it does at a sink."""
    is_late: bool
    """The deadline has passed: what notices that runs first."""


@final
class Course:
    """
    Args:
        zero: Trio's time at the tape's beginning.
    """

    def __init__(self, zero: float) -> None:
        self._zero = zero
        self._acts: dict[int, deque[_Act]] = {}
        """What each exchange will do, as far as the tape was read."""
        self._order: deque[tuple[int, int]] = deque()
        """Number of each of these entries and of its exchange, in order; some are done."""
        self._calls: dict[int, str] = {}
        """The sinks of calls that were read and whose end was not."""
        self._driver: trio.lowlevel.Task | None = None
        self._at = math.inf
        """Place in the order of what comes in next: the number of its entry, or just behind it."""
        self._turns: Turns | None = None
        self._look: Callable[[float], None] | None = None

    def watched(self, entries: Iterator[Entry]) -> Iterator[Entry]:
        """The entries of a tape; those that pass are part of the course."""
        for entry in entries:
            exchange = exchange_of(entry)
            if exchange and not isinstance(entry, CancelAsked):
                is_late = isinstance(entry, Ended) and entry.cancelled == "deadline"
                act = _Act(entry.n, entry.t, type(entry), self._sink_of(entry), is_late)
                self._acts.setdefault(exchange, deque()).append(act)
                self._order.append((entry.n, exchange))
            yield entry

    @contextmanager
    def taken(self, look: Callable[[float], None]) -> Iterator[None]:
        """
        In the block, tasks of the current Trio run take turns as the course says.

        Args:
            look: Reads the tape up to a time, in its own seconds.
        """
        self._look = look
        with taking_turns(self.choose) as self._turns:
            yield

    def expect(self, entry: Entry | None) -> None:
        """The current task is going to deliver this, as soon as it is time and its turn; None if it is the last."""
        self._driver = trio.lowlevel.current_task()
        if entry is None:
            self._at = math.inf
        else:
            is_late = isinstance(entry, Ended) and entry.cancelled not in _ENDINGS
            self._at = entry.n + 0.5 if is_late else entry.n
        if self._turns is not None:
            self._turns.resume()

    def passed(self, n: int) -> None:
        """What stands before this entry and has not happened will not happen any more."""
        while self._order and self._order[0][0] < n:
            self._drop(*self._order.popleft())

    def saw(self, entry: Entry) -> None:
        """The gateway has just done this."""
        acts = self._acts.get(exchange_of(entry))
        if acts is not None:
            kind = type(entry)
            act = next((each for each in acts if each.kind is kind), None)
            if act is not None:
                acts.remove(act)

    def choose(self, tasks: Sequence[trio.lowlevel.Task]) -> trio.lowlevel.Task | None:
        """Who runs next; see `Choose`."""
        if len(tasks) == 1 and tasks[0] is self._driver:
            return tasks[0]
        now = trio.current_time() - self._zero
        if self._look is not None:
            self._look(now + LATE_S)
        first, is_due = self._first(), self._driver in tasks
        if is_due and self._at <= first:
            return self._driver
        best: tuple[float, trio.lowlevel.Task] | None = None
        other: trio.lowlevel.Task | None = None
        for task in tasks:
            act = self._act_of(task)
            if task is self._driver or (act is not None and self._comes_later(act, task, now, is_due=is_due)):
                continue
            place = math.inf if act is None else act.n
            if not task.context.get(NUMBER, 0):
                other = other or task
            elif best is None or place < best[0]:
                best = place, task
        if best is not None and (other is None or (best[0] == first and not self._is_late(best[1], now))):
            return best[1]
        return other or (self._driver if is_due else None)

    def _sink_of(self, entry: Entry) -> str:
        match entry:
            case Called():
                self._calls[entry.call] = entry.sink
                return entry.sink
            case CallEnded():
                return self._calls.pop(entry.call, "")
            case CallRelayed() | CallAsked() | CallAnswered():
                return self._calls.get(entry.call, "")
            case StageEntered() | StageLeft():
                section, owner, _ = entry.stage.split(".", 2)
                return owner if section == "sinks" else ""
            case _:
                return ""

    def _act_of(self, task: trio.lowlevel.Task) -> _Act | None:
        """What a task will do next: one that is named after a sink what happens there, any other what comes first."""
        acts = self._acts.get(task.context.get(NUMBER, 0))
        if not acts:
            return None
        at_sink = next((act for act in acts if act.sink == task.name), None)
        return at_sink if at_sink is not None or "." not in task.name else acts[0]  # Trio's own names have dots

    def _comes_later(self, act: _Act, task: trio.lowlevel.Task, now: float, *, is_due: bool) -> bool:
        """Whether a task has to wait for what comes in next, which had come in first."""
        return act.n > self._at and (is_due or (act.t <= now + LATE_S and _was_timed(task)))

    def _is_late(self, task: trio.lowlevel.Task, now: float) -> bool:
        """Whether the exchange of a task is about to be cancelled at its deadline."""
        acts = self._acts.get(task.context.get(NUMBER, 0))
        if not acts or issubclass(acts[0].kind, _BEGINNINGS):
            return False
        return any(act.is_late and act.t <= now for act in acts)

    def _first(self) -> float:
        """Number of the entry that should come next of those that exchanges make."""
        while self._order:
            n, exchange = self._order[0]
            acts = self._acts.get(exchange)
            if acts is not None and any(act.n == n for act in acts):
                return n
            self._order.popleft()
            if acts is not None and not acts:
                del self._acts[exchange]
        return math.inf

    def _drop(self, n: int, exchange: int) -> None:
        acts = self._acts.get(exchange)
        if acts is None:
            return
        while acts and acts[0].n <= n:
            acts.popleft()
        if not acts:
            del self._acts[exchange]


@final
class Stride:
    """A `Pace`: how a clock and a course bring a player from entry to entry."""

    def __init__(self, clock: TapeClock, course: Course) -> None:
        self._clock = clock
        self._course = course

    async def reach(self, when: float, entry: Entry | None) -> None:
        """See `Pace`."""
        self._course.expect(entry)
        await self._clock.reach(when)
        if entry is None:
            await self._clock.rest()
        else:
            self._course.passed(entry.n)


def _was_timed(task: trio.lowlevel.Task) -> bool:
    """Whether a task runs because its time came: Trio wakes it with `Cancelled`."""
    woken: Any = task
    return isinstance(woken._next_send, Error)
