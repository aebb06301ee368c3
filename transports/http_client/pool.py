"""
The connections to one origin, and who may use one next.

Last in, first out: the connection that was used last is the least likely to have been closed by the peer, and those at
the bottom grow old and are let go. Waiting is first come, first served. There is no task per connection and no timer:
`sweep` is called now and then by whoever owns the pool.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, final

import trio
from attrs import define, frozen

from sluiceway.pipeline.model.options import MINUTE, SECOND

from .connection import Connection, Transport
from .statistics import Counts, End, PoolReport


class PoolFull(Exception):
    """As many requests wait for a connection as may."""


@final
@frozen
class PoolLimits:
    """How many connections, and how long each is kept."""

    max_connections: int = 64
    max_waiting: int = 1024
    """Requests that may wait for one of them."""
    idle_s: float = 30 * SECOND
    """A connection at rest for longer is closed. Below what servers commonly use, so that we close first."""
    soft_age_s: float = 5 * MINUTE
    soft_uses: int = 1000
    """From here on a connection is let go when nobody waits for one; addresses and certificates change."""
    hard_age_s: float = 10 * MINUTE
    hard_uses: int = 10_000
    """From here on it is let go in any case."""


DEFAULT_LIMITS: Final = PoolLimits()


@final
@define(eq=False)
class _Waiter:
    """A task that waits for a connection, or for leave to open one."""

    task: trio.lowlevel.Task
    connection: Connection | None = None


@final
class Pool:
    """
    The HTTP/1.1 connections to one origin, and who waits for one.

    Args:
        open_transport: Connects; what it raises comes out of `acquire`.
        limits: See `PoolLimits`.

    Raises:
        RuntimeError: Outside of a Trio run.
    """

    def __init__(self, open_transport: Callable[[], Awaitable[Transport]], limits: PoolLimits = DEFAULT_LIMITS) -> None:
        self._open_transport = open_transport
        self._limits = limits
        self._now = trio.lowlevel.current_clock().current_time
        self._idle: list[Connection] = []
        self._waiting: deque[_Waiter] = deque()
        self._open = 0
        self._counts = Counts()
        self._ends_older = -math.inf
        self._idle_s = limits.idle_s
        self._young_s = min(limits.soft_age_s, limits.hard_age_s - limits.idle_s)
        self._few_uses = min(limits.soft_uses, limits.hard_uses)

    @property
    def taken(self) -> int:
        """Connections in use, those that are being opened included."""
        return self._open - len(self._idle)

    @property
    def idle(self) -> int:
        """Connections at rest."""
        return len(self._idle)

    @property
    def open(self) -> int:
        """Connections at rest or in use, those that are being opened included."""
        return self._open

    @property
    def waiting(self) -> int:
        """Tasks that wait for a connection."""
        return len(self._waiting)

    def report(self) -> PoolReport:
        """What it counted, and how full it is."""
        return PoolReport(self._counts, self._open, len(self._idle), self.taken, len(self._waiting))

    def adopt(self, transport: Transport) -> None:
        """Take a connection that was opened elsewhere; it is closed if there is no place for it."""
        self._counts.opened += 1
        connection = self._made(transport)
        connection.expires = self._expiry(connection, connection.born)
        if self._is_closed or self._open >= self._limits.max_connections:
            self._end(connection, End.CLOSED)
        else:
            self._open += 1
            self._idle.append(connection)

    def acquire_nowait(self) -> Connection | None:
        """The connection that was put to rest last, if it can be used as it is; None otherwise: then `acquire` one."""
        idle = self._idle
        if not idle:
            return None
        connection = idle[-1]
        if connection.expires <= self._now() or connection.ending is not None or connection.transport.is_readable():
            return None
        idle.pop()  # where one rests nobody waits, for it would have been handed on
        self._counts.reused += 1
        return connection

    async def acquire(self, *, fresh: bool = False) -> Connection:
        """
        A connection at rest, or a new one; waits in line while all are in use. Not always a checkpoint.

        Args:
            fresh: Take none that was at rest, and keep none: one of them just turned out to be dead.

        Raises:
            PoolFull: `max_waiting` tasks wait already.
        """
        candidate = found = None
        if self._idle:
            candidate = self._idle.pop()
        elif self._open < self._limits.max_connections:
            self._open += 1
        else:
            candidate = await self._wait()
        try:
            while candidate is not None:
                young = not fresh and candidate.expires > self._now()
                if young and await candidate.settle():
                    found = candidate
                    self._counts.reused += 1
                    return found
                self._end(candidate, End.PEER if young or fresh else End.IDLE)
                candidate = None
                if self._idle:  # it has a place of its own
                    candidate = self._idle.pop()
                    self._open -= 1
            found = self._made(await self._open_transport())
            self._counts.opened += 1
            return found
        finally:
            if found is None:
                if candidate is not None:
                    self._end(candidate, End.CUT)
                self._hand_on(None)

    def release(self, connection: Connection, *, reusable: bool) -> None:
        """Give a connection back; it is closed unless it can and should carry another request."""
        now = self._now()
        if (
            reusable
            and now < connection.old_at
            and connection.uses < self._few_uses
            and connection.born > self._ends_older
        ):
            connection.expires = now + self._idle_s
        elif (end := self._reason_to_end(connection, now, reusable=reusable)) is None:
            connection.expires = self._expiry(connection, now)
        else:
            self._end(connection, end)
            self._hand_on(None)
            return
        if self._waiting:
            self._hand_on(connection)
        else:
            self._idle.append(connection)

    def sweep(self) -> None:
        """Close what has rested for too long."""
        now, keep = self._now(), []
        for connection in self._idle:
            if now >= connection.expires:
                self._end(connection, End.IDLE)
                self._open -= 1
            else:
                keep.append(connection)
        self._idle = keep

    def renew(self) -> None:
        """Use no connection again that was opened before now; what is in use stays until it comes back."""
        self._ends_older = max(self._ends_older, self._now())
        self._drop_idle(End.RENEWED)

    def close(self) -> None:
        """Close what is at rest now, and what is in use as soon as it comes back."""
        self._ends_older = math.inf
        self._drop_idle(End.CLOSED)

    def _drop_idle(self, end: End) -> None:
        for connection in self._idle:
            self._end(connection, end)
        self._open -= len(self._idle)
        self._idle.clear()

    def _end(self, connection: Connection, end: End) -> None:
        connection.transport.close()
        self._counts.ended[end] += 1

    async def _wait(self) -> Connection | None:
        """Wait in line for a place, and for the connection that comes with it, if one does."""
        if len(self._waiting) >= self._limits.max_waiting:
            self._counts.refused += 1
            raise PoolFull
        waiter, since = _Waiter(trio.lowlevel.current_task()), self._now()
        self._waiting.append(waiter)

        def abort(_: object) -> trio.lowlevel.Abort:
            self._waiting.remove(waiter)
            return trio.lowlevel.Abort.SUCCEEDED

        self._counts.waited += 1
        try:
            await trio.lowlevel.wait_task_rescheduled(abort)
        finally:
            self._counts.waited_s += self._now() - since
        return waiter.connection

    def _hand_on(self, connection: Connection | None) -> None:
        """Hand a place, and the connection in it if there is one, to who is first in line; else there is one more."""
        if self._waiting:
            waiter = self._waiting.popleft()
            waiter.connection = connection
            trio.lowlevel.reschedule(waiter.task)
        else:
            self._open -= 1

    @property
    def _is_closed(self) -> bool:
        return self._ends_older == math.inf

    def _made(self, transport: Transport) -> Connection:
        now = self._now()
        return Connection(transport, now, old_at=now + self._young_s)

    def _expiry(self, connection: Connection, now: float) -> float:
        """Until when one that comes to rest now may be used again."""
        return min(now + self._limits.idle_s, connection.born + self._limits.hard_age_s)

    def _reason_to_end(self, connection: Connection, now: float, *, reusable: bool) -> End | None:
        """Why a connection that comes back is not kept; None if it is."""
        if self._is_closed:
            return End.CLOSED
        if not reusable:
            return End.CUT
        if connection.born <= self._ends_older:
            return End.RENEWED
        limits, age_s = self._limits, now - connection.born
        soft = age_s < limits.soft_age_s and connection.uses < limits.soft_uses
        hard = age_s < limits.hard_age_s and connection.uses < limits.hard_uses
        return None if hard and (soft or self._waiting) else End.OLD
