"""Content-Type and Accept."""

from __future__ import annotations

import pytest

from sluiceway.transports.http_source.media import EVENTS, JSON, accepts, is_json, prefers_events


@pytest.mark.parametrize(
    ("content_type", "encoding", "good"),
    [
        ("application/json", None, True), ("Application/JSON; charset=UTF-8", None, True),
        ('application/json;charset="utf-8"; v=1', "identity", True), ("application/json", "Identity", True),
        (None, None, False), ("text/plain", None, False), ("application/json; charset=utf-16", None, False),
        ("application/jsonx", None, False), ("application/json", "gzip", False), ("", None, False),
        ("application/json, text/plain", None, False),
    ],
)  # fmt: skip
def test_bodies_are_plain_json_in_utf8(content_type, encoding, good):
    """Case 8: everything else is 415."""
    assert good is is_json(content_type, encoding)


@pytest.mark.parametrize(
    ("accept", "json", "events"),
    [
        ("application/json, text/event-stream", True, True), ("*/*", True, True), ("application/json", True, False),
        ("text/event-stream", False, True), ("application/*, text/*", True, True), ("text/html", False, False),
        ("", False, False), (None, False, False), ("application/json;q=0, */*", False, True),
        ("*/*;q=0, text/event-stream", False, True), ("TEXT/EVENT-STREAM ; q=0.5", False, True),
        ("text/event-stream;q=x", False, False), ("text/*;q=0, text/event-stream;v=1;q=1", False, True),
    ],
)  # fmt: skip
def test_accept(accept, json, events):
    """Names and wildcards, the most specific one first, and quality nought means no."""
    assert (json, events) == (accepts(accept, JSON), accepts(accept, EVENTS))


@pytest.mark.parametrize(
    ("accept", "events"),
    [
        ("application/json, text/event-stream", False), ("text/event-stream, application/json", True),
        ("text/event-stream;q=0.5, application/json", False), ("application/json;q=0.5, text/event-stream", True),
        ("text/event-stream", True), ("application/json", False), ("text/event-stream, */*", False), ("*/*", False),
        ("text/event-stream;q=0, application/json", False), ("Text/Event-Stream,Application/JSON", True),
    ],
)  # fmt: skip
def test_who_names_events_first_gets_events(accept, events):
    """By quality, then by order; wildcards prefer nothing."""
    assert events is prefers_events(accept)
