"""
When a server that dies may be started again: back-off, an intensity limit, and quarantine behind it.

Pure: the owner says what happened and when, and asks how long a start has to wait.

A restart waits for a random time up to 1, 2, 4 .. 60 seconds (full jitter: servers that fell together do not rise
together). A server that dies too often within a period is quarantined: not started at all for a while, so that its
callers hear at once that it is down. The start after a quarantine is on probation: one more death and it is back
there. A server that lived for a minute has earned a clean record.
"""

from __future__ import annotations

import random as _random
from collections import deque
from typing import Final, final

from attrs import define, field, frozen

from sluiceway.pipeline.model.options import Duration, option

HEALTHY_S: Final = 60.0
"""A server that lived so long has nothing to do with those that died before it."""
_LONGEST_PAUSE_S: Final = 60.0


@final
@frozen
class RestartConfig:
    """How often a server may die before it is left alone for a while."""

    max: int = option(
        5, ge=1, doc="Deaths within `within` that put the server into quarantine; before, restarts back off.", example=5
    )
    within: Duration = option(60.0, gt=0, doc="The period in which deaths are counted.", example="60s")
    quarantine: Duration = option(
        60.0, gt=0, doc="How long a quarantined server is not started; its callers are refused.", example="60s"
    )


@final
@define(eq=False)
class Restarts:
    """
    The record of one server's deaths. Times are seconds of one clock.

    Args:
        config: The limits.
        random: Spreads the pauses.
    """

    config: RestartConfig
    random: _random.Random
    not_before: float = field(default=float("-inf"), init=False)
    """When the next start may be made."""
    _deaths: deque[float] = field(factory=deque, init=False)
    _streak: int = field(default=0, init=False)
    _on_probation: bool = field(default=False, init=False)

    @property
    def recent(self) -> int:
        """Deaths that count towards the quarantine; at most `max`."""
        return len(self._deaths)

    def wait_s(self, now: float) -> float:
        """How long a start has to wait."""
        return max(0.0, self.not_before - now)

    def is_quarantined(self, now: float) -> bool:
        """Whether the wait is a quarantine, and not a mere pause."""
        return self._on_probation and now < self.not_before

    def died(self, now: float, lived_s: float) -> None:
        """Note a death that nobody asked for, or a start that failed (`lived_s` is 0 then)."""
        if self.is_quarantined(now):
            return  # one that was started before; it changes nothing
        if lived_s >= HEALTHY_S:
            self._streak, self._on_probation = 0, False
            self._deaths.clear()
        self._streak += 1
        self._deaths.append(now)
        while self._deaths[0] <= now - self.config.within:
            self._deaths.popleft()
        if self._on_probation or len(self._deaths) >= self.config.max:
            self._on_probation = True
            self._deaths.clear()
            self.not_before = now + self.config.quarantine
        else:
            pause = min(_LONGEST_PAUSE_S, 2.0 ** min(self._streak - 1, 10))
            self.not_before = max(self.not_before, now + self.random.uniform(0.0, pause))
