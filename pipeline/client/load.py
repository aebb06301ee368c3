"""
Calling a tool many times, with bounds: how many calls, how many at once, and how fast they begin.

Calls begin when the pace says so, whether earlier ones have ended or not (an open loop), as long as there is a place
for them; so a server that is slow is not asked more gently for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import Final, final

import trio
from attrs import define, field, frozen

from ..model.options import parse_duration

MAX_COUNT: Final = 1_000_000
"""Calls of one load."""
MAX_AT_ONCE: Final = 1_000
"""Calls under way at the same time."""
OK: Final = "ok"

Call = Callable[[], Awaitable[str]]
"""Makes one call, and says in a word or two how it ended; `OK` if well."""


@final
@frozen
class Pace:
    """So many calls begin together, and the next so much later."""

    calls: int
    every_s: float


def parse_pace(text: str) -> Pace:
    """
    A pace such as `100/1ms`: a hundred calls, a pause of a millisecond, and so on.

    Raises:
        ValueError: It is written otherwise, or one of the two is not above 0.
    """
    calls, slash, every = text.partition("/")
    if not slash or not calls.isdecimal() or int(calls) < 1:
        raise ValueError(f"a pace is written like 100/1ms, calls and the time between, not {text!r}")
    every_s = parse_duration(every)
    if every_s <= 0:
        raise ValueError(f"the time between {calls} calls and the next must be above 0, not {every!r}")
    return Pace(int(calls), every_s)


@final
@define
class LoadReport:
    """What became of a load."""

    seconds: float = 0.0
    """From the first call's beginning to the last one's end."""
    outcomes: Counter[str] = field(factory=Counter)
    """Calls by how they ended."""
    took_s: list[float] = field(factory=list)
    """Seconds that each call took, in the order in which they ended."""

    @property
    def per_second(self) -> float:
        """Calls that ended, for each second."""
        return len(self.took_s) / self.seconds if self.seconds else 0.0

    def percentile(self, share: float) -> float:
        """
        Seconds that this share of the calls did not exceed; 0 if there were none.

        Args:
            share: 0 to 1.
        """
        if not self.took_s:
            return 0.0
        ordered = sorted(self.took_s)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


async def run_load(call: Call, count: int, at_once: int, pace: Pace | None = None) -> LoadReport:
    """
    Make calls; returns when the last one has ended. Cancelling it cancels those that are under way.

    Args:
        call: Makes one; what it raises ends the load.
        count: How many, 1 to `MAX_COUNT`.
        at_once: How many may be under way, 1 to `MAX_AT_ONCE`.
        pace: How fast they begin; as fast as there are places if None.

    Raises:
        ValueError: A number is out of its bounds.
    """
    if not 1 <= count <= MAX_COUNT:
        raise ValueError(f"the count must be 1 to {MAX_COUNT}, not {count}")
    if not 1 <= at_once <= MAX_AT_ONCE:
        raise ValueError(f"1 to {MAX_AT_ONCE} calls can be under way at once, not {at_once}")
    report, start = LoadReport(), trio.current_time()
    numbers = iter(range(count))
    async with trio.open_nursery() as nursery:
        for _ in range(min(at_once, count)):
            nursery.start_soon(_caller, call, numbers, start, pace, report)
    report.seconds = trio.current_time() - start
    return report


async def _caller(call: Call, numbers: Iterator[int], start: float, pace: Pace | None, report: LoadReport) -> None:
    for number in numbers:
        if pace is not None:
            await trio.sleep_until(start + number // pace.calls * pace.every_s)
        began = trio.current_time()
        report.outcomes[await call()] += 1
        report.took_s.append(trio.current_time() - began)
