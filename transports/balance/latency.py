"""
Peak EWMA: how slow an upstream is now, as a number to compare.

A reply that was slower than the average counts at once and wholly, a faster one only little by little: who becomes slow
is avoided with its first slow reply, and has to prove for some time that it is well again. What is not observed fades,
so that an upstream which nobody uses any more is tried again. The form is that of Finagle's load balancer.
"""

from __future__ import annotations

from math import exp
from typing import Final, final

from attrs import define

TAU_S: Final = 10.0
"""Time after which an observation counts for 1/e of what it did."""


@final
@define(eq=False)
class PeakEwma:
    """The latency of one upstream."""

    cost_s: float = 0.0
    """As of the latest observation."""
    observed_at: float = -float("inf")

    @property
    def is_known(self) -> bool:
        """Whether anything was observed."""
        return self.observed_at != -float("inf")

    def observe(self, seconds: float, now: float) -> None:
        """Take a reply into account."""
        if seconds >= self.cost_s:
            self.cost_s = seconds
        else:
            kept = exp((self.observed_at - now) / TAU_S)
            self.cost_s = self.cost_s * kept + seconds * (1 - kept)
        self.observed_at = now

    def at(self, now: float) -> float:
        """The estimate in seconds; 0 where nothing is known."""
        return self.cost_s * exp((self.observed_at - now) / TAU_S) if self.cost_s else 0.0
