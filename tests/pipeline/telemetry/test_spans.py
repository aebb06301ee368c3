"""Spans behind the OpenTelemetry API: bounded, masked, and once ended, ended."""

from __future__ import annotations

import random

import pytest
import trio
from opentelemetry import trace as api
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from sluiceway.pipeline.protocol.trace_context import SAMPLED, TraceContext
from sluiceway.pipeline.telemetry.redaction import MASK
from sluiceway.pipeline.telemetry.spans import (
    MAX_ATTRIBUTES,
    MAX_EVENTS,
    MAX_LINKS,
    Span,
    Timeline,
    span_context,
)
from sluiceway.pipeline.telemetry.tracer import KeepsSpans, Tracer, current_context

REMOTE = SpanContext(1, 2, True, TraceFlags(1), TraceState([("a", "1")]))


def _tracer() -> Tracer:
    ended: list[Span] = []
    tracer = Tracer(Timeline.start(), random.Random(0), ended.append)
    tracer.ended = ended  # type: ignore[attr-defined]  # for these tests
    return tracer


async def test_time_is_the_trio_clocks_on_the_wall(autojump_clock):
    """A wall clock that jumps moves no span."""
    tracer = _tracer()
    span = tracer.start_span("x")
    assert isinstance(span, Span)
    await trio.sleep(1.5)
    span.end()

    assert span.start_ns > 1_700_000_000 * 10**9
    assert span.as_json()["duration_ms"] == 1500.0
    assert tracer.ended == [span]  # type: ignore[attr-defined]  # see above


async def test_what_has_ended_stays_as_it_is(autojump_clock):
    """And is handed over once."""
    tracer = _tracer()
    span = tracer.start_span("x")
    assert isinstance(span, Span)
    recording = span.is_recording()
    span.end()
    span.set_attribute("late", 1)
    span.add_event("late")
    span.set_status(StatusCode.ERROR, "late")
    span.end()

    assert recording
    assert not span.is_recording()
    assert (span.attributes, span.events, span.status) == ({}, [], StatusCode.UNSET)
    assert tracer.ended == [span]  # type: ignore[attr-defined]  # see above


async def test_nothing_secret_or_endless_gets_in(autojump_clock):
    """Whoever sets it."""
    span = _tracer().start_span("n" * 1000, attributes={"api_key": "s3cret", "list": ["x" * 1000, 1]})
    assert isinstance(span, Span)
    span.set_attributes({"text": "x" * 1000, "n": 1, "cookie": "s3cret", "user_token_count": 7})
    span.add_event("e" * 1000, {"password": "s3cret"})
    span.update_name("r" * 1000)
    shown = span.as_json()

    assert "s3cret" not in repr(shown)
    assert (shown["attributes"]["api_key"], shown["attributes"]["user_token_count"]) == (MASK, 7)
    assert max(map(len, (shown["name"], shown["attributes"]["text"], shown["attributes"]["list"][0]))) < 250
    assert len(shown["events"][0]["name"]) < 250


async def test_there_is_room_for_so_much(autojump_clock):
    """What does not fit is counted; what is there can be replaced."""
    span = _tracer().start_span("x", links=[api.Link(REMOTE)])
    assert isinstance(span, Span)
    for n in range(MAX_ATTRIBUTES + 2):
        span.set_attribute(f"a{n}", n)
    span.set_attribute("a0", "new")
    for _ in range(MAX_EVENTS + 3):
        span.add_event("e", timestamp=7)
    for _ in range(MAX_LINKS + 4):
        span.add_link(REMOTE)

    assert (len(span.attributes), len(span.events), len(span.links)) == (MAX_ATTRIBUTES, MAX_EVENTS, MAX_LINKS)
    assert span.dropped == 2 + 3 + 5
    assert span.attributes["a0"] == "new"
    assert span.events[0].at_ns == 7
    assert span.as_json()["links"] == [f"{1:032x}"] * MAX_LINKS


