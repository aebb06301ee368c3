"""
`trace`: where an exchange belongs in a distributed trace, and spans for those that are sampled.

The context travels in `_meta` (SEP-414), so there is one trace over stdio as well, and in headers where there are any.
What is not sampled makes no span, and still carries a valid context to the upstream.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, Literal, final

from attrs import evolve, frozen
from msgspec.structs import replace

from sluiceway.pipeline.model.component import Context, Middleware, middleware
from sluiceway.pipeline.model.exchange import Exchange, Service
from sluiceway.pipeline.model.figures import Figure
from sluiceway.pipeline.model.options import Ratio, option
from sluiceway.pipeline.model.order import Order
from sluiceway.pipeline.protocol.mcp import MetaKey
from sluiceway.pipeline.protocol.messages import Reply
from sluiceway.pipeline.protocol.splice import with_label, with_meta
from sluiceway.pipeline.protocol.trace_context import RANDOM, TraceContext, baggage_in, context_in

from .trace_export import Exporter, Otlp, open_exporter

if TYPE_CHECKING:
    from sluiceway.pipeline.telemetry.recorder import Recorder
    from sluiceway.pipeline.telemetry.spans import Span
    from sluiceway.pipeline.telemetry.tracer import Tracer

Key = Literal["traceparent", "tracestate", "baggage"]
_PARENT: Final = MetaKey.TRACEPARENT.value
_STATE: Final = MetaKey.TRACESTATE.value
_BAGGAGE: Final = MetaKey.BAGGAGE.value
_LABELS: Final = frozenset({_PARENT, _STATE, _BAGGAGE})


@final
@middleware("trace")
class Trace(Middleware):
    """
    Continue or begin the trace of every exchange, and record spans of a share of them.

    * A span for the exchange, and one for each attempt below it: a `retry` or `hedge` shows as several. Each ends when
      its part ends, with reply, error or cancellation, however long it streamed.
    * Names and attributes are those of OpenTelemetry's conventions for MCP (`mcp.method.name`, `gen_ai.tool.name`,
      `jsonrpc.request.id`, ...); arguments and results are never in a span.
    * The context comes from `_meta` (`traceparent`, `tracestate`), else from the headers of those names. Upstreams get
      that of their attempt's span in `_meta`; an `http` sink mirrors it in headers.
    * An incoming decision is respected: what the client samples is recorded, what it does not is not. From clients you
      do not trust, take `incoming: restart`; they can otherwise have everything recorded.
    * `baggage` is text that clients choose and that goes to whoever is upstream. It is removed unless `propagate`
      names it.
    * LISTEN exchanges have spans that say so (`sluiceway.kind`): how long somebody listened is no latency.

    The latest spans are shown by the admin listener (`/-/traces`). `otlp` exports them as well; it needs
    `pip install "sluiceway[otel]"`.
    """

    reads_results = False
    role = "trace"
    order = (Order("first", "", "info", "refusals of stages in front of it have no span"),)

    @frozen
    class Config:
        """Options of `trace`."""

        sample: Ratio = option(
            Ratio(1.0), ge=0, le=1, doc="Share of the traces begun here that are recorded.", example="10%"
        )
        incoming: Literal["continue", "restart"] = option(
            "continue",
            doc="Whether a client's trace is continued, or a new one is begun that names the client's as a link.",
        )
        propagate: tuple[Key, ...] = option(
            ("traceparent", "tracestate"), doc="What upstreams get of a trace's context; the rest is removed."
        )
        stages: bool = option(False, doc="Whether every stage further in has a span of its own.")
        keep: int = option(256, ge=0, le=100_000, doc="Finished spans kept to be shown by the admin listener.")
        otlp: Otlp | None = option(
            None,
            doc="Where spans are exported to, over OTLP/HTTP; nowhere without it.",
            example={"endpoint": "http://127.0.0.1:4318/v1/traces"},
        )

    @classmethod
    def sees_stages(cls, config: Config) -> bool:
        """With `stages`."""
        return config.stages

    def __init__(self, config: Config, context: Context) -> None:
        super().__init__(config, context)
        self._sample: float = config.sample
        self._continues = config.incoming == "continue"
        self._parent = _PARENT in config.propagate
        self._state = self._parent and _STATE in config.propagate
        self._baggage = _BAGGAGE in config.propagate
        self._plain = self._parent and not self._baggage
        self._ring: deque[Span] = deque(maxlen=config.keep)
        self._export: Exporter | None = None
        self._recorded = 0
        self._passed = 0
        self._tracer: Tracer
        self._spans: Recorder

    @classmethod
    def secluded(cls, config: Any) -> Any:
        """Nothing is exported."""
        return evolve(config, otlp=None)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """
        Start the exporter, if there is one; flush it at the end.

        Raises:
            LookupError: A header's secret cannot be read.
            ModuleNotFoundError: `otlp` needs the extra.
        """
        from sluiceway.pipeline.telemetry.recorder import Recorder  # OpenTelemetry costs more to import than a check
        from sluiceway.pipeline.telemetry.spans import Timeline
        from sluiceway.pipeline.telemetry.tracer import Tracer

        self._tracer = Tracer(Timeline.start(), self.context.random, self._ended)
        self._spans = Recorder(self._tracer, self._carrying, stages=self.config.stages)
        if self.config.otlp is None:
            yield
            return
        async with open_exporter(self.config.otlp, self.context.log) as self._export:
            try:
                yield
            finally:
                self._export = None

    def __call__(self, exchange: Exchange, call_next: Service) -> Awaitable[Reply]:
        """Carry the context on; record what is sampled. Never refuses."""
        link = exchange.link
        parent, theirs = link.trace, None
        if parent is None and (_PARENT in exchange.request.meta or _PARENT in exchange.client.headers):
            theirs = context_in(exchange.request.meta) or context_in(exchange.client.headers)
            parent = theirs if self._continues else None
        if (self._sample and self._draws()) if parent is None else parent.sampled:
            return self._spans.exchange(exchange, call_next, parent, None if self._continues else theirs)
        if link.trace is None:
            self._passed += 1
            link.trace = parent or self._tracer.new_context(RANDOM)
        if exchange.around_sink is None:
            exchange = replace(exchange, around_sink=self._carry)
        return call_next(exchange)

    def recent_spans(self) -> Iterable[Span]:
        """The spans that ended lately, latest last."""
        return tuple(self._ring)

    def figures(self) -> Iterable[Figure]:
        """What was recorded, what was not, and what an exporter lost."""
        yield Figure("trace_spans_total", self._recorded, "counter", "Spans recorded.")
        yield Figure("trace_unsampled_total", self._passed, "counter", "Exchanges that were not sampled.")
        if self._export is not None:
            yield from self._export.figures()

    def _draws(self) -> bool:
        """Whether a trace that begins here is one of those that are recorded."""
        return self._sample >= 1 or self.context.random.random() < self._sample

    def _carry(self, _sink: str, exchange: Exchange, sink: Service) -> Awaitable[Reply]:
        """Send an exchange that is not sampled on with its context; an `Around`."""
        context = exchange.link.trace
        if context is None:
            return sink(exchange)
        if self._plain and not context.state and _LABELS.isdisjoint(exchange.request.meta):
            return sink(exchange.with_request(with_label(exchange.request, _PARENT, context.traceparent)))
        return sink(self._carrying(exchange, context))

    def _carrying(self, exchange: Exchange, context: TraceContext) -> Exchange:
        """The exchange with what upstreams may know of its trace."""
        meta = exchange.request.meta
        changes: dict[str, str | None] = {_PARENT: context.traceparent if self._parent else None}
        if context.state or _STATE in meta:
            changes[_STATE] = (context.state or None) if self._state else None
        if self._baggage or _BAGGAGE in meta:
            changes[_BAGGAGE] = self._baggage_of(exchange) if self._baggage else None
        request = with_meta(exchange.request, changes)
        return exchange if request is exchange.request else exchange.with_request(request)

    def _baggage_of(self, exchange: Exchange) -> str | None:
        return baggage_in(exchange.request.meta) or baggage_in(exchange.client.headers) or None

    def _ended(self, span: Span) -> None:
        self._recorded += 1
        self._ring.append(span)
        if self._export is not None:
            self._export.put(span)
