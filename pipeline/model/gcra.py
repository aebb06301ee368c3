"""
GCRA: how much of a rate a key has used, as one number. Pure arithmetic, exact to the nanosecond.

The generic cell rate algorithm (ITU-T I.371, its virtual scheduling form) keeps for each key the *theoretical arrival
time*: when the key would have nothing on its account any more if it sent nothing else. A request of weight w moves it
on by w intervals, from now if it lies in the past. It fits if that is not more than `burst` intervals ahead of now. So
a key gets at most `burst + rate x time` in any stretch of time, and is never refused what fits into that. There is
nothing to refill, and no timer; a key whose time has passed is the same as one that was never seen.

Times are whole numbers. A nanosecond is divided into as many ticks as it takes for the interval of the rate to be a
whole number of them (7/min is 60e9 ticks at 7 ticks each nanosecond): nothing is ever rounded, so nothing drifts.
"""

from __future__ import annotations

from collections import deque
from fractions import Fraction
from typing import Final, TypeAlias, final

from attrs import field, frozen

from .options import Rate

State: TypeAlias = int | tuple[int, ...]
"""Theoretical arrival times in ticks: the one of a limit's only window, or one for each of several."""
FRESH: Final = 0
"""The state of a key that was never seen, or has nothing on its account any more."""
NS_PER_S: Final = 1_000_000_000

_LOOKS: Final = 2
"""Keys a ledger looks at for each new one: it shrinks faster than it grows."""
_LOOKS_WHEN_FULL: Final = 64


def nanoseconds(seconds: float) -> int:
    """Seconds of a clock, or a duration, as whole nanoseconds."""
    return int(seconds * 1e9 + 0.5)


@final
@frozen
class Window:
    """One rate and its burst."""

    rate: Rate
    burst: int
    """Units that fit at once."""
    ticks: int = field(init=False)
    """Ticks in a nanosecond."""
    interval: int = field(init=False)
    """Ticks that one unit takes."""
    tolerance: int = field(init=False)
    """Ticks that a whole burst takes."""

    def __attrs_post_init__(self) -> None:
        per_ns, count = _exactly(self.rate.per_s) * NS_PER_S, _exactly(self.rate.count)
        if self.burst < 1 or per_ns <= 0 or count <= 0:
            raise ValueError(f"a rate and its burst must be positive, got {self.rate} and {self.burst}")
        interval = per_ns / count
        object.__setattr__(self, "ticks", interval.denominator)
        object.__setattr__(self, "interval", interval.numerator)
        object.__setattr__(self, "tolerance", interval.numerator * self.burst)

    def __str__(self) -> str:
        return f"{self.rate}" if self.burst == self.rate.count else f"{self.rate}, {self.burst} at once"


def _exactly(number: float) -> Fraction:
    """What was written: 0.1 is a tenth."""
    return Fraction(repr(number)).limit_denominator(NS_PER_S)


Room: TypeAlias = tuple[int, int, int]
"""
What a key still gets: the number of the window in which it has least (from 0), the units that fit into that now, and
the nanoseconds until its whole burst fits, if nothing is charged. A plain tuple: it is made for every request.
"""


