"""
Spans of our own behind the OpenTelemetry API.

The API is what everybody speaks: code inside an embedded server finds the current span with it and makes children. Its
SDK is not needed to record: a span here is a plain object with bounds, made in some microseconds, timed by the Trio
clock and numbered by the injected randomness, so that a test or a replay yields the same trace again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Final, final

import trio
from attrs import frozen
from opentelemetry import trace as api
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState
from opentelemetry.util.types import Attributes, AttributeValue

from ..protocol.messages import Json
from ..protocol.trace_context import TraceContext
from .redaction import MASK, Redaction, clip

MAX_ATTRIBUTES: Final = 64
MAX_EVENTS: Final = 32
MAX_LINKS: Final = 8
"""What one span keeps; further ones are counted and dropped."""

_hides: Final = lru_cache(maxsize=1024)(Redaction().hides)


@final
@frozen
class Event:
    """Something that happened during a span."""

    name: str
    at_ns: int
    """Nanoseconds since the epoch."""
    attributes: Mapping[str, AttributeValue]


@final
@frozen
class Timeline:
    """Turns the Trio clock into wall-clock time: one look at the wall clock, so that no span jumps with it."""

    offset_ns: int

    @classmethod
    def start(cls) -> Timeline:
        """The timeline of a component that opens now."""
        return cls(time.time_ns() - round(trio.current_time() * 1e9))

    def now(self) -> int:
        """Nanoseconds since the epoch."""
        return self.offset_ns + int(trio.current_time() * 1e9)


@final
class Span(api.Span):
    """
    A span that records; `end` hands it over. Values of keys that look secret are masked, long texts are cut.

    Set what is known at once in `Tracer.start_span`: it is cheaper.
    """

    def __init__(
        self,
        name: str,
        context: TraceContext,
        parent: TraceContext | None,
        kind: SpanKind,
        timeline: Timeline,
        on_end: Callable[[Span], None],
    ) -> None:
        self.name = name
        self.context = context
        self.parent = parent
        self.kind = kind
        self.attributes: dict[str, AttributeValue] = {}
        self.events: list[Event] = []
        self.links: list[api.Link] = []
        self.status = StatusCode.UNSET
        self.description: str | None = None
        """What went wrong, if `status` says so."""
        self.start_ns = timeline.now()
        self.end_ns: int | None = None
        self.dropped = 0
        """Attributes, events and links over the bounds."""
        self._timeline = timeline
        self._on_end = on_end
        self._context: SpanContext | None = None

    def get_span_context(self) -> SpanContext:
        """See the OpenTelemetry API, as for everything below."""
        if self._context is None:
            self._context = span_context(self.context, is_remote=False)
        return self._context

    def is_recording(self) -> bool:
        """Until it has ended."""
        return self.end_ns is None

    def set_attribute(self, key: str, value: AttributeValue) -> None:
        """Set one attribute."""
        if self.end_ns is not None:
            return
        if len(self.attributes) >= MAX_ATTRIBUTES and key not in self.attributes:
            self.dropped += 1
            return
        self.attributes[clip(key)] = _fit(key, value)

    def set_attributes(self, attributes: Mapping[str, AttributeValue]) -> None:
        """Set several."""
        for key, value in attributes.items():
            self.set_attribute(key, value)

    def add_event(self, name: str, attributes: Attributes = None, timestamp: int | None = None) -> None:
        """Note that something happened, now or at `timestamp` (nanoseconds since the epoch)."""
        if self.end_ns is not None:
            return
        if len(self.events) >= MAX_EVENTS:
            self.dropped += 1
            return
        shown = {clip(key): _fit(key, value) for key, value in (attributes or {}).items()}
        self.events.append(Event(clip(name), self._timeline.now() if timestamp is None else timestamp, shown))

    def add_link(self, context: SpanContext, attributes: Attributes = None) -> None:
        """Name another span that this one has to do with."""
        if len(self.links) < MAX_LINKS:
            self.links.append(api.Link(context, attributes))
        else:
            self.dropped += 1

    def update_name(self, name: str) -> None:
        """Rename it."""
        self.name = clip(name)

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        """What was set to OK stays OK."""
        if self.end_ns is not None or self.status is StatusCode.OK:
            return
        code = status
        if isinstance(status, Status):
            code, description = status.status_code, status.description
        assert isinstance(code, StatusCode)
        self.status = code
        self.description = clip(description) if description and code is StatusCode.ERROR else None

    def record_exception(
        self,
        exception: BaseException,
        attributes: Attributes = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        """An event `exception`, with type and message; a traceback would show paths, and is in the log."""
        shown: dict[str, AttributeValue] = {
            "exception.type": type(exception).__name__,
            "exception.message": str(exception),
        }
        if escaped:
            shown["exception.escaped"] = True
        self.add_event("exception", {**shown, **(attributes or {})}, timestamp)

    def end(self, end_time: int | None = None) -> None:
        """Hand it over; once."""
        if self.end_ns is None:
            self.end_ns = self._timeline.now() if end_time is None else end_time
            self._on_end(self)

    def as_json(self) -> dict[str, Json]:
        """What people are shown."""
        end = self.start_ns if self.end_ns is None else self.end_ns
        return {
            "trace_id": self.context.trace_id,
            "span_id": self.context.span_id,
            "parent_id": None if self.parent is None else self.parent.span_id,
            "name": self.name,
            "kind": self.kind.name.lower(),
            "start_ns": self.start_ns,
            "duration_ms": round((end - self.start_ns) / 1e6, 3),
            "status": self.status.name.lower(),
            "description": self.description,
            "attributes": dict(self.attributes),
            "events": [{"name": e.name, "at_ns": e.at_ns, "attributes": dict(e.attributes)} for e in self.events],
            "links": [f"{link.context.trace_id:032x}" for link in self.links],
        }


def span_context(context: TraceContext, *, is_remote: bool) -> SpanContext:
    """Ours, as the API has it."""
    members = [member.partition("=") for member in context.state.split(",") if member]
    return SpanContext(
        int(context.trace_id, 16),
        int(context.span_id, 16),
        is_remote,
        TraceFlags(context.flags),
        TraceState([(key, value) for key, _, value in members]),
    )


def _fit(key: str, value: AttributeValue) -> AttributeValue:
    if isinstance(value, str):
        return MASK if _hides(key) else clip(value)
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [clip(item) if isinstance(item, str) else item for item in value[:MAX_ATTRIBUTES]]
    return value
