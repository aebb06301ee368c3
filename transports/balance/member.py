"""One upstream of a group: where requests for it go, and what is known of it."""

from __future__ import annotations

from typing import Final, final

import trio
from attrs import define, field

from sluiceway.pipeline.model.exchange import Service

from .ejection import Ejection, Probed
from .latency import PeakEwma

_FLOOR: Final = 0.05
"""Share of its weight that an upstream which has just come back begins with."""
_UNPROVEN_S: Final = 1e6
"""What a second request to an upstream costs that has not answered its first one yet."""
_LEAST_S: Final = 1e-4
"""Latency below which only the number of requests in flight counts."""


@final
@define(eq=False)
class Vitals:
    """What is known of an upstream; it outlives a reload."""

    in_flight: int = 0
    """Requests inside, LISTEN not counted."""
    listeners: int = 0
    """LISTEN exchanges inside."""
    requests: int = 0
    """Requests sent, LISTEN included."""
    failures: int = 0
    """Those whose failure was the upstream's fault."""
    drained: bool = False
    """An operator has said that it gets no more."""
    warm_since: float = -float("inf")
    """When it came back; a slow start begins there."""
    latency: PeakEwma = field(factory=PeakEwma)
    ejection: Ejection = field(factory=Ejection)
    probed: Probed = field(factory=Probed)


@final
@define(eq=False)
class Member:
    """An upstream as a strategy sees it: `id`, `weight`, `load`, `share`, `cost`."""

    id: str
    """Id of its sink."""
    index: int
    """Its place in the configuration."""
    service: Service
    weight: int
    vitals: Vitals
    slow_start_s: float = 0.0
    streams: set[trio.Event] = field(factory=set)
    """For each LISTEN exchange the event that ends it well."""

    @property
    def load(self) -> int:
        """Requests in flight, LISTEN not counted."""
        return self.vitals.in_flight

    def ramp(self, now: float) -> float:
        """How much of its weight counts while it starts slowly: rises to 1."""
        warm = now - self.vitals.warm_since
        return 1.0 if warm >= self.slow_start_s else max(_FLOOR, warm / self.slow_start_s)

    def share(self, now: float) -> float:
        """Its weight, less while it starts slowly. More than 0 for all that a strategy is shown."""
        return self.weight * self.ramp(now)

    def cost(self, now: float) -> float:
        """
        What one more request to it would cost: expected latency, times the requests it would share it with.

        An upstream that nothing is known of gets one request, and no second one before that is answered, unless all
        are like this.
        """
        vitals = self.vitals
        if not vitals.latency.is_known:
            return _UNPROVEN_S * vitals.in_flight / self.share(now)
        return (vitals.latency.at(now) + _LEAST_S) * (vitals.in_flight + 1) / self.share(now)
