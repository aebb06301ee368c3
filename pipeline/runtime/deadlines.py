"""
All deadlines of an engine in one structure, served by one timer task.

A cancel scope with a deadline costs 13 to 15 us per request under load; an entry here a fraction of one. Times are
rounded up to slots of 10 ms: nothing fires early, and at most 10 ms late (architecture 1.10). Correct on the mock
clock, because the timer sleeps until the earliest slot and not in steps.

Entries with times of all kinds are kept by slot (`add`). Most deadlines are as long as each other, and come in the
order of their times; those stand in a `Line`, where only the first has to be looked at.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from itertools import takewhile
from typing import Any, Final, Generic, Protocol, TypeVar, final

import trio

SLOT_S: Final = 0.01
"""Width of a slot in seconds: how late an entry may fire."""
_FEW: Final = 64
"""Slots without entries that are not worth being cleared away."""


@final
class Entry:
    """One deadline. Hold on to it to move or cancel it."""

    __slots__ = ("callback", "slot")

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback = callback
        self.slot: int | None = None


class Expires(Protocol):
    """What stands in a `Line`."""

    @abstractmethod
    def expire(self) -> None:
        """Its time has passed. Must neither block nor raise."""
        ...


_E = TypeVar("_E", bound=Expires)


class Line(Generic[_E]):
    """
    Deadlines that come in the order of their times. It is forgotten while it is empty.

    Args:
        deadlines: Whose timer looks after it.
    """

    def __init__(self, deadlines: Deadlines) -> None:
        self._deadlines = deadlines
        self.times: dict[_E, float] = {}
        """When who stands in it expires: absolute seconds of the Trio clock, rising. After who stepped in, whoever put
        it there calls `enlist` if the line is not listed; who steps out needs nothing more."""
        self.is_listed = False
        """The timer will look at it, no later than when its first entry is due."""

    def add(self, entry: _E, at: float) -> None:
        """Expire an entry once at `at`, which is not before the time of any entry that was added earlier."""
        self.times[entry] = at
        if not self.is_listed:
            self.enlist(at)

    def enlist(self, at: float) -> None:
        """Have the timer look at it, from the time of its first entry on."""
        self.is_listed = True
        self._deadlines.enlist(self, at)

    def discard(self, entry: _E) -> None:
        """Take an entry out. Harmless when it is out already."""
        self.times.pop(entry, None)


@final
class Deadlines:
    """
    Calls functions at their time. `add`, `move` and `cancel` work at any time; `serve` makes things happen.

    Callbacks run in the timer's task and must neither block nor raise.
    """

    def __init__(self) -> None:
        self._slots: dict[int, dict[Entry, None]] = {}
        self._order: list[int] = []
        self._lines: list[Line[Any]] = []
        self._scope: trio.CancelScope | None = None
        self.now: Callable[[], float] = trio.current_time
        """The Trio clock; the clock itself while somebody serves, without the two functions in front of it."""

    def __len__(self) -> int:
        """Entries that have neither fired nor been cancelled."""
        return sum(map(len, self._slots.values())) + sum(len(line.times) for line in self._lines)

    def line(self) -> Line[Any]:
        """A line of its own for deadlines that come in order."""
        return Line(self)

    def add(self, at: float, callback: Callable[[], None]) -> Entry:
        """Call `callback` once at `at`, absolute seconds of the Trio clock; never, if `at` is infinite."""
        entry = Entry(callback)
        if at != math.inf:
            self._put(entry, at)
        return entry

    def move(self, entry: Entry, at: float) -> None:
        """Give an entry another time; one that fired or was cancelled is armed again."""
        self.cancel(entry)
        if at != math.inf:
            self._put(entry, at)

    def cancel(self, entry: Entry) -> None:
        """Take an entry out. Harmless when it is out already."""
        slot = entry.slot
        if slot is None:
            return
        entry.slot = None
        entries = self._slots[slot]
        del entries[entry]
        if not entries:
            del self._slots[slot]

    def _put(self, entry: Entry, at: float) -> None:
        slot = math.ceil(at / SLOT_S)
        if slot * SLOT_S < at:  # by a bit of rounding, which would be early
            slot += 1
        entry.slot = slot
        entries = self._slots.get(slot)
        if entries is not None:
            entries[entry] = None
            return
        if len(self._order) > 2 * len(self._slots) + _FEW:  # most are of slots that were emptied
            self._order = list(self._slots)
            heapify(self._order)
        self._slots[slot] = {entry: None}
        heappush(self._order, slot)
        self._wake_at(slot * SLOT_S)

    def enlist(self, line: Line[Any], at: float) -> None:
        """Look after a line whose first entry is due at `at`; for lines."""
        self._lines.append(line)
        self._wake_at(_slot_end(at))

    def _wake_at(self, at: float) -> None:
        scope = self._scope
        if scope is not None and at < scope.deadline:
            scope.deadline = at

    async def serve(self) -> None:
        """Fire entries until cancelled. One task per structure."""
        self.now = trio.lowlevel.current_clock().current_time
        try:
            while True:
                with trio.CancelScope(deadline=self._next()) as self._scope:
                    await trio.sleep_forever()
                self._fire(trio.current_time())
        finally:
            self._scope, self.now = None, trio.current_time

    def _next(self) -> float:
        """When the first entry fires. Forgets what has none."""
        while self._order and self._order[0] not in self._slots:
            heappop(self._order)
        until = self._order[0] * SLOT_S if self._order else math.inf
        lines, self._lines = self._lines, []
        for line in lines:
            line.is_listed = bool(line.times)
            if line.is_listed:
                self._lines.append(line)
                until = min(until, _slot_end(next(iter(line.times.values()))))
        return until

    def _fire(self, now: float) -> None:
        while self._order and self._order[0] * SLOT_S <= now:
            entries = self._slots.get(heappop(self._order), {})
            while entries:
                entry = next(iter(entries))
                self.cancel(entry)
                entry.callback()
        for times in [line.times for line in self._lines]:
            for due, _ in list(takewhile(lambda item: item[1] <= now, times.items())):
                if times.pop(due, None) is not None:  # else an earlier one has taken it out
                    due.expire()


def _slot_end(at: float) -> float:
    """When an entry for this time fires: never before it, whatever the rounding does."""
    return max(at, math.ceil(at / SLOT_S) * SLOT_S)
