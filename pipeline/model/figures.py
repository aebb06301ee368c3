"""One number that a component counts, as metrics show it: plain values here, their format in `telemetry`."""

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
