"""
`metrics`: what passes, how it ends and how long it takes, as series for Prometheus.

Counting is a few additions to plain numbers; names and formats are made when somebody looks. No label is ever a caller,
and none that clients can choose grows beyond its bound.
"""

from __future__ import annotations

import re
import sys
from bisect import bisect_left
from collections.abc import AsyncIterator, Hashable, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Final, TypeVar, final

import trio
from attrs import define, field, frozen

from sluiceway.pipeline.model.component import Context, Middleware, middleware
from sluiceway.pipeline.model.exchange import Decision, Exchange, Service
from sluiceway.pipeline.model.figures import Distribution, Figure
from sluiceway.pipeline.model.options import Duration, option
from sluiceway.pipeline.model.order import Order
from sluiceway.pipeline.protocol.mcp import METHODS, Kind
from sluiceway.pipeline.protocol.messages import Reply, Result
from sluiceway.pipeline.telemetry.metrics import LATENCIES_S, Histogram
from sluiceway.pipeline.telemetry.outcomes import End, Outcome, end_of

OTHER: Final = "other"
"""The label of whatever has none of its own."""
MAX_ERRORS: Final = 64
MAX_SCHEMES: Final = 16
MAX_DECISIONS: Final = 512
"""Labels kept: of errors per method, of schemes, of decisions."""

_SCHEME: Final = re.compile(r"([a-z][a-z0-9+.\-]{0,31}):", re.IGNORECASE)
_K = TypeVar("_K", bound=Hashable)


@final
@define(eq=False)
class _Series:
    """How often something ended in which way, and how long it took."""

    latency: Histogram
    outcomes: dict[Outcome, int] = field(factory=lambda: dict.fromkeys(Outcome, 0))
    errors: dict[str, int] = field(factory=dict)

    def ends(self) -> Iterator[tuple[str, int]]:
        """The outcomes there were, and how often."""
        return ((outcome.value, count) for outcome, count in self.outcomes.items() if count)


