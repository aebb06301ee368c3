"""From a log event to its line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sluiceway.pipeline.telemetry.lines import json_line, text_line

HEAD = {"time": "2026-07-28T12:00:00.000Z", "level": "info", "event": "started"}


def test_a_json_line_is_one_object_on_one_line() -> None:
    """In the order of the event."""
    line = json_line({**HEAD, "port": 8080, "note": "a\nb", "list": [1, {"x": None}]})

    assert "\n" not in line
    assert line.startswith('{"time":"2026-07-28T12:00:00.000Z","level":"info","event":"started","port":8080,')
    assert json.loads(line)["note"] == "a\nb"


def test_what_json_does_not_know_is_shown_by_its_repr() -> None:
    """A log call never fails for the type of a value."""
    line = json_line({"path": Path("/x"), "error": ValueError("no")})

    assert json.loads(line) == {"path": "PosixPath('/x')", "error": "ValueError('no')"}


@pytest.mark.parametrize("event", [{"a": "\ud800"}, {"a": {("no", "text"): 1}, "b": Path("/x")}])
def test_what_cannot_be_encoded_is_still_a_line(event: Any) -> None:
    """Half a surrogate pair, and keys that are no text."""
    assert set(json.loads(json_line(event))) == set(event)


def test_a_text_line_is_for_people() -> None:
    """Time, level, event, then the fields."""
    line = text_line({**HEAD, "port": 8080, "note": "two words", "empty": "", "args": {"a": 1}, "path": Path("/x")})

    assert line == (
        "2026-07-28T12:00:00.000Z INFO  started port=8080 note='two words' empty='' args='{\"a\":1}' path=/x"
    )


@pytest.mark.parametrize("text", ["a\nb", "\x1b[2J", "\x9b2J", "a\rb", "\u202etxt", "a\u2028b"])
def test_nothing_from_outside_can_steer_the_terminal_or_forge_a_line(text: str) -> None:
    """As event, key, value or level."""
    for event in (
        {**HEAD, "event": text},
        {**HEAD, "key": text},
        {**HEAD, text: 1},
        {**HEAD, "key": {"deep": text}},
        {**HEAD, "exception": f"ValueError: {text}"},
    ):
        line = text_line(event)
        assert all(part.isprintable() for part in line.split("\n"))
        assert line.count("\n") <= ("exception" in event) * 2


def test_a_traceback_follows_on_lines_of_its_own() -> None:
    """It is ours, so it may."""
    line = text_line({**HEAD, "exception": "Traceback:\n  File x\nValueError: no"})

    assert line.split("\n")[1:] == ["Traceback:", "  File x", "ValueError: no"]


def test_colour_is_only_there_when_asked_for() -> None:
    """And says the same without its escape sequences."""
    event = {**HEAD, "level": "error", "port": 1}
    coloured = text_line(event, colour=True)

    assert "\x1b[31mERROR\x1b[0m" in coloured
    assert "\x1b" not in text_line(event)
    for sequence in ("\x1b[0m", "\x1b[2m", "\x1b[31m"):
        coloured = coloured.replace(sequence, "")
    assert coloured == text_line(event)


def test_a_level_nobody_knows_is_shown_as_it_is() -> None:
    """Rather than failing."""
    assert " NOTICE started" in text_line({**HEAD, "level": "notice"})
