"""
`metrics`: what passes, how it ends and how long it takes, as series for Prometheus.

Counting is a few additions to plain numbers; names and formats are made when somebody looks. No label is ever a caller,
and none that clients can choose grows beyond its bound.
"""

from __future__ import annotations

import re
import sys
from bisect import bisect_left
from collections import Counter
from collections.abc import AsyncIterator, Callable, Hashable, Iterator
from contextlib import asynccontextmanager
from operator import attrgetter
from typing import Final, TypeAlias, TypeVar, final

import trio
from attrs import frozen

from sluiceway.pipeline.model.component import Context, Middleware, middleware
from sluiceway.pipeline.model.exchange import Decision, Exchange, Service
from sluiceway.pipeline.model.figures import Distribution, Figure
from sluiceway.pipeline.model.options import Duration, option
from sluiceway.pipeline.model.order import Order
from sluiceway.pipeline.protocol.mcp import METHODS, Kind
from sluiceway.pipeline.protocol.messages import Reply, Result
from sluiceway.pipeline.protocol.trace_context import SAMPLED
from sluiceway.pipeline.telemetry.metrics import LATENCIES_S
from sluiceway.pipeline.telemetry.outcomes import end_of

from .metrics_series import MAX_ERRORS, OTHER, Series, count_up

MAX_SCHEMES: Final = 16
MAX_DECISIONS: Final = 512
"""Labels kept: of schemes, of decisions."""

MAX_CHARS: Final = 128
"""Characters that the name of a tool with a label has at most."""
_BATCH: Final = 64
"""Decisions that are gathered before they are counted: together, that takes a tenth of the time."""
_IS_CALL: Final = Kind.CALL
_CALL: Final = "tools/call"
_READ: Final = "resources/read"
_label_of: Final = attrgetter("stage", "outcome")
_SCHEME: Final = re.compile(r"([a-z][a-z0-9+.\-]{0,31}):", re.IGNORECASE)
_K = TypeVar("_K", bound=Hashable)
_Key: TypeAlias = tuple[str, str, str | None]


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
        self._series: dict[_Key, Series] = {}
        """By method, source and what is told apart of a method: each exchange is counted once, and figures add up."""
        self._tools: set[str] = set()
        self._schemes: set[str] = set()
        """Those that have a label."""
        self._decisions: dict[tuple[str, str], int] = {}
        self._uncounted: list[Decision] = []

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Find the clock: asking it directly takes half the time of `trio.current_time`."""
        self._clock = trio.lowlevel.current_clock().current_time
        yield

    async def __call__(self, exchange: Exchange, call_next: Service) -> Reply:
        """Count around the inner chain. Never refuses, and passes everything through unchanged."""
        under_way, decisions = self._under_way, exchange.link.decisions
        decided = len(decisions)
        under_way.add(exchange)
        start = self._clock()
        reply: Reply | None = None
        try:
            reply = await call_next(exchange)
            return reply
        finally:
            under_way.discard(exchange)
            self._count(exchange, reply, self._clock() - start)
            uncounted = self._uncounted
            uncounted += decisions[decided:] if decided else decisions
            if len(uncounted) >= _BATCH:
                self._count_decisions()

    def _count(self, exchange: Exchange, reply: Reply | None, took: float) -> None:
        """Count one that has ended."""
        request, trace = exchange.request, exchange.link.trace
        method = request.method
        part = None
        if method == _CALL:
            part = request.target or OTHER
        elif method == _READ:
            part = _scheme_of(request.target)
        series = self._series.get((method, exchange.source, part))
        if (
            series is not None
            and type(reply) is Result
            and (part is None or b'"isError"' not in reply.raw)
            and exchange.kind is _IS_CALL
            and (trace is None or not trace.flags & SAMPLED)
        ):  # nearly all of them
            smooth = series.smooth  # `Histogram.observe`, without a call
            smooth.counts[bisect_left(smooth.bounds, took)] += 1
            smooth.total += took
        else:
            self._count_apart(exchange, reply, took, part)

    def _count_apart(self, exchange: Exchange, reply: Reply | None, took: float, part: str | None) -> None:
        """Count one that is the first of its kind, did not go well, took any time it liked, or is an example."""
        end = end_of(exchange, reply, sys.exception() if reply is None else None)
        method = exchange.request.method
        if part is not None:
            part = self._label(method, part, good=type(reply) is Result and not end.error)
        key = method if method in METHODS else OTHER, exchange.source, part
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = Series(self._bounds)
        series.outcomes[end.outcome] += 1
        if end.error:
            count_up(series.errors, end.error, MAX_ERRORS, OTHER)
        if exchange.kind is _IS_CALL:
            trace = exchange.link.trace
            trace_id = trace.trace_id if trace is not None and trace.sampled else ""
            series.other.observe(took, trace_id, self._clock())

    def _label(self, method: str, part: str, *, good: bool) -> str:
        """The label of a tool or scheme; that of all others if it has no place."""
        if method == _READ:
            known, room = self._schemes, MAX_SCHEMES - 1
        else:
            known, room = self._tools, self._max_tools if good else self._max_tools // 2
        if part not in known:
            if part == OTHER or len(part) > MAX_CHARS or len(known) >= room:
                return OTHER
            known.add(part)
        return part

    def _count_decisions(self) -> None:
        """Count what was gathered."""
        for key, count in Counter(map(_label_of, self._uncounted)).items():
            count_up(self._decisions, key, MAX_DECISIONS, (OTHER, OTHER), count)
        self._uncounted.clear()

    def figures(self) -> Iterator[Figure | Distribution]:
        """Everything counted so far."""
        pipeline = {"pipeline": self._pipeline}
        epoch = self.context.now() - trio.current_time()
        for (method, source), series in self._summed(lambda key: key[:2]).items():
            yield from series.of_method({"method": method, "source": source, **pipeline}, epoch)
        for (method, part), series in self._summed(lambda key: (key[0], key[2])).items():
            if method == _CALL and part is not None:
                yield from series.of_tool({"tool": part, **pipeline}, epoch)
            elif part is not None:
                yield series.of_scheme({"scheme": part, **pipeline})
        self._count_decisions()
        for (stage, outcome), count in self._decisions.items():
            labels = {"stage": stage, "outcome": outcome, **pipeline}
            yield Figure("stage_decisions_total", count, "counter", "What stages decided.", labels)
        kinds = Counter(exchange.kind for exchange in self._under_way)
        for kind in Kind:
            labels = {"kind": kind.value, **pipeline}
            yield Figure("mcp_requests_in_flight", kinds[kind], "gauge", "Exchanges under way.", labels)

    def _summed(self, part: Callable[[_Key], _K]) -> dict[_K, Series]:
        """The series, added up by a part of their keys."""
        sums: dict[_K, Series] = {}
        for key, series in self._series.items():
            name = part(key)
            if name not in sums:
                sums[name] = Series(self._bounds)
            sums[name].add(series)
        return sums


def _scheme_of(uri: str | None) -> str:
    match = _SCHEME.match(uri or "")
    return OTHER if match is None else match[1].lower()
