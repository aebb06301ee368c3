"""
Who is out, and for how long: what replies say (passive), and what probes say (active). State machines, without a clock.

Passive: so many failures in a row put an upstream out for a while, longer each time (Envoy, outlier detection). The
count of ejections falls by one for every `base_s` that it has been back. Active: so many probes in a row that failed
mean down, so many that succeeded mean up; before the first probe it is up, since nothing bad is known of it.
"""

from __future__ import annotations

from typing import final

from attrs import define, frozen

_NEVER = -float("inf")


@final
@frozen(kw_only=True)
class EjectionRules:
    """When an upstream is put out, and for how long."""

    consecutive: int
    """Failures in a row."""
    window_s: float
    """Time within which they must follow each other."""
    base_s: float
    """How long the first ejection lasts; the n-th lasts n times as long."""
    max_s: float
    """How long any lasts at most."""


@final
@define(eq=False)
class Ejection:
    """The record of one upstream's replies."""

    streak: int = 0
    """Failures in a row."""
    times: int = 0
    """Ejections that still count for the length of the next one."""
    total: int = 0
    """Ejections in all."""
    until: float = _NEVER
    """When it is, or was, back."""
    _failed_at: float = _NEVER

    def succeeded(self) -> None:
        """It has answered."""
        self.streak = 0

    def failed(self, now: float, rules: EjectionRules) -> bool:
        """Note a failure; whether it was one too many."""
        if now - self._failed_at > rules.window_s:
            self.streak = 0
        self.streak += 1
        self._failed_at = now
        return self.streak >= rules.consecutive

    def eject(self, now: float, rules: EjectionRules) -> float:
        """Put it out; returns the seconds."""
        if self.times:
            self.times = max(0, self.times - int((now - self.until) / rules.base_s))
        self.times += 1
        self.total += 1
        self.streak = 0
        seconds = min(rules.base_s * self.times, rules.max_s)
        self.until = now + seconds
        return seconds

    def is_out(self, now: float) -> bool:
        """Whether it is ejected."""
        return now < self.until

    def take_back(self, now: float) -> None:
        """A probe found it well: it is back before its time."""
        self.until = min(self.until, now)
        self.streak = 0


@final
@define(eq=False)
class Probed:
    """The record of one upstream's probes."""

    is_down: bool = False
    _against: int = 0
    """Probes in a row that say the opposite of `is_down`."""

    def note(self, *, well: bool, unhealthy_after: int, healthy_after: int) -> bool:
        """
        Note a probe.

        Returns:
            Whether it has changed anything.
        """
        if well != self.is_down:
            self._against = 0
            return False
        self._against += 1
        if self._against < (healthy_after if well else unhealthy_after):
            return False
        self.is_down, self._against = not well, 0
        return True
