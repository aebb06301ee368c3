"""
The circuit breaker's machine: closed, open, half-open, as a function of what happened and of the clock.

| state | asked whether a call may pass | a call succeeds | a call fails |
| --- | --- | --- | --- |
| closed | yes | consecutive failures := 0 | counted; at a threshold -> open |
| open | no, until `until`; then -> half-open | ignored: it began before | ignored |
| half-open | yes, up to `probes` at once | at `successes` -> closed | -> open, for longer |

Pure: no Trio, no timer. An open breaker recovers because the *time* passes, with traffic or without: whoever asks after
`until` finds it half-open. Every pass belongs to the term (the stretch between two changes of state) in which it was
given out; what comes back from an earlier term is ignored, so a late success cannot close what has opened since.
"""

from __future__ import annotations

import random  # only for its type: the caller seeds it
from collections import deque
from collections.abc import Callable
from enum import StrEnum
from typing import Final, final

from attrs import frozen

BUCKETS: Final = 10
"""The sliding window moves in steps of a tenth of its length."""
SOON_S: Final = 1.0
"""When to ask again while probes are under way: nobody knows when they come back, and it will not be long."""


class Circuit(StrEnum):
    """The states."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@final
@frozen(kw_only=True)
class Rules:
    """When it opens, for how long, and what it takes to close again. Times in seconds."""

    failures: int
    """Consecutive failures that open it."""
    failure_rate: float
    """Share of failures in the window that opens it; 0 for never."""
    min_calls: int
    """Calls in the window below which the share says nothing."""
    window_s: float
    open_for_s: float
    """Time it stays open; n times that when it opens for the n-th time without having closed in between."""
    open_for_max_s: float
    jitter: float
    """Share of the time by which it may be longer, so that many gateways do not probe at once."""
    probes: int
    """Calls at once while half-open."""
    successes: int
    """Probes that must succeed for it to close."""
    probe_timeout_s: float
    """Time after which a probe that has not come back gives its place to another one."""


@final
@frozen
class Pass:
    """Leave for one call; give it back with `succeeded`, `failed` or `dropped`."""

    term: int
    number: int = 0
    """Of the probe; 0 if it is none."""


class _Window:
    """Calls and failures of the last `length_s` seconds, in buckets. Constant size."""

    __slots__ = ("_at", "_calls", "_ends", "_failures", "_per_s", "_slot")

    def __init__(self, length_s: float) -> None:
        self._per_s = BUCKETS / length_s
        self._calls = [0] * BUCKETS
        self._failures = [0] * BUCKETS
        self._at = self._slot = 0
        """The bucket of the present, counted from the clock's zero, and its place."""
        self._ends = 0.0
        """When its time is over."""

    @property
    def calls(self) -> int:
        """How many there were."""
        return sum(self._calls)

    @property
    def failures(self) -> int:
        """How many of them failed."""
        return sum(self._failures)

    def add(self, now: float, failed: int) -> None:
        """Count a call."""
        if now >= self._ends:
            self._move(int(now * self._per_s))
        self._calls[self._slot] += 1
        if failed:
            self._failures[self._slot] += 1

    def _move(self, at: int) -> None:
        for passed in range(max(self._at + 1, at - BUCKETS + 1), at + 1):
            slot = passed % BUCKETS
            self._calls[slot] = self._failures[slot] = 0
        self._at, self._slot = at, at % BUCKETS
        self._ends = (at + 1) / self._per_s

    def is_bad(self, share: float, min_calls: int) -> bool:
        """Whether at least this share failed of at least so many calls."""
        calls = self.calls
        return calls >= min_calls and self.failures >= share * calls

    def clear(self) -> None:
        """Forget everything."""
        self._calls = [0] * BUCKETS
        self._failures = [0] * BUCKETS


Watch = Callable[[Circuit, str, float], None]
"""Told of every change: the new state, why, and for how many seconds (0 unless it opened)."""


def _nobody(_state: Circuit, _why: str, _seconds: float) -> None:
    """Nobody watches."""


