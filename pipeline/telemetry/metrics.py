"""
Figures of a whole gateway: collecting those of its parts, and making one of those of several workers. Pure.

A snapshot is plain values. Every worker process makes its own, and whoever supervises them merges: counters, histograms
and most gauges add up, so a scrape is right however many workers there are, and no file is shared between them.
"""

from __future__ import annotations

import operator
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, final

from attrs import evolve

from ..model.figures import Distribution, Exemplar, Figure

Snapshot = tuple[Figure | Distribution, ...]
"""What a process counted at one moment; no two samples of the same name have the same labels."""

LATENCIES_S: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
"""Bounds of latencies, in seconds: a gateway adds less than a millisecond, a tool may take a minute."""

_HITS: Final = "cache_hits_total"
_MISSES: Final = "cache_misses_total"


@final
class Histogram:
    """Counts observations in buckets."""

    __slots__ = ("bounds", "counts", "exemplars", "total")

    def __init__(self, bounds: tuple[float, ...] = LATENCIES_S) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0
        self.exemplars: dict[int, tuple[str, float, float]] = {}
        """Trace id, value and Trio clock seconds of the latest observation that has a trace, by bucket."""

    def observe(self, value: float, trace_id: str = "", at: float = 0.0) -> None:
        """Count one; `at` is the time on the Trio clock, needed only with a trace."""
        index = bisect_left(self.bounds, value)
        self.counts[index] += 1
        self.total += value
        if trace_id:
            self.exemplars[index] = (trace_id, value, at)

    def add(self, other: Histogram) -> None:
        """Count what another one with the same bounds counted; of two exemplars, the later one stays."""
        self.counts = list(map(operator.add, self.counts, other.counts))
        self.total += other.total
        for index, theirs in other.exemplars.items():
            ours = self.exemplars.get(index)
            if ours is None or ours[2] <= theirs[2]:
                self.exemplars[index] = theirs

    def sample(self, name: str, text: str, labels: Mapping[str, str], epoch_s: float) -> Distribution:
        """Its state now; `epoch_s` is what the wall clock said when the Trio clock said zero."""
        exemplars = {
            index: Exemplar(trace_id, value, epoch_s + at) for index, (trace_id, value, at) in self.exemplars.items()
        }
        return Distribution(name, self.bounds, tuple(self.counts), self.total, text, labels, exemplars)


def labelled(component: str, figures: Iterable[Figure | Distribution]) -> Iterator[Figure | Distribution]:
    """The figures of one component, with its id as a label."""
    for figure in figures:
        yield evolve(figure, labels={"component": component, **figure.labels})


def merge(snapshots: Iterable[Snapshot]) -> Snapshot:
    """
    One snapshot of several workers.

    What differs in kind or in its buckets, because workers run different versions of a configuration for a while, is
    not mixed: the first snapshot's counts.
    """
    merged: dict[tuple[str, frozenset[tuple[str, str]]], Figure | Distribution] = {}
    for snapshot in snapshots:
        for sample in snapshot:
            key = sample.name, frozenset(sample.labels.items())
            known = merged.get(key)
            merged[key] = sample if known is None else _added(known, sample)
    return tuple(merged.values())


def derived(snapshot: Snapshot) -> Snapshot:
    """What can only be computed once everything is merged: hits and misses of caches, and their ratio."""
    hits = {frozenset(each.labels.items()): each for each in _figures(snapshot, _HITS)}
    more: list[Figure] = []
    for misses in _figures(snapshot, _MISSES):
        found = hits.get(frozenset(misses.labels.items()))
        if found is None:
            continue
        more.append(evolve(found, name=f"mcp_{_HITS}"))
        more.append(evolve(misses, name=f"mcp_{_MISSES}"))
        total = found.value + misses.value
        if total > 0:
            text = "Share of the lookups that a cache answered; for sums over time take the counters."
            more.append(Figure("mcp_cache_hit_ratio", found.value / total, "gauge", text, found.labels))
    return (*snapshot, *more)


def _figures(snapshot: Snapshot, name: str) -> Iterator[Figure]:
    return (sample for sample in snapshot if isinstance(sample, Figure) and sample.name == name)


def _added(one: Figure | Distribution, other: Figure | Distribution) -> Figure | Distribution:
    if isinstance(one, Figure) and isinstance(other, Figure) and one.kind == other.kind:
        if one.kind == "counter" or one.across == "sum":
            return evolve(one, value=one.value + other.value)
        return evolve(one, value=(min if one.across == "min" else max)(one.value, other.value))
    if isinstance(one, Distribution) and isinstance(other, Distribution) and one.bounds == other.bounds:
        exemplars = {**one.exemplars}
        for index, exemplar in other.exemplars.items():
            if index not in exemplars or exemplar.at > exemplars[index].at:
                exemplars[index] = exemplar
        return evolve(
            one,
            counts=tuple(a + b for a, b in zip(one.counts, other.counts, strict=True)),
            total=one.total + other.total,
            exemplars=exemplars,
        )
    return one
