"""
Strategies: which of some upstreams gets a request. Pure, and none but `least_loaded` looks at all of them.

A strategy is shown only upstreams that may be used. One that starts slowly is offered like the others, and turned down
as often as it still lacks weight.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Final, Protocol, final

from .member import Member
from .ring import Ring

_TURNED_DOWN: Final = 8
"""How often an upstream that starts slowly may be turned down for one request."""


class Strategy(Protocol):
    """What `strategy: package.module:Class` must be. It is made with `Class(rng)`, a `random.Random`."""

    def choose(self, upstreams: Sequence[Member], key: bytes | None, now: float) -> Member:
        """
        Choose one; must not block.

        Args:
            upstreams: At least one. The same object as long as nothing has changed.
            key: What `hash.by` is for this request; None if it has none, or nothing is configured.
            now: Seconds of the Trio clock.
        """
        ...


def _ramped(draw: Callable[[], Member], rng: random.Random, now: float) -> Member:
    """Draw until one is drawn that counts as much as chance has it."""
    member = draw()
    for _ in range(_TURNED_DOWN):
        ramp = member.ramp(now)
        if ramp >= 1.0 or rng.random() < ramp:
            return member
        member = draw()
    return member


@final
class RoundRobin:
    """One after the other."""

    def __init__(self, rng: random.Random) -> None:
        self._random = rng
        self._last = -1

    def choose(self, upstreams: Sequence[Member], key: bytes | None, now: float) -> Member:
        """The next one in the order of the configuration, whoever is missing."""

        def draw() -> Member:
            place = bisect_right(upstreams, self._last, key=lambda member: member.index)
            member = upstreams[place % len(upstreams)]
            self._last = member.index
            return member

        return _ramped(draw, self._random, now)


@final
class Random:
    """Any, with the same chance for each."""

    def __init__(self, rng: random.Random) -> None:
        self._random = rng

    def choose(self, upstreams: Sequence[Member], key: bytes | None, now: float) -> Member:
        """Draw one."""
        return _ramped(lambda: upstreams[int(self._random.random() * len(upstreams))], self._random, now)


@final
class Weighted:
    """Any, with chances as the weights say."""

    def __init__(self, rng: random.Random) -> None:
        self._random = rng
        self._of: Sequence[Member] = ()
        self._sums: list[int] = []

    def choose(self, upstreams: Sequence[Member], key: bytes | None, now: float) -> Member:
        """Draw one."""
        if upstreams is not self._of:
            self._of, self._sums = upstreams, list(accumulate(member.weight for member in upstreams))
        sums = self._sums
        return _ramped(
            lambda: upstreams[bisect_right(sums, self._random.random() * sums[-1])], self._random, now
        )  # fmt: skip


@final
class LeastLoaded:
    """The one with the fewest requests in flight for its weight. Looks at all of them."""

    def __init__(self, rng: random.Random) -> None:
        self._random = rng

    def choose(self, upstreams: Sequence[Member], key: bytes | None, now: float) -> Member:
        """The least loaded; of equals, any."""
        loads = [member.load / member.share(now) for member in upstreams]
        least = min(loads)
        best = [member for member, load in zip(upstreams, loads, strict=True) if load == least]
        return best[int(self._random.random() * len(best))]


@final
class PowerOfTwo:
    """The cheaper of two that are drawn: almost as even as looking at all, and never a stampede to a single best."""

    def __init__(self, rng: random.Random) -> None:
        self._random = rng

    def choose(self, upstreams: Sequence[Member], key: bytes | None, now: float) -> Member:
        """Draw two different ones and compare what a request would cost there (see `Member.cost`)."""
        count = len(upstreams)
        if count == 1:
            return upstreams[0]
        draw = self._random.random
        first, second = int(draw() * count), int(draw() * (count - 1))
        if second >= first:
            second += 1
        one, other = upstreams[first], upstreams[second]
        return one if one.cost(now) <= other.cost(now) else other


@final
class ConsistentHash:
    """
    The owner of the request's key; requests without one go by `p2c`.

    With a bounded load (Mirrokni, Thorup, Zadimoghaddam, 2016) an upstream that has its share of all requests in
    flight, times the factor, is passed over.

    Args:
        rng: For requests without a key.
        ring: Of the whole group.
        bounded_load: The factor; None for no bound.
        total: Requests in flight in the whole group.
    """

    def __init__(self, rng: random.Random, ring: Ring, bounded_load: float | None, total: Callable[[], int]) -> None:
        self._otherwise = PowerOfTwo(rng)
        self._ring = ring
        self._factor = bounded_load
        self._total = total
        self._of: Sequence[Member] = ()
        self._by_id: dict[str, Member] = {}
        self._weight = 0

    def choose(self, upstreams: Sequence[Member], key: bytes | None, now: float) -> Member:
        """The first from the key's place on that may be used and is not full."""
        if key is None:
            return self._otherwise.choose(upstreams, key, now)
        if upstreams is not self._of:
            self._of, self._by_id = upstreams, {member.id: member for member in upstreams}
            self._weight = sum(member.weight for member in upstreams)
        by_id, fair = self._by_id, 0.0
        if self._factor is not None:
            fair = self._factor * (self._total() + 1) / self._weight
        for node in self._ring.walk(key):
            member = by_id.get(node)
            if member is not None and (not fair or member.load < math.ceil(fair * member.weight)):
                return member
        return self._otherwise.choose(upstreams, key, now)


PLAIN: Final[Mapping[str, Callable[[random.Random], Strategy]]] = {
    "round_robin": RoundRobin,
    "random": Random,
    "weighted": Weighted,
    "least_loaded": LeastLoaded,
    "p2c": PowerOfTwo,
}
"""Strategies that need nothing but chance, by their name in YAML."""


def fewest_listeners(upstreams: Sequence[Member], now: float) -> Member:
    """Where a stream that lasts goes: to whom has the fewest for its weight. Streams are rare; all are looked at."""
    return min(upstreams, key=lambda member: (member.vitals.listeners / member.share(now), member.index))