@final
class Breaker:
    """
    One breaker.

    Args:
        rules: Its figures.
        random: Jitter.
        watch: Told of every change of state, when it is noticed.
    """

    __slots__ = (
        "_jitter", "_numbers", "_probing", "_successes", "_watch", "_window",
        "consecutive", "forced", "free", "opened", "rules", "state", "term", "until",
    )  # fmt: skip

    def __init__(self, rules: Rules, rng: random.Random, watch: Watch = _nobody) -> None:
        self.rules = rules
        self.state = Circuit.CLOSED
        """As of the latest question; `look` brings it up to date."""
        self.term = 0
        """Counts the changes of state."""
        self.until = 0.0
        """When an open one becomes half-open."""
        self.consecutive = 0
        """Failures since the last success, while closed."""
        self.opened = 0
        """How often in a row it opened without having closed."""
        self.forced = False
        """An operator opened it: only an operator closes it."""
        self.free: Pass | None = Pass(0)
        """The pass that everybody gets while it is closed; None otherwise."""
        self._jitter = rng
        self._watch = watch
        self._window = _Window(rules.window_s) if rules.failure_rate else None
        self._probing: deque[tuple[int, float]] = deque()
        self._numbers = 0
        self._successes = 0

    def look(self, now: float) -> Circuit:
        """The state at this time."""
        if self.state is Circuit.OPEN and not self.forced and now >= self.until:
            self._become(Circuit.HALF_OPEN, "the time is over", 0.0)
        return self.state

    def enter(self, now: float) -> Pass | None:
        """A pass for one call, or None: refuse it."""
        if self.free is not None:
            return self.free
        if self.look(now) is not Circuit.HALF_OPEN or not self._has_place(now):
            return None
        if len(self._probing) >= self.rules.probes:
            self._probing.popleft()
        self._numbers += 1
        self._probing.append((self._numbers, now))
        return Pass(self.term, self._numbers)

    def retry_after_s(self, now: float) -> float | None:
        """Seconds until it can let a call pass: exact while open, soon while probes are under way; None if forced."""
        if self.forced:
            return None
        return self.until - now if self.look(now) is Circuit.OPEN else SOON_S

    def succeeded(self, leave: Pass, now: float) -> None:
        """The call came back with an answer."""
        if leave is self.free:
            self.consecutive = 0
            if self._window is not None:
                self._window.add(now, 0)
        elif leave.term == self.term and self._take_back(leave):
            self._successes += 1
            if self._successes >= self.rules.successes:
                self._become(Circuit.CLOSED, "recovered", 0.0)

    def failed(self, leave: Pass, now: float) -> None:
        """The call failed, and the upstream is to blame."""
        if leave is not self.free:
            if leave.term == self.term and self._take_back(leave):
                self._open(now, "a probe failed")
            return
        self.consecutive += 1
        rules, window = self.rules, self._window
        if window is not None:
            window.add(now, 1)
        if self.consecutive >= rules.failures:
            self._open(now, f"{self.consecutive} failures in a row")
        elif window is not None and window.is_bad(rules.failure_rate, rules.min_calls):
            self._open(now, f"{window.failures} of {window.calls} calls failed")

    def dropped(self, leave: Pass) -> None:
        """The call ended without saying anything about the upstream: its client left, or it was the client's fault."""
        if leave.term == self.term:
            self._take_back(leave)

    def force(self, state: Circuit, now: float) -> None:
        """What an operator says: open until told otherwise, or closed with everything forgotten."""
        if state is Circuit.OPEN:
            self.forced, self.until = True, now
            self._become(Circuit.OPEN, "an operator opened it", 0.0)
        else:
            self._become(Circuit.CLOSED, "an operator closed it", 0.0)

    def _has_place(self, now: float) -> bool:
        probing = self._probing
        return len(probing) < self.rules.probes or now - probing[0][1] >= self.rules.probe_timeout_s

    def _take_back(self, leave: Pass) -> bool:
        """Free a probe's place; False if it had been given to another one."""
        for held in self._probing:
            if held[0] == leave.number:
                self._probing.remove(held)
                return True
        return False

    def _open(self, now: float, why: str) -> None:
        rules = self.rules
        self.opened += 1
        seconds = min(rules.open_for_s * self.opened, rules.open_for_max_s)
        seconds += seconds * rules.jitter * self._jitter.random()
        self.until = now + seconds
        self._become(Circuit.OPEN, why, seconds)

    def _become(self, state: Circuit, why: str, seconds: float) -> None:
        self.state = state
        self.term += 1
        self.free = Pass(self.term) if state is Circuit.CLOSED else None
        self._successes = 0
        self._probing.clear()
        if state is Circuit.CLOSED:
            self.consecutive = self.opened = 0
            self.forced = False
            if self._window is not None:
                self._window.clear()
        self._watch(state, why, seconds)
