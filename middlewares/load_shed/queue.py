"""
The queue of `load_shed`: who is served next, and who has to go when it is full. Pure; knows no time and no tasks.

Served: the highest priority first; within it each tenant in turn (round robin, which is what deficit round robin is
when every request costs the same), as many in one turn as its weight says; within a tenant who came first. So a tenant
that sends a thousand requests delays the one request of another by one turn.

Shed: who comes when the queue is as long as its priority may make it. But it takes the place of somebody of a lower
priority, or of the tenant with most waiting for its weight if that stays ahead of its own: otherwise whoever filled
the queue first would have it for itself. Of those who lose a place it is always the one that came last.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from enum import IntEnum
from typing import TypeAlias, final

from attrs import define


class Priority(IntEnum):
    """Importance, most important first."""

    HIGH = 0
    NORMAL = 1
    LOW = 2


class Fate(IntEnum):
    """What became of a waiter."""

    WAITING = 0
    SERVED = 1
    SHED = 2


@final
@define(eq=False)
class Waiter:
    """An exchange in the queue."""

    priority: Priority
    tenant: str
    """Whose turn it takes."""
    wake: Callable[[], object]
    """Called once its fate is decided."""
    weight: int = 1
    """How many of its tenant are served in one turn, while it is the next."""
    fate: Fate = Fate.WAITING

    def decide(self, fate: Fate) -> None:
        """Tell it."""
        self.fate = fate
        self.wake()


_Line: TypeAlias = OrderedDict[Waiter, None]
"""Waiters of one tenant and priority, in order; any of them can leave at no cost."""


@final
class FairQueue:
    """
    Waiters by priority and tenant.

    Args:
        capacity: Waiters at most, of HIGH priority.
        threshold: Waiters at which the other priorities are refused; at most `capacity`.
    """

    def __init__(self, capacity: int, threshold: int) -> None:
        self._bounds = {Priority.HIGH: capacity, Priority.NORMAL: threshold, Priority.LOW: threshold}
        self._lines: dict[Priority, OrderedDict[str, _Line]] = {priority: OrderedDict() for priority in Priority}
        self._length = 0
        self._turns = dict.fromkeys(Priority, 0)
        """By priority, how many of the tenant whose turn it is were served in it."""

    def __len__(self) -> int:
        return self._length

    def bound(self, priority: Priority) -> int:
        """How long the queue may be for somebody of this priority to join at the end."""
        return self._bounds[priority]

    def offer(self, waiter: Waiter) -> Waiter | None:
        """
        Let somebody join.

        Returns:
            Who has to go for it: nobody, another waiter, which is not in the queue any more, or the one that came.
        """
        loser = None
        if self._length >= self._bounds[waiter.priority]:
            loser = self._loser(waiter)
            if loser is waiter:
                return waiter
            self.discard(loser)
        self._lines[waiter.priority].setdefault(waiter.tenant, OrderedDict())[waiter] = None
        self._length += 1
        return loser

    def pop(self) -> Waiter:
        """
        The next to be served; it leaves the queue.

        Raises:
            LookupError: Nobody waits.
        """
        for tenants in self._lines.values():
            if tenants:
                tenant, line = next(iter(tenants.items()))
                waiter, _ = line.popitem(last=False)
                self._turns[waiter.priority] += 1
                if self._turns[waiter.priority] >= waiter.weight:
                    self._turns[waiter.priority] = 0
                    tenants.move_to_end(tenant)
                self._left(waiter)
                return waiter
        raise LookupError("nobody waits")

    def discard(self, waiter: Waiter) -> None:
        """Take somebody out who is in the queue."""
        del self._lines[waiter.priority][waiter.tenant][waiter]
        self._left(waiter)

    def _left(self, waiter: Waiter) -> None:
        self._length -= 1
        tenants = self._lines[waiter.priority]
        if not tenants[waiter.tenant]:
            if next(iter(tenants)) == waiter.tenant:
                self._turns[waiter.priority] = 0  # whoever is next begins a turn of its own
            del tenants[waiter.tenant]

    def _loser(self, waiter: Waiter) -> Waiter:
        """Of the lowest priority that waits, up to its own, the last of the longest line; or the one that came."""
        for priority in reversed(Priority):
            if priority == waiter.priority:
                break
            if tenants := self._lines[priority]:
                return _last(max(tenants.values(), key=_excess))
        tenants = self._lines[waiter.priority]
        if not tenants:
            return waiter
        longest = max(tenants.values(), key=_excess)
        own = len(tenants.get(waiter.tenant, ())) + 1
        return _last(longest) if _excess(longest) > own / waiter.weight else waiter


def _excess(line: _Line) -> float:
    """Turns that it takes to serve a line."""
    return len(line) / _last(line).weight


def _last(line: _Line) -> Waiter:
    return next(reversed(line))
