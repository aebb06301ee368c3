"""
What became of the exchanges of a tape: counted in all, by target, by caller and by tenant, with the times they took.
Pure, and bounded whatever a tape has.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final, final

from attrs import define, field

from ..model.document import Document
from ..protocol.mcp import target_of
from ..protocol.messages import Json
from .assembly import RecordedExchange
from .comparing import caller_of_exchange
from .entries import DecisionData, Ended
from .stand_ins import stages_of
from .summary import OTHERS, end_of

MAX_ROWS: Final = 500
"""Targets, callers or tenants that are counted by themselves."""
MAX_MOVES: Final = 1000
"""Movements of circuit breakers that are kept."""
MAX_REFUSALS: Final = 10_000
"""Refusals that are kept one by one; all are counted."""
BUCKETS: Final = 60
"""Parts of the tape's time in which refusals are counted."""

_STEP: Final = 1.05
"""Times are known to a twentieth."""
_LEAST_S: Final = 1e-4

_UPSTREAM: Final = frozenset(
    {"connect_failed", "upstream_closed", "outcome_unknown", "upstream_protocol_error", "upstream_unavailable"}
)
_SHED: Final = frozenset({"capacity_exceeded", "draining", "slow_consumer"})
_NOT_AGAIN: Final = frozenset({"give_up", "bypass"})


@final
class Latencies:
    """A distribution of times, each known to a twentieth of itself."""

    def __init__(self) -> None:
        self.count = 0
        self._buckets: Counter[int] = Counter()

    def add(self, seconds: float) -> None:
        """Count a time."""
        self.count += 1
        self._buckets[0 if seconds <= _LEAST_S else 1 + int(math.log(seconds / _LEAST_S, _STEP))] += 1

    def quantile(self, share: float) -> float | None:
        """The time within which a share of all was done, in seconds; None if there is none."""
        left = share * self.count
        for bucket in sorted(self._buckets):
            left -= self._buckets[bucket]
            if left <= 1e-9:
                return 0.0 if bucket == 0 else _LEAST_S * _STEP**bucket
        return None

    def curve(self) -> list[tuple[float, float]]:
        """Times in seconds, with the share of all that was done within each."""
        points, done = [], 0
        for bucket in sorted(self._buckets):
            done += self._buckets[bucket]
            points.append((_LEAST_S * _STEP**bucket, done / self.count))
        return points


@final
@define(eq=False)
class Tally:
    """Counts of some exchanges."""

    requests: int = 0
    counts: Counter[str] = field(factory=Counter)
    """`answered`, `tool_error`, `error`, `refused`, `shed`, `failed`, `timed_out`, `cancelled`: each exchange is one of
    these; `cached`, `joined`, `retried`, `hedged`, `fell_back`: what was done for it, too."""
    reasons: Counter[str] = field(factory=Counter)
    """Why the gateway did not answer."""
    latencies: Latencies = field(factory=Latencies)
    """Of those that were answered."""

    def as_json(self) -> dict[str, Json]:
        """The same for programs; times in milliseconds."""
        return {
            "requests": self.requests,
            **{name: self.counts[name] for name in COUNTS},
            "reasons": dict(self.reasons),
            "latency_ms": {f"p{share:g}": _ms(self.latencies.quantile(share / 100)) for share in (50, 95, 99)},
        }


COUNTS: Final = (
    "answered", "tool_error", "error", "refused", "shed", "failed", "timed_out", "cancelled", "cached", "joined",
    "retried", "hedged", "fell_back",
)  # fmt: skip
"""What is counted of exchanges."""


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)