async def test_a_status_is_an_error_until_somebody_says_it_is_none(autojump_clock):
    """As the API asks: OK is final, and only errors have a description."""
    span = _tracer().start_span("x")
    assert isinstance(span, Span)
    span.set_status(Status(StatusCode.ERROR, "why"))
    failed = span.status, span.description
    span.set_status(StatusCode.OK, "ignored")
    span.set_status(StatusCode.ERROR, "too late")

    assert failed == (StatusCode.ERROR, "why")
    assert (span.status, span.description) == (StatusCode.OK, None)


async def test_an_exception_is_an_event(autojump_clock):
    """Without its traceback."""
    span = _tracer().start_span("x", start_time=5)
    assert isinstance(span, Span)
    span.record_exception(ValueError("wrong"), {"more": 1}, 9, escaped=True)
    span.end(8)

    assert span.events[0].attributes == {
        "exception.type": "ValueError",
        "exception.message": "wrong",
        "exception.escaped": True,
        "more": 1,
    }
    assert (span.start_ns, span.end_ns, span.events[0].at_ns) == (5, 8, 9)


async def test_a_span_that_has_not_ended_can_be_shown(autojump_clock):
    """It took no time yet."""
    span = _tracer().start_span("x", kind=SpanKind.CLIENT)
    assert isinstance(span, Span)

    assert (span.as_json()["duration_ms"], span.as_json()["kind"]) == (0.0, "client")


async def test_children_belong_to_the_current_span_or_to_a_context(autojump_clock):
    """Of ours and of other tracers; where there is none a trace begins."""
    tracer = _tracer()
    with tracer.start_as_current_span("parent") as parent:
        child = tracer.start_span("child")
        inside = current_context()
    foreign = tracer.start_span("other", api.set_span_in_context(api.NonRecordingSpan(REMOTE)))
    root = tracer.start_span("root")
    with tracer.start_as_current_span("kept open", end_on_exit=False) as kept:
        pass

    assert isinstance(child, Span)
    assert isinstance(foreign, Span)
    assert isinstance(root, Span)
    assert (child.parent, inside) == (parent.context, parent.context)
    assert foreign.parent == TraceContext(f"{1:032x}", f"{2:016x}", 1, "a=1")
    assert foreign.context.state == "a=1"
    assert (root.parent, root.context.sampled) == (None, True)
    assert not parent.is_recording()
    assert kept.is_recording()
    assert current_context() is None


async def test_an_error_in_a_current_span_is_recorded(autojump_clock):
    """By the API's own rule."""
    tracer = _tracer()
    with pytest.raises(ValueError, match="planted"), tracer.start_as_current_span("x") as span:
        raise ValueError("planted")

    assert [event.name for event in span.events] == ["exception"]
    assert span.status is StatusCode.ERROR


async def test_ids_come_from_the_injected_source(autojump_clock):
    """The same seed makes the same trace again."""
    one, other = [_tracer().new_context(SAMPLED) for _ in range(2)]

    assert one == other
    assert (len(one.trace_id), len(one.span_id)) == (32, 16)


async def test_the_apis_context_says_the_same(autojump_clock):
    """Made once, when somebody asks."""
    span = _tracer().start_span("x")
    assert isinstance(span, Span)
    context = span.get_span_context()

    assert context is span.get_span_context()
    assert (f"{context.trace_id:032x}", f"{context.span_id:016x}") == (span.context.trace_id, span.context.span_id)
    assert not context.is_remote
    assert span_context(TraceContext("a" * 32, "b" * 16, 1, "x=1,y=2"), is_remote=True).trace_state == {
        "x": "1",
        "y": "2",
    }


def test_who_keeps_spans_is_known_by_what_it_can_do():
    """Whatever stage it is."""

    class Keeper:
        def recent_spans(self) -> list[Span]:
            return []

    assert isinstance(Keeper(), KeepsSpans)
    assert not isinstance(object(), KeepsSpans)
