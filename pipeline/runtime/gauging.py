"""What a running gateway counts: the figures of its components, of its pipelines and of its process."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import structlog
import trio

from ..model.component import State
from ..model.figures import Distribution, Figure
from ..telemetry.metrics import Snapshot, labelled
from .pipeline import Pipeline
from .supervisor import Host

_STATM: Final = Path("/proc/self/statm")
_DESCRIPTORS: Final = Path("/proc/self/fd")
_ENDS: Final = ("served", "refused", "cancelled")
_NOW: Final = (
    ("in_flight", "Exchanges inside."),
    ("waiting", "Exchanges that wait for a place."),
    ("listeners", "LISTEN exchanges inside."),
)


def take_snapshot(hosts: Iterable[Host], pipelines: Iterable[Pipeline], others: Iterable[Figure] = ()) -> Snapshot:
    """
    Everything that is counted, now. Never blocks.

    Args:
        hosts: Of the components; those that are open are asked for their figures.
        pipelines: Their counts of exchanges.
        others: Further figures, of the engine's own.
    """
    samples: dict[tuple[str, frozenset[tuple[str, str]]], Figure | Distribution] = {}
    hosts = list(hosts)
    for sample in (*_components(hosts), *_states(hosts), *_pipelines(pipelines), *_process(), *others):
        samples.setdefault((sample.name, frozenset(sample.labels.items())), sample)
    return tuple(samples.values())


def _components(hosts: Iterable[Host]) -> Iterator[Figure | Distribution]:
    log: Any = structlog.get_logger()
    for host in hosts:
        if not host.is_open:
            continue
        try:
            figures = list(host.component.figures())
        except Exception:  # the boundary: one component's bug must not hide what all others count
            log.exception("figures failed", component=host.id)
            continue
        yield from labelled(host.id, figures)


def _states(hosts: Iterable[Host]) -> Iterator[Figure]:
    for host in hosts:
        for state in State:
            labels = {"component": host.id, "kind": host.row.kind.value, "state": state.value}
            is_it = float(host.row.state is state)
            yield Figure("component_state", is_it, "gauge", "1 for the state each component is in.", labels)


def _pipelines(pipelines: Iterable[Pipeline]) -> Iterator[Figure]:
    for pipeline in pipelines:
        labels, counts = {"pipeline": pipeline.id}, pipeline.status()
        for end in _ENDS:
            text = "Exchanges by how they ended: answered, refused by the gateway, or left by their client."
            yield Figure("pipeline_exchanges_total", float(counts[end]), "counter", text, {**labels, "end": end})
        admitted = float(pipeline.admission.admitted + pipeline.listeners.admitted)
        yield Figure("pipeline_admitted_total", admitted, "counter", "Exchanges that were let in.", labels)
        most = float(pipeline.limits.max_in_flight)
        yield Figure("pipeline_max_in_flight", most, "gauge", "Exchanges that may be inside.", labels)
        text = "Time that exchanges took which were let in and have ended, LISTEN not counted."
        yield Figure("pipeline_seconds_total", pipeline.admission.spent_s, "counter", text, labels)
        for name, text in _NOW:
            yield Figure(f"pipeline_{name}", float(counts[name]), "gauge", text, labels)


def _process() -> Iterator[Figure]:
    yield Figure("process_cpu_seconds_total", time.process_time(), "counter", "Processor time used.")
    tasks = trio.lowlevel.current_statistics().tasks_living
    yield Figure("trio_tasks", tasks, "gauge", "Trio tasks.")
    with suppress(OSError):  # there is no /proc
        pages = int(_STATM.read_text().split()[1])
        yield Figure("process_resident_memory_bytes", pages * os.sysconf("SC_PAGE_SIZE"), "gauge", "Memory in RAM.")
        yield Figure("process_open_fds", len(os.listdir(_DESCRIPTORS)), "gauge", "Open descriptors.")
