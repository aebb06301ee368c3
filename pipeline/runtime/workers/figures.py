"""What is counted of the workers as a whole, by their supervisor: how many there are, and what became of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...model.figures import Figure
from .member import Phase

if TYPE_CHECKING:
    from .fleet import Fleet


def figures_of(fleet: Fleet) -> Iterator[Figure]:
    """For metrics, and for alerts of the supervisor."""
    for phase in (Phase.STARTING, Phase.READY, Phase.DRAINING):
        number = len(fleet.those(phase))
        yield Figure("workers", number, "gauge", "Workers by the state they are in.", {"state": phase.value})
    yield Figure("worker_deaths_total", fleet.restarts.total, "counter", "Workers that ended unasked.")
    yield Figure("worker_hangs_total", fleet.hangs, "counter", "Of these, workers that did not answer any more.")
    yield Figure("worker_handed_total", fleet.handed, "counter", "Connections made from one worker to another.")
    for member in fleet.those(Phase.READY, Phase.DRAINING):
        connections, labels = fleet.connections(member), {"worker": str(member.slot)}
        if connections is not None:
            yield Figure("worker_connections", connections, "gauge", "Connections of each worker.", labels)
