"""
`metrics`: what passes, how it ends and how long it takes, as series for Prometheus.

Counting is a few additions to plain numbers; names and formats are made when somebody looks. No label is ever a caller,
and none that clients can choose grows beyond its bound.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Hashable, Iterator
from contextlib import asynccontextmanager
from operator import attrgetter
from typing import Final, TypeAlias, TypeVar, final

import trio
from attrs import define, field, frozen

from sluiceway.pipeline.model.component import Context, Middleware, middleware
from sluiceway.pipeline.model.exchange import Decision, Exchange, Service
from sluiceway.pipeline.model.figures import Distribution, Figure
from sluiceway.pipeline.model.options import Duration, option
from sluiceway.pipeline.model.order import Order
from sluiceway.pipeline.protocol.mcp import METHODS, Kind
from sluiceway.pipeline.protocol.messages import Reply, Result
from sluiceway.pipeline.protocol.trace_context import SAMPLED
from sluiceway.pipeline.telemetry.metrics import LATENCIES_S, Histogram
from sluiceway.pipeline.telemetry.outcomes import SUCCESS, Outcome, end_of, is_tool_error

OTHER: Final = "other"
"""The label of whatever has none of its own."""
MAX_ERRORS: Final = 64
MAX_SCHEMES: Final = 16
MAX_DECISIONS: Final = 512
"""Labels kept: of errors per method, of schemes, of decisions."""

_BATCH: Final = 256
"""Decisions that are gathered before they are counted: together, that takes a tenth of the time."""
_CALL: Final = Kind.CALL
_TOOLS_CALL: Final = "tools/call"
_label_of: Final = attrgetter("stage", "outcome")
_SCHEME: Final = re.compile(r"([a-z][a-z0-9+.\-]{0,31}):", re.IGNORECASE)
_K = TypeVar("_K", bound=Hashable)
_Key: TypeAlias = tuple[str, str, str | None]


@final
@define(eq=False)
class _Series:
    """How often something ended in which way, and how long it took."""

    latency: Histogram
    outcomes: dict[Outcome, int] = field(factory=lambda: dict.fromkeys(Outcome, 0))
    errors: dict[str, int] = field(factory=dict)

    def add(self, other: _Series) -> None:
        """Count what another one counted."""
        self.latency.add(other.latency)
        for outcome, count in other.outcomes.items():
            self.outcomes[outcome] += count
        for error, count in other.errors.items():
            _add(self.errors, error, MAX_ERRORS, OTHER, count)

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
        self._under_way: set[Exchange] = set()
        """Exchanges inside."""
        self._series: dict[_Key, _Series] = {}
        """By method, source and, for `tools/call`, tool: each exchange is counted once, and figures add up."""
        self._tools: set[str] = set()
        """Tools that have a label."""
        self._schemes: dict[str, int] = {}
        self._decisions: dict[tuple[str, str], int] = {}
        self._uncounted: list[Decision] = []

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Find the clock: asking it directly takes half the time of `trio.current_time`."""
        self._clock = trio.lowlevel.current_clock().current_time
        yield

    async def __call__(self, exchange: Exchange, call_next: Service) -> Reply:
        """Count around the inner chain. Never refuses, and passes everything through unchanged."""
        under_way, decided = self._under_way, len(exchange.link.decisions)
        under_way.add(exchange)
        start = self._clock()
        reply: Reply | None = None
        try:
            reply = await call_next(exchange)
            return reply
        finally:
            under_way.discard(exchange)
            self._count(exchange, reply, start, decided)

    def _count(self, exchange: Exchange, reply: Reply | None, start: float, decided: int) -> None:
        """Count one that has ended; `decided` is how many decisions there were when it came."""
        now, request, link = self._clock(), exchange.request, exchange.link
        method = request.method
        tool = (request.target or OTHER) if method == _TOOLS_CALL else None
        if type(reply) is Result and (tool is None or not is_tool_error(reply)):
            end = SUCCESS
        else:
            end = end_of(exchange, reply, sys.exception() if reply is None else None)
        series = self._series.get((method, exchange.source, tool))
        if series is None:
            good = type(reply) is Result and not end.error
            series = self._series_of(method, exchange.source, None if tool is None else self._label(tool, good=good))
        series.outcomes[end.outcome] += 1
        if end.error:
            _add(series.errors, end.error, MAX_ERRORS, OTHER)
        if exchange.kind is _CALL:
            trace = link.trace
            trace_id = trace.trace_id if trace is not None and trace.flags & SAMPLED else ""
            series.latency.observe(now - start, trace_id, now)
        if method == "resources/read":
            match = _SCHEME.match(str(request.params.get("uri")))
            _add(self._schemes, OTHER if match is None else match[1].lower(), MAX_SCHEMES, OTHER)
        uncounted = self._uncounted
        uncounted += link.decisions[decided:] if decided else link.decisions
        if len(uncounted) >= _BATCH:
            self._count_decisions()

    def _series_of(self, method: str, source: str, tool: str | None) -> _Series:
        key = method if method in METHODS else OTHER, source, tool
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = _Series(Histogram(self._bounds))
        return series

    def _label(self, tool: str, *, good: bool) -> str:
        """The label of a tool; that of all others if it has no place."""
        if tool not in self._tools:
            room = self._max_tools if good else self._max_tools // 2
            if tool == OTHER or len(tool) > 128 or len(self._tools) >= room:
                return OTHER
            self._tools.add(tool)
        return tool

    def _count_decisions(self) -> None:
        """Count what was gathered."""
        for key, count in Counter(map(_label_of, self._uncounted)).items():
            _add(self._decisions, key, MAX_DECISIONS, (OTHER, OTHER), count)
        self._uncounted.clear()

    def figures(self) -> Iterator[Figure | Distribution]:
        """Everything counted so far."""
        pipeline = {"pipeline": self._pipeline}
        epoch = self.context.now() - trio.current_time()
        for (method, source), series in self._summed(lambda key: key[:2]).items():
            yield from _of_method({"method": method, "source": source, **pipeline}, series, epoch)
        for (tool,), series in self._summed(lambda key: key[2:]).items():
            if tool is not None:
                yield from _of_tool({"tool": tool, **pipeline}, series, epoch)
        for scheme, count in self._schemes.items():
            labels = {"scheme": scheme, **pipeline}
            yield Figure("mcp_resource_accesses_total", count, "counter", "Resources read.", labels)
        self._count_decisions()
        for (stage, outcome), count in self._decisions.items():
            labels = {"stage": stage, "outcome": outcome, **pipeline}
            yield Figure("stage_decisions_total", count, "counter", "What stages decided.", labels)
        kinds = Counter(exchange.kind for exchange in self._under_way)
        for kind in Kind:
            labels = {"kind": kind.value, **pipeline}
            yield Figure("mcp_requests_in_flight", kinds[kind], "gauge", "Exchanges under way.", labels)

    def _summed(self, part: Callable[[_Key], _K]) -> dict[_K, _Series]:
        """The series, added up by a part of their keys."""
        sums: dict[_K, _Series] = {}
        for key, series in self._series.items():
            name = part(key)
            if name not in sums:
                sums[name] = _Series(Histogram(self._bounds))
            sums[name].add(series)
        return sums


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


def _of_tool(labels: dict[str, str], series: _Series, epoch: float) -> Iterator[Figure | Distribution]:
    for outcome, count in series.ends():
        yield Figure("mcp_tool_executions_total", count, "counter", "Calls of tools.", {**labels, "outcome": outcome})
    yield series.latency.sample("mcp_tool_execution_duration_seconds", "How long calls of a tool took.", labels, epoch)


def _add(counts: dict[_K, int], key: _K, maximum: int, other: _K, count: int = 1) -> None:
    """Count a key, or all others if it is new and there is no place."""
    if key not in counts and len(counts) >= maximum:
        key = other
    counts[key] = counts.get(key, 0) + count
