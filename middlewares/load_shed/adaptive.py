"""
How many exchanges may run at once, found out by trying: additive increase, multiplicative decrease. Pure.

What can be done at once is not known, and changes. But it shows: with too many at once everything becomes slow. So the
limit is moved in rounds. In each one the exchanges that start are watched until enough of them have ended. If more
than a tenth of them took longer than `target`, the limit is multiplied by `backoff`; otherwise, if it was in use at
all, it is raised by one. The first reacts at once to overload, the second asks carefully for more: the rule of TCP's
congestion avoidance (RFC 5681), with latency in place of loss. A tenth, because a few slow tools are no overload.

Only what started in a round counts for it: it ran under the limit that is judged.
"""

from __future__ import annotations

from typing import Final, final

SLOW_SHARE: Final = 0.1
"""Share of slow exchanges in a round that is no overload."""
LEAST: Final = 10
"""Exchanges that a round has at least."""


@final
class Aimd:
    """
    A limit that moves between two bounds, from the upper one.

    Args:
        least: It never goes below.
        most: It never goes above.
        target_s: Seconds an exchange may take without being slow; also what a round lasts at least.
        backoff: Factor of a decrease.
    """

    def __init__(self, least: int, most: int, target_s: float, backoff: float) -> None:
        self._least = float(least)
        self._most = float(most)
        self.target_s = target_s
        self._backoff = backoff
        self._exact = float(most)
        self._round_start = 0.0
        self._ended = 0
        self._slow = 0
        self._used = False

    @property
    def limit(self) -> int:
        """Exchanges that may run at once."""
        return int(self._exact)

    def ended(self, started_s: float, now_s: float, in_flight: int, *, overloaded: bool = False) -> None:
        """
        Take in the end of an exchange.

        Args:
            started_s: When it began to run, in seconds of the clock.
            now_s: When it ended.
            in_flight: Exchanges that ran then, with this one.
            overloaded: What is behind said that it has too much to do, however fast.
        """
        if started_s < self._round_start:
            return
        self._ended += 1
        self._slow += overloaded or now_s - started_s > self.target_s
        self._used = self._used or in_flight >= self.limit
        if self._ended >= LEAST and now_s - self._round_start >= self.target_s:
            self._finish(now_s)

    def _finish(self, now_s: float) -> None:
        if self._slow > self._ended * SLOW_SHARE:
            self._exact = max(self._exact * self._backoff, self._least)
        elif self._used:
            self._exact = min(self._exact + 1, self._most)
        self._round_start = now_s
        self._ended = self._slow = 0
        self._used = False
