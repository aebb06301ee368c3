"""What a component counts, as metrics show it: plain values here, their format in `telemetry`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, final

from attrs import Factory, frozen


@final
@frozen
class Figure:
    """
    A sample of a counter or a gauge. Names and units follow Prometheus: `_total` counts, base units, snake case.
    """

    name: str
    """Without the common prefix: `cache_hits_total`. Bytes and seconds end in `_bytes` and `_seconds`."""
    value: float
    kind: Literal["counter", "gauge"]
    help: str
    """One sentence."""
    labels: Mapping[str, str] = Factory(dict)
    """Few, from small fixed sets: never a caller, a uri, or anything else that clients choose."""
    across: Literal["sum", "min", "max"] = "sum"
    """What several workers' samples of it come to; counters are always added up."""


@final
@frozen
class Exemplar:
    """One observation that stands for its bucket, and the trace it belongs to."""

    trace_id: str
    value: float
    at: float
    """Seconds since the epoch."""


@final
@frozen
class Distribution:
    """A sample of a histogram."""

    name: str
    """As in `Figure`; seconds end in `_seconds`."""
    bounds: tuple[float, ...]
    """Upper bounds of the buckets, rising, each included; what lies above the last has a bucket of its own."""
    counts: tuple[int, ...]
    """Observations in each bucket, not cumulative; one more than there are bounds."""
    total: float
    """Sum of the observations."""
    help: str
    """One sentence."""
    labels: Mapping[str, str] = Factory(dict)
    exemplars: Mapping[int, Exemplar] = Factory(dict)
    """The latest one, by index of its bucket."""
