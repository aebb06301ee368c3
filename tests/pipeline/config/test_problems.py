"""How problems are sorted and shown."""

from __future__ import annotations

import json
from pathlib import Path

from sluiceway.pipeline.config import ConfigError, Problem, Span, render_github, render_json, render_text
from sluiceway.pipeline.config.include import text_source
from sluiceway.pipeline.config.problems import closest, sort_problems, unknown
from sluiceway.pipeline.protocol.errors import SluicewayError

LINES = "a: 1\n\tb: \x1b[31mred\n" + "x" * 300
SOURCE = text_source(LINES, "dir,a/t.yaml", Path("/"))


def problem(line: int, column: int = 4, **more: object) -> Problem:
    """A problem at a place of `LINES`."""
    return Problem(**({"rule": "x/y", "message": "wrong"} | more | {"span": Span(SOURCE, line, column)}))  # type: ignore[arg-type]


def test_text_shows_line_caret_reason_fix_and_other_places() -> None:
    """The form of the architecture, section 3.3."""
    one = problem(1, reason="it leaks", fix="remove it", others=(("first", Span(SOURCE, 2, 1)),), level="warning")

    assert render_text([one]) == (
        "dir,a/t.yaml:1:4: warning[x/y]: wrong\n"
        "     1 | a: 1\n"
        "       |    ^\n"
        "   reason: it leaks\n"
        "   fix: remove it\n"
        "   first: dir,a/t.yaml:2:1\n"
    )


def test_terminal_controls_do_not_reach_the_terminal() -> None:
    """One character stays one character, so that the caret stays where it belongs."""
    assert render_text([problem(2, message="\x1b]0;title\x07")]) == (
        "dir,a/t.yaml:2:4: error[x/y]: ?]0;title?\n     2 |  b: ?[31mred\n       |    ^\n"
    )


def test_a_long_line_is_cut_around_the_place() -> None:
    """A generated file does not flood the screen."""
    _, line, caret = render_text([problem(3, 200)]).splitlines()

    assert "     3 | " + "x" * 160 == line
    assert line[caret.index("^")] == "x"


def test_a_problem_without_a_line_shows_none() -> None:
    """A whole file, a place behind its end, data by its path, and a line that may hold a secret."""
    data = Span(text_source("", "data", Path("/")), path="pipelines.main")

    assert render_text([problem(0)]) == "dir,a/t.yaml: error[x/y]: wrong\n"
    assert render_text([problem(9)]) == "dir,a/t.yaml:9:4: error[x/y]: wrong\n"
    assert render_text([problem(1, hide=True)]) == "dir,a/t.yaml:1:4: error[x/y]: wrong\n"
    assert str(data) == "data:pipelines.main"


def test_json_is_a_list_of_objects() -> None:
    """Every field, for programs."""
    rendered = render_json([problem(1, fix="do", others=(("first", Span(SOURCE, 2, 1)),))])

    assert json.loads(rendered) == [
        {
            "file": "dir,a/t.yaml", "line": 1, "column": 4, "level": "error", "rule": "x/y", "message": "wrong",
            "reason": None, "fix": "do",
            "others": [{"what": "first", "file": "dir,a/t.yaml", "line": 2, "column": 1}],
        }
    ]  # fmt: skip


def test_json_can_be_read_by_people_too() -> None:
    """Indented, and a name in another alphabet stays one."""
    rendered = render_json([problem(1, message="\u0448\u043b\u044e\u0437")])

    assert rendered.startswith('[\n  {\n    "file": "dir,a/t.yaml",\n')
    assert '"message": "\u0448\u043b\u044e\u0437"' in rendered


def test_github_gets_workflow_commands() -> None:
    """Newlines, percent signs and separators are escaped as GitHub's runner expects."""
    one = problem(1, message="100%\nwrong", level="info", fix="remove it", others=(("first", Span(SOURCE, 2, 1)),))

    assert render_github([one, problem(0)]) == (
        "::notice file=dir%2Ca/t.yaml,line=1,col=4,title=x/y::"
        "100%25%0Awrong%0Afix: remove it%0Afirst: dir,a/t.yaml:2:1\n"
        "::error file=dir%2Ca/t.yaml,title=x/y::wrong\n"
    )


def test_problems_are_sorted_by_place_and_told_once() -> None:
    """Files in the order given, then lines and columns, errors first."""
    other = text_source("", "b", Path("/"), Path("/b"))
    late = Problem(rule="x/y", message="b", span=Span(other, 1, 1))
    warning, error = problem(2, level="warning"), problem(2)

    assert sort_problems([late, warning, error, problem(2, 1), error], [Path("/a"), Path("/b")]) == (
        problem(2, 1), error, warning, late,
    )  # fmt: skip


def test_the_error_carries_and_shows_its_problems() -> None:
    """`ConfigError` is one of the tree's errors; its text is the text form."""
    error = ConfigError([problem(1)])

    assert isinstance(error, SluicewayError)
    assert error.problems == (problem(1),)
    assert str(error) == render_text([problem(1)])


def test_suggestions_are_made_only_when_something_is_close() -> None:
    """A guess that is no guess misleads."""
    assert closest("max_attemps", ["max_attempts", "base"]) == "max_attempts"
    assert closest("zzz", ["max_attempts"]) is None
    assert unknown("key", "zzz", []) == "unknown key 'zzz' (allowed: none)"
    assert unknown("store", "share", ["b", "shared"], listed="declared") == (
        "unknown store 'share'; did you mean 'shared'? (declared: b, shared)"
    )
