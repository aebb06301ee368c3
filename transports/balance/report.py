"""What `status` and metrics show of a group."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sluiceway.pipeline.model.figures import Figure
from sluiceway.pipeline.protocol.messages import Json

from .group import Group
from .sessions import Sessions


def details_of(group: Group, sessions: Sessions, now: float) -> Mapping[str, Json]:
    """Every upstream: its state, what is in flight, and how it does."""
    return {
        member.id: {
            "state": group.state_of(member, now),
            "in_flight": member.vitals.in_flight,
            "listeners": member.vitals.listeners,
            "sessions": sessions.count(member),
            "requests": member.vitals.requests,
            "failures": member.vitals.failures,
            "ejections": member.vitals.ejection.total,
            "latency_ms": round(member.vitals.latency.at(now) * 1000, 3),
        }
        for member in group.members
    }


def figures_of(group: Group, now: float) -> Iterator[Figure]:
    """Load, failures and latency of every upstream."""
    usable = group.usable(now)
    for member in group.members:
        vitals, of = member.vitals, {"upstream": member.id}
        yield Figure("balance_in_flight", vitals.in_flight, "gauge", "Requests inside.", of)
        yield Figure("balance_listeners", vitals.listeners, "gauge", "Streams inside.", of)
        yield Figure("balance_usable", float(member in usable), "gauge", "Whether it gets requests.", of)
        yield Figure("balance_latency_seconds", vitals.latency.at(now), "gauge", "Expected latency.", of, "max")
        yield Figure("balance_requests_total", vitals.requests, "counter", "Requests sent.", of)
        yield Figure("balance_failures_total", vitals.failures, "counter", "Failures that were its fault.", of)
        yield Figure("balance_ejections_total", vitals.ejection.total, "counter", "Times it was put out.", of)
