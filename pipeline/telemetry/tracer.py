"""Making spans: the OpenTelemetry API's tracer over spans of our own."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Protocol, final, runtime_checkable

from opentelemetry import trace as api
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind
from opentelemetry.util.types import Attributes, AttributeValue

from ..protocol.trace_context import RANDOM, SAMPLED, TraceContext
from .redaction import clip
from .spans import Span, Timeline

TRACER: Final = "mcp-server"
"""Name of the tracer, and of the instrumentation scope."""


_NEITHER_ZERO: Final = 1 << 191 | 1 << 63
"""
Ids that are all zeros are invalid (W3C Trace Context, section 3.2.2): their first bits are set. What has to be random
of a trace id, for others to sample by it, are its last seven bytes (level 2, section 3.2.2.5).
"""


@final
class Tracer(api.Tracer):
    """
    Makes spans.

    Args:
        timeline: Of whoever owns it.
        rng: Source of ids.
        on_end: Given every span that has ended; must not block.
    """

    def __init__(self, timeline: Timeline, rng: random.Random, on_end: Callable[[Span], None]) -> None:
        self._timeline = timeline
        self._random = rng
        self._on_end = on_end

    def new_context(self, flags: int) -> TraceContext:
        """The beginning of a trace."""
        digits = (self._random.getrandbits(192) | _NEITHER_ZERO).to_bytes(24, "big").hex()  # a third of what `x` takes
        return TraceContext(digits[:32], digits[32:], flags)

    def open_span(
        self, name: str, parent: TraceContext | None, kind: SpanKind, attributes: dict[str, AttributeValue]
    ) -> Span:
        """
        A span that has begun.

        Args:
            name: Short; from what clients cannot choose freely, or cut.
            parent: None makes it the root of a trace.
            kind: As in the API.
            attributes: Taken over as they are: fit to be shown, and not too many.
        """
        if parent is None:
            context = self.new_context(SAMPLED | RANDOM)
        else:
            span_id = f"{self._random.getrandbits(64) or 1:016x}"
            context = TraceContext(parent.trace_id, span_id, parent.flags | SAMPLED, parent.state)
        span = Span(name, context, parent, kind, self._timeline, self._on_end)
        span.attributes = attributes
        return span

    def start_span(
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes = None,
        links: Sequence[api.Link] | None = None,
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
    ) -> api.Span:
        """See the OpenTelemetry API: what code inside an embedded server uses."""
        span = self.open_span(clip(name), current_context(context), kind, {})
        span.set_attributes(attributes or {})
        for link in links or ():
            span.add_link(link.context, link.attributes)
        if start_time is not None:
            span.start_ns = start_time
        return span

    @contextmanager
    def start_as_current_span(self, name: str, *args: Any, end_on_exit: bool = True, **options: Any) -> Iterator[Any]:  # type: ignore[override]  # the API's is a class that is both decorator and context manager
        """See the OpenTelemetry API."""
        span = self.start_span(name, *args, **options)
        with api.use_span(span, end_on_exit=end_on_exit):
            yield span


@runtime_checkable
class KeepsSpans(Protocol):
    """A component that can show the spans that ended lately."""

    def recent_spans(self) -> Iterable[Span]:
        """Latest last."""
        ...


def current_context(context: Context | None = None) -> TraceContext | None:
    """Where the current span, or that of a context, stands; None if there is none."""
    span = api.get_current_span(context)
    if isinstance(span, Span):
        return span.context
    found = span.get_span_context()
    if not found.is_valid:
        return None
    return TraceContext(
        f"{found.trace_id:032x}", f"{found.span_id:016x}", int(found.trace_flags) & 3, found.trace_state.to_header()
    )
