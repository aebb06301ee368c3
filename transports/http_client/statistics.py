"""What pools of connections count, and how it is shown in metrics and status."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum
from typing import final

from attrs import define, field, frozen

from sluiceway.pipeline.model.figures import Figure
from sluiceway.pipeline.protocol.messages import Json


class End(Enum):
    """Why a connection was closed."""

    IDLE = "idle"
    """It was at rest for too long."""
    OLD = "old"
    """It was used for so long, or so often, as a connection is."""
    RENEWED = "renewed"
    """The origin has moved, or an operator wanted new ones."""
    CUT = "cut"
    """A response on it was not read to its end: over HTTP/1.1 that is how a peer is told to stop."""
    PEER = "peer"
    """The peer closed it, went away, or broke the rules."""
    DEAD = "dead"
    """The peer gave no sign of life."""
    CLOSED = "closed"
    """The sink was closed."""


@final
@define(eq=False)
class Counts:
    """What happened in a pool since it was made."""

    opened: int = 0
    """Connections."""
    reused: int = 0
    """Requests that found a connection."""
    waited: int = 0
    """Requests that had to wait in line, or for a connection to be opened that others need as well."""
    waited_s: float = 0.0
    """How long, all together."""
    refused: int = 0
    """Requests that were too many to wait."""
    ended: dict[End, int] = field(factory=lambda: dict.fromkeys(End, 0))
    """Connections that were closed, by reason."""


@final
@frozen
class PoolReport:
    """A pool at one moment."""

    counts: Counts
    open: int
    """Connections."""
    idle: int
    """Those at rest."""
    requests: int
    """Requests that have a place on one of them."""
    waiting: int
    """Requests that have none yet."""

    def __add__(self, other: PoolReport) -> PoolReport:
        """Both together."""
        one, two = self.counts, other.counts
        return PoolReport(
            Counts(
                one.opened + two.opened,
                one.reused + two.reused,
                one.waited + two.waited,
                one.waited_s + two.waited_s,
                one.refused + two.refused,
                {end: count + two.ended[end] for end, count in one.ended.items()},
            ),
            self.open + other.open,
            self.idle + other.idle,
            self.requests + other.requests,
            self.waiting + other.waiting,
        )


def figures_of(reports: Mapping[str, PoolReport]) -> Iterator[Figure]:
    """The figures of pools, each with what it is used for."""
    for use, report in reports.items():
        counts, label = report.counts, {"use": use}
        yield Figure("pool_connections", report.open, "gauge", "Connections to the upstream.", label)
        yield Figure("pool_idle", report.idle, "gauge", "Those that are at rest.", label)
        yield Figure("pool_requests", report.requests, "gauge", "Requests that have a place on one.", label)
        yield Figure("pool_waiting", report.waiting, "gauge", "Requests that wait for a place.", label)
        yield Figure("pool_opened_total", counts.opened, "counter", "Connections that were opened.", label)
        yield Figure("pool_reused_total", counts.reused, "counter", "Requests that found a connection.", label)
        yield Figure("pool_waited_total", counts.waited, "counter", "Requests that waited for a place.", label)
        yield Figure("pool_waited_seconds_total", counts.waited_s, "counter", "How long they waited.", label)
        yield Figure("pool_refused_total", counts.refused, "counter", "Requests too many to wait.", label)
        for end, count in counts.ended.items():
            labels = {**label, "reason": end.value}
            yield Figure("pool_closed_total", count, "counter", "Connections that were closed.", labels)


def shown(reports: Mapping[str, PoolReport]) -> dict[str, Json]:
    """What `status` shows of pools: how many connections and requests there are now."""
    return {
        use: {"open": each.open, "idle": each.idle, "requests": each.requests, "waiting": each.waiting}
        for use, each in reports.items()
        if each.counts.opened or each.waiting
    }
