"""
A snapshot in Prometheus' text format, or in OpenMetrics for who asks for it: only that one has exemplars.

The formats are prometheus-client's business; what is counted is ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final, final

from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Exemplar as PrometheusExemplar

from ..model.figures import Distribution, Figure
from .metrics import Snapshot, derived

PREFIX: Final = "sluiceway_"
"""Stands before every name that does not begin with one of `OWN_NAMES`."""
OWN_NAMES: Final = ("mcp_", "process_")
_NAME: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_LABEL: Final = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*")


def exposition(snapshot: Snapshot, accept: str = "") -> tuple[str, bytes]:
    """
    A snapshot for a scrape.

    Args:
        snapshot: Merged already. Samples with names that Prometheus cannot have, or of another kind than others of the
            same name, are left out: a component of somebody else's must not spoil everybody's scrape.
        accept: The `Accept` header.

    Returns:
        Content type and body.
    """
    encode, content_type = choose_encoder(accept)
    return content_type, encode(_Collected(_families(derived(snapshot))))


@final
class _Collected:
    """What prometheus-client calls a registry."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _families(snapshot: Snapshot) -> list[Metric]:
    families: dict[str, Metric] = {}
    for sample in snapshot:
        kind = sample.kind if isinstance(sample, Figure) else "histogram"
        name = sample.name if sample.name.startswith(OWN_NAMES) else PREFIX + sample.name
        if kind == "counter":
            name = name.removesuffix("_total")
        if not (_NAME.fullmatch(name) and all(map(_LABEL.fullmatch, sample.labels))):
            continue
        family = families.setdefault(name, Metric(name, sample.help, kind))
        if family.type != kind:
            continue
        if isinstance(sample, Figure):
            family.add_sample(f"{name}_total" if kind == "counter" else name, dict(sample.labels), sample.value)
        else:
            _add_buckets(family, name, sample)
    return list(families.values())


def _add_buckets(family: Metric, name: str, sample: Distribution) -> None:
    labels = dict(sample.labels)
    for index, (bound, count) in enumerate(_cumulative(sample)):
        exemplar = sample.exemplars.get(index)
        shown = exemplar and PrometheusExemplar({"trace_id": exemplar.trace_id}, exemplar.value, exemplar.at)
        family.add_sample(f"{name}_bucket", {**labels, "le": bound}, count, exemplar=shown)
    family.add_sample(f"{name}_count", labels, sum(sample.counts))
    family.add_sample(f"{name}_sum", labels, sample.total)


def _cumulative(sample: Distribution) -> Iterator[tuple[str, int]]:
    so_far = 0
    for bound, count in zip((*map(repr, sample.bounds), "+Inf"), sample.counts, strict=True):
        so_far += count
        yield bound, so_far