@final
@middleware("metrics")
class Metrics(Middleware):
    """
    Count exchanges, for `/metrics` of the admin listener.

    * `mcp_requests_total` by method, source and outcome: `success`, `error` (the upstream's), `refused` (the
      gateway's), `timeout`, `cancelled`. A tool result with `isError` is an error.
    * `mcp_request_duration_seconds` by method and source; LISTEN exchanges are counted, and are no latencies.
      `mcp_tools_list_duration_seconds` and `mcp_tools_call_duration_seconds` are two of them under names of their own.
    * `mcp_tool_executions_total` and `mcp_tool_execution_duration_seconds` by tool, `mcp_resource_accesses_total` by
      scheme of the uri, `mcp_errors_total` by method and error, `mcp_requests_in_flight` by kind.
    * `sluiceway_stage_decisions_total`: what each stage further in decided.

    Labels that clients choose are bounded; what has no place any more is `other`. Histograms carry the id of a trace in
    each bucket where a `trace` stage stands in front, for scrapers that speak OpenMetrics.
    """

    reads_results = False
    role = "metrics"
    order = (
        Order("after", "trace", "info", "latencies in front of trace name no trace as an example"),
        *(
            Order("before", role, "info", f"what {role} refuses in front of it is not counted")
            for role in ("auth", "access", "rate_limit", "load_shed", "concurrency_limit")
        ),
    )

    @frozen
    class Config:
        """Options of `metrics`."""

        buckets: tuple[Duration, ...] = option(
            tuple(map(Duration, LATENCIES_S)),
            doc="Upper bounds of the buckets of latencies, rising.",
            example=["1ms", "10ms", "100ms", "1s", "10s"],
        )
        max_tools: int = option(
            200,
            ge=0,
            le=10_000,
            doc="Tools with a label of their own. The first half of them is for any name, the second for tools that "
            "have answered well, so that invented names cannot take all.",
        )

        def __attrs_post_init__(self) -> None:
            """Bounds must rise."""
            if list(self.buckets) != sorted(set(self.buckets)) or not all(bound > 0 for bound in self.buckets):
                raise ValueError("buckets: must be greater than zero and rise from each to the next")

    def __init__(self, config: Config, context: Context) -> None:
        super().__init__(config, context)
        self._bounds: tuple[float, ...] = config.buckets
        self._max_tools = config.max_tools
        owner = context.id.split(".")
        self._pipeline = owner[1] if owner[0] == "pipelines" and len(owner) > 1 else ".".join(owner[:2])
        self._clock = trio.current_time
        self._in_flight = dict.fromkeys(Kind, 0)
        self._methods: dict[tuple[str, str], _Series] = {}
        self._tools: dict[str, _Series] = {}
        self._schemes: dict[str, int] = {}
        self._decisions: dict[tuple[str, str], int] = {}

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Find the clock: asking it directly takes half the time of `trio.current_time`."""
        self._clock = trio.lowlevel.current_clock().current_time
        yield

    async def __call__(self, exchange: Exchange, call_next: Service) -> Reply:
        """Count around the inner chain. Never refuses, and passes everything through unchanged."""
        kind, decided = exchange.kind, len(exchange.link.decisions)
        self._in_flight[kind] += 1
        start = self._clock()
        reply: Reply | None = None
        try:
            reply = await call_next(exchange)
            return reply
        finally:
            self._in_flight[kind] -= 1
            self._count(exchange, reply, sys.exception() if reply is None else None, start)
            if len(exchange.link.decisions) > decided:
                self._count_decisions(exchange.link.decisions[decided:])

    def _count(self, exchange: Exchange, reply: Reply | None, error: BaseException | None, start: float) -> None:
        method, now = exchange.request.method, self._clock()
        series = self._methods.get((method, exchange.source)) or self._series(method, exchange.source)
        end = end_of(exchange, reply, error)
        series.outcomes[end.outcome] += 1
        trace = exchange.link.trace
        trace_id = trace.trace_id if trace is not None and trace.sampled else ""
        took = now - start
        bucket = bisect_left(self._bounds, took)
        if exchange.kind is Kind.CALL:
            series.latency.count(bucket, took, trace_id, now)
        if end.error:
            _add(series.errors, end.error, MAX_ERRORS, OTHER)
        if method == "tools/call":
            tool = self._tool(exchange.request.params.get("name"), reply, end)
            tool.outcomes[end.outcome] += 1
            tool.latency.count(bucket, took, trace_id, now)
        elif method == "resources/read":
            match = _SCHEME.match(str(exchange.request.params.get("uri")))
            _add(self._schemes, OTHER if match is None else match[1].lower(), MAX_SCHEMES, OTHER)

    def _series(self, method: str, source: str) -> _Series:
        known = method if method in METHODS else OTHER
        return self._methods.setdefault((known, source), _Series(Histogram(self._bounds)))

    def _tool(self, name: object, reply: Reply | None, end: End) -> _Series:
        """The series of a tool; that of all others if it has no place."""
        series = self._tools.get(name) if isinstance(name, str) else None
        if series is None:
            room = self._max_tools if isinstance(reply, Result) and not end.error else self._max_tools // 2
            taken = len(self._tools) - (OTHER in self._tools)
            shown = name if isinstance(name, str) and len(name) <= 128 and taken < room else OTHER
            series = self._tools.setdefault(shown, _Series(Histogram(self._bounds)))
        return series

    def _count_decisions(self, decisions: Iterable[Decision]) -> None:
        counts = self._decisions
        for decision in decisions:
            key = decision.stage, decision.outcome
            if key in counts:
                counts[key] += 1
            else:
                _add(counts, key, MAX_DECISIONS, (OTHER, OTHER))

    def figures(self) -> Iterator[Figure | Distribution]:
        """Everything counted so far."""
        pipeline = {"pipeline": self._pipeline}
        epoch = self.context.now() - trio.current_time()
        for (method, source), series in self._methods.items():
            yield from _of_method({"method": method, "source": source, **pipeline}, series, epoch)
        for tool, series in self._tools.items():
            labels = {"tool": tool, **pipeline}
            for outcome, count in series.ends():
                shown = {**labels, "outcome": outcome}
                yield Figure("mcp_tool_executions_total", count, "counter", "Calls of tools.", shown)
            text = "How long calls of a tool took."
            yield series.latency.sample("mcp_tool_execution_duration_seconds", text, labels, epoch)
        for scheme, count in self._schemes.items():
            labels = {"scheme": scheme, **pipeline}
            yield Figure("mcp_resource_accesses_total", count, "counter", "Resources read.", labels)
        for (stage, outcome), count in self._decisions.items():
            labels = {"stage": stage, "outcome": outcome, **pipeline}
            yield Figure("stage_decisions_total", count, "counter", "What stages decided.", labels)
        for kind, count in self._in_flight.items():
            labels = {"kind": kind.value, **pipeline}
            yield Figure("mcp_requests_in_flight", count, "gauge", "Exchanges under way.", labels)


def _of_method(labels: dict[str, str], series: _Series, epoch: float) -> Iterator[Figure | Distribution]:
    for outcome, count in series.ends():
        shown = {**labels, "outcome": outcome}
        yield Figure("mcp_requests_total", count, "counter", "Exchanges that ended.", shown)
    for error, count in series.errors.items():
        yield Figure("mcp_errors_total", count, "counter", "Exchanges that failed.", {**labels, "error": error})
    if not any(series.latency.counts):
        return
    text = "How long exchanges took, from this stage to their reply."
    yield series.latency.sample("mcp_request_duration_seconds", text, labels, epoch)
    rest = {name: value for name, value in labels.items() if name != "method"}
    if labels["method"] in ("tools/list", "tools/call"):
        name = f"mcp_{labels['method'].replace('/', '_')}_duration_seconds"
        yield series.latency.sample(name, f"How long {labels['method']} took.", rest, epoch)


def _add(counts: dict[_K, int], key: _K, maximum: int, other: _K) -> None:
    """Count a key, or all others if it is new and there is no place."""
    if key not in counts and len(counts) >= maximum:
        key = other
    counts[key] = counts.get(key, 0) + 1
