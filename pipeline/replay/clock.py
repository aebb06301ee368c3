"""
Time while a tape is played: virtual, at rest while anything can still happen, and moved by one task only.

It goes to the next deadline, or to the next time that the player waits for, whichever comes first. What happens at one
instant is over before time goes on; in which order it happens, `course.py` says.
"""

from __future__ import annotations

import math
import time
from typing import Final, NoReturn, Protocol, final

import trio
from trio.testing import wait_all_tasks_blocked

from .entries import Entry

_NAP_S: Final = 0.0005
"""Real time between two looks at whether threads are done."""
_FAR_S: Final = 999_999_999.0


class Pace(Protocol):
    """How a player gets from one entry to the next."""

    async def reach(self, when: float, entry: Entry | None) -> None:
        """
        Return when an entry is to be delivered: it is that late (in Trio's seconds), and what happened before is over.
        At the end there is no entry.
        """
        ...


@final
class TapeClock(trio.abc.Clock):
    """
    A clock that stands still, unless `serve` moves it. Begins at 0.

    Times on a tape count from 0, too: what a stage computes from them is, to the last bit, what it computed then.
    """

    def __init__(self) -> None:
        self._now = 0.0
        self._awaited = math.inf
        self._reached = trio.Event()
        self._rested: trio.Event | None = None

    def start_clock(self) -> None:
        """See `trio.abc.Clock`."""

    def current_time(self) -> float:
        """See `trio.abc.Clock`."""
        return self._now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """See `trio.abc.Clock`: nothing is due until this clock is moved."""
        return 0.0 if deadline <= self._now else _FAR_S

    async def reach(self, when: float) -> None:
        """Return when it is that late, whatever else is due then. One task at a time."""
        if when <= self._now:
            await trio.lowlevel.checkpoint()
            return
        self._awaited, self._reached = when, trio.Event()
        await self._reached.wait()

    async def rest(self) -> None:
        """Return when nothing more can happen at this instant."""
        self._rested = trio.Event()
        await self._rested.wait()

    async def serve(self) -> NoReturn:
        """Move the clock whenever nothing else can happen. Threads at work are waited for: they hold up time."""
        threads = trio.to_thread.current_default_thread_limiter()
        naps = trio.CapacityLimiter(1)
        while True:
            await wait_all_tasks_blocked()
            left = trio.lowlevel.current_statistics().seconds_to_next_deadline
            is_over = self._rested is None and min(left, self._awaited) == math.inf
            if threads.borrowed_tokens or is_over:
                await trio.to_thread.run_sync(time.sleep, _NAP_S, limiter=naps)
            elif self._rested is not None:
                self._rested.set()
                self._rested = None
            else:
                due = max(self._now + left, math.nextafter(self._now, math.inf))
                self._now = min(due, self._awaited)
                if self._awaited <= self._now:
                    self._awaited = math.inf
                    self._reached.set()


@final
class RealPace:
    """Time as it passes."""

    async def reach(self, when: float, entry: Entry | None) -> None:
        """See `Pace`; what happened before may still go on."""
        await trio.sleep_until(when)