@final
class Limit:
    """Windows that must all admit. `charge` is the law; nothing in here remembers anything."""

    def __init__(self, *windows: Window) -> None:
        if not windows:
            raise ValueError("a limit has at least one window")
        self.windows = windows
        self.burst = min(window.burst for window in windows)
        """Units that fit at once when nothing is on the account; more never fit."""
        self._only = windows[0] if len(windows) == 1 else None

    def charge(self, state: State, now_ns: int, weight: int = 1) -> tuple[State, int]:
        """
        What the state becomes if something is charged, and when that is allowed.

        Args:
            state: As it was kept for the key; `FRESH` if nothing was.
            now_ns: Nanoseconds of a clock that all charges of the key share.
            weight: Units; at most `burst`, or it never fits.

        Returns:
            The new state, to be kept exactly if the caller admits; and the nanoseconds until it fits: 0 is now. Who
            keeps the state and lets the request wait for that long has reserved its place, in order.
        """
        window = self._only
        if window is not None and isinstance(state, int):
            now = now_ns * window.ticks
            arrival = (state if state > now else now) + weight * window.interval  # noqa: FURB136  # three times as fast
            early = arrival - window.tolerance - now
            return arrival, -(-early // window.ticks) if early > 0 else 0
        arrivals: list[int] = []
        wait_ns = 0
        for window, before in zip(self.windows, self.arrivals(state), strict=True):
            now = now_ns * window.ticks
            arrival = max(before, now) + weight * window.interval
            wait_ns = max(wait_ns, -(-(arrival - window.tolerance - now) // window.ticks))
            arrivals.append(arrival)
        return tuple(arrivals), wait_ns

    def arrivals(self, state: State) -> tuple[int, ...]:
        """A state as one theoretical arrival time for each window."""
        return state if isinstance(state, tuple) else (state,) * len(self.windows)

    def room(self, state: State, now_ns: int) -> Room:
        """What still fits now, by the window that leaves least."""
        window = self._only
        if window is not None and isinstance(state, int):
            ahead = state - now_ns * window.ticks
            if ahead <= 0:
                return 0, window.burst, 0
            left = window.tolerance - ahead
            return 0, left // window.interval if left > 0 else 0, -(-ahead // window.ticks)
        rooms = []
        for number, (window, arrival) in enumerate(zip(self.windows, self.arrivals(state), strict=True)):
            ahead = max(arrival - now_ns * window.ticks, 0)
            left = max(window.tolerance - ahead, 0) // window.interval
            rooms.append((number, left, -(-ahead // window.ticks)))
        return min(rooms, key=lambda room: (room[1], -room[2]))

    def debt_ns(self, state: State, now_ns: int) -> int:
        """Nanoseconds until the key is as one that was never seen; 0 if it already is."""
        if self._only is not None and isinstance(state, int):
            return max(-(-state // self._only.ticks) - now_ns, 0)
        ends = (-(-a // w.ticks) for w, a in zip(self.windows, self.arrivals(state), strict=True))
        return max(max(ends) - now_ns, 0)

    def not_beyond(self, state: State, now_ns: int, patience_ns: int = 0) -> State:
        """
        A state that no clock can have made worse: nobody can owe more than a burst and what may wait.

        For states that outlive the process: a clock that was set back would lock keys out for as long.
        """
        latest = (w.tolerance + (now_ns + patience_ns) * w.ticks for w in self.windows)
        arrivals = tuple(map(min, self.arrivals(state), latest))
        return arrivals if self._only is None else arrivals[0]

    def __str__(self) -> str:
        return " and ".join(map(str, self.windows))


class LedgerFull(Exception):
    """There are `max_keys` keys in debt; none may be forgotten, so none can be added."""

    def __init__(self, relief_ns: int) -> None:
        super().__init__(f"full for at least {relief_ns} ns")
        self.relief_ns = relief_ns
        """Nanoseconds until one of those looked at has nothing on its account."""


@final
class Ledger:
    """
    What the keys of one limit owe, in this process. Bounded, and never forgets a key in debt.

    Keys stand in a ring. With each new key the hand moves on a little, and drops what owes nothing: dropping it
    changes no answer, so it needs no order of use and no timer, and no call takes longer than another by more than
    some microseconds. What the ring is full of is therefore debtors, as far as the hand has looked; then a new key is
    not served rather than an old one forgiven.
    """

    def __init__(self, limit: Limit, max_keys: int) -> None:
        self.limit = limit
        self._max_keys = max_keys
        self.states: dict[str, State] = {}
        """What each key owes. Keys that are here may be charged here; others come in by `add`."""
        self._ring: deque[str] = deque()

    def __len__(self) -> int:
        return len(self.states)

    def take(self, key: str, now_ns: int, weight: int = 1, patience_ns: int = 0) -> int:
        """
        Charge a key if that fits now, or within `patience_ns`; see `Limit.charge`.

        Returns:
            Nanoseconds until it fits; it was charged exactly if these are not more than `patience_ns`.

        Raises:
            LedgerFull: The key is new and there is no place for it. Nothing was charged.
        """
        return self.charge(key, now_ns, weight, patience_ns)[0]

    def charge(self, key: str, now_ns: int, weight: int = 1, patience_ns: int = 0) -> tuple[int, State]:
        """
        As `take`.

        Returns:
            The wait, and what the key owes now.
        """
        state = self.states.get(key, FRESH)
        charged, wait_ns = self.limit.charge(state, now_ns, weight)
        if wait_ns > patience_ns:
            return wait_ns, state
        if state == FRESH:
            self.add(key, charged, now_ns)
        else:
            self.states[key] = charged
        return wait_ns, charged

    def add(self, key: str, state: State, now_ns: int) -> None:
        """
        Take in a key that is not here yet.

        Raises:
            LedgerFull: There is no place for it.
        """
        self._make_room(now_ns)
        self._ring.append(key)
        self.states[key] = state

    def room(self, key: str, now_ns: int) -> Room:
        """What a key still gets; charges nothing."""
        return self.limit.room(self.states.get(key, FRESH), now_ns)

    def _make_room(self, now_ns: int) -> None:
        full = len(self.states) >= self._max_keys
        relief_ns: int | None = None
        for _ in range(min(_LOOKS_WHEN_FULL if full else _LOOKS, len(self._ring))):
            key = self._ring.popleft()
            debt_ns = self.limit.debt_ns(self.states[key], now_ns)
            if debt_ns == 0:
                del self.states[key]
                if full:
                    return
            else:
                self._ring.append(key)
                relief_ns = debt_ns if relief_ns is None else min(relief_ns, debt_ns)
        if full:
            raise LedgerFull(relief_ns or 0)