@final
class Tallies:
    """
    Args:
        document: The configuration that decided; None if it is not known.
        span_s: How long the tape is.
    """

    def __init__(self, document: Document | None, span_s: float) -> None:
        self.all = Tally()
        self.by_target: dict[str, Tally] = {}
        self.by_caller: dict[str, Tally] = {}
        self.by_tenant: dict[str, Tally] = {}
        self.refusals: list[dict[str, Json]] = []
        """Those that were refused or shed, the first `MAX_REFUSALS`."""
        self.moves: list[dict[str, Json]] = []
        """When circuit breakers opened, tried, and closed."""
        self.over_time: list[Counter[str]] = [Counter() for _ in range(BUCKETS)]
        """How exchanges ended that began in each part of the tape's time."""
        self._span_s = max(span_s, 1e-9)
        stages = () if document is None else stages_of(document)
        self._roles = {component_id: stage.cls.role or stage.cls.name for component_id, stage in stages}

    def add(self, exchange: RecordedExchange) -> None:
        """Count an exchange that a client began, and that has ended; a request, no listener."""
        begun, ended = exchange.begun, exchange.ended
        if begun is None or ended is None or begun.kind != "call":
            return
        caller, message = caller_of_exchange(exchange), begun.message
        target = f"{message.method} {target_of(message.method, message.params) or ''}".rstrip()
        tenant = (None if caller is None else caller.tenant) or "(none)"
        subject = "anonymous" if caller is None else caller.subject
        how, reason = outcome_of(ended)
        rows = (_row(self.by_target, target), _row(self.by_caller, subject), _row(self.by_tenant, tenant))
        for tally in (self.all, *rows):
            tally.requests += 1
            tally.counts[how] += 1
            if reason:
                tally.reasons[reason] += 1
            if how in ("answered", "tool_error") and exchange.took is not None:
                tally.latencies.add(exchange.took)
            for done in {self._done(decision) for decision in ended.decisions} - {""}:
                tally.counts[done] += 1
        self.over_time[min(BUCKETS - 1, int(begun.t / self._span_s * BUCKETS))][how] += 1
        if how in ("refused", "shed") and len(self.refusals) < MAX_REFUSALS:
            self.refusals.append(
                {"exchange": exchange.number, "t": begun.t, "target": target, "caller": subject, "tenant": tenant,
                 "reason": reason}
            )  # fmt: skip
        self._note_moves(ended)

    def _note_moves(self, ended: Ended) -> None:
        for each in ended.decisions:
            moved = self._role(each) == "circuit_breaker" and each.outcome in ("open", "probe", "close")
            if moved and len(self.moves) < MAX_MOVES:
                self.moves.append({"t": ended.t, "stage": each.stage, "to": each.outcome, "cause": each.cause})

    def _role(self, decision: DecisionData) -> str:
        """What the stage is that decided; its id says so mostly, if its configuration is not known."""
        return self._roles.get(decision.stage) or decision.stage.rpartition(".")[2]

    def _done(self, decision: DecisionData) -> str:
        rule = _DONE.get(self._role(decision))
        return "" if rule is None else rule(decision.outcome)

    def as_json(self) -> dict[str, Json]:
        """The same for programs."""
        tables = {"by_target": self.by_target, "by_caller": self.by_caller, "by_tenant": self.by_tenant}
        return {
            "all": self.all.as_json(),
            **{name: {key: tally.as_json() for key, tally in rows.items()} for name, rows in tables.items()},
            "refusals": self.refusals,
            "breakers": self.moves,
        }


def _of_store(outcome: str) -> str:
    return "cached" if outcome in ("hit", "stale", "revalidated") else "joined" if outcome == "join" else ""


_DONE: Final[Mapping[str, Callable[[str], str]]] = {
    "cache": _of_store,
    "dedup": _of_store,
    "retry": lambda outcome: "" if outcome in _NOT_AGAIN else "retried",
    "hedge": lambda outcome: "hedged" if outcome == "hedge" else "",
    "fallback": lambda outcome: "fell_back" if outcome == "fallback" else "",
}


def _row(rows: dict[str, Tally], key: str) -> Tally:
    if key not in rows and len(rows) >= MAX_ROWS:
        key = OTHERS
    return rows.setdefault(key, Tally())


def outcome_of(ended: Ended) -> tuple[str, str]:
    """How an exchange ended, in one of the words of `Tally.counts`, and the gateway's reason if it did not answer."""
    error = None if ended.reply is None else ended.reply.error
    if ended.reply is None:
        return "cancelled", ""
    if error is None:
        return ("tool_error" if end_of(ended) == "tool error" else "answered"), ""
    data = error.data if isinstance(error.data, dict) else {}
    reason = str(data.get("reason", ""))
    if data.get("origin") != "gateway":
        return "error", ""
    if reason == "deadline_exceeded":
        return "timed_out", reason
    if reason in _UPSTREAM or reason == "internal_error":
        return "failed", reason
    return ("shed" if reason in _SHED else "refused"), reason
