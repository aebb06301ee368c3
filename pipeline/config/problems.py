"""
What can be wrong with a configuration, where, and how it is shown.

A `Problem` is data; the three renderers at the end are the only code in the program that prints configuration errors.
The text form is

    team.yaml:22:7: error[order/cache-before-auth]: 'cache' runs before 'auth_bearer'
        22 |     - cache: {max_ttl: 30s}
           |       ^
       reason: a cache in front of authentication can answer one tenant with another tenant's data
       fix: move it below line 25 (auth_bearer)
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, final

from attrs import field, frozen

from ..model.order import Level
from ..protocol.errors import SluicewayError

_LEVELS: Final[dict[Level, int]] = {"error": 0, "warning": 1, "info": 2}
_GITHUB: Final[dict[Level, str]] = {"error": "error", "warning": "warning", "info": "notice"}
_WIDTH: Final = 160
"""Longest piece of a source line that is shown, in characters."""


@final
@frozen(eq=False)
class SourceText:
    """One file that was read, or a text that stands for one."""

    name: str
    """As shown: relative to the working directory when below it."""
    base: Path
    """Directory that relative paths in this text start from; absolute."""
    lines: tuple[str, ...] = field(default=(), repr=False)
    path: Path | None = None
    """The file, absolute; None for a text that was never a file."""


@final
@frozen
class Span:
    """A place: 1-based line and column of a key or value; line 0 means the text as a whole."""

    source: SourceText
    line: int = 0
    column: int = 0
    path: str = ""
    """Where it is in data that has no lines, for example `pipelines.main.timeout`."""

    def __str__(self) -> str:
        if self.line:
            return f"{self.source.name}:{self.line}:{self.column}"
        return f"{self.source.name}:{self.path}" if self.path else self.source.name


@final
@frozen(kw_only=True)
class Problem:
    """One finding about a configuration."""

    rule: str
    """Stable id, for example `config/unknown-key`."""
    message: str
    span: Span
    level: Level = "error"
    reason: str = ""
    """What goes wrong otherwise, in one sentence."""
    fix: str = ""
    """What to write instead."""
    others: tuple[tuple[str, Span], ...] = ()
    """Further places that belong to it, each with a word on what is there."""
    hide: bool = False
    """Do not show the source line: it may hold a secret."""

    def __str__(self) -> str:
        return f"{self.span}: {self.level}[{self.rule}]: {self.message}"


@final
class ConfigError(SluicewayError):
    """A configuration cannot be used. Raised while loading, never while serving."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(problems)
        """Every finding, warnings included, sorted by place; at least one is an error."""
        super().__init__(render_text(self.problems))


def sort_problems(problems: Iterable[Problem], files: Sequence[Path] = ()) -> tuple[Problem, ...]:
    """
    The distinct problems by place: files in this order, then line and column, errors first.

    What sits in an anchor is found once for each alias; it is one problem.
    """
    distinct = list(dict.fromkeys(problems))
    rank: dict[Path | None, int] = {path: index for index, path in enumerate(files)}
    return tuple(
        sorted(
            distinct,
            key=lambda p: (
                rank.get(p.span.source.path, 0),
                p.span.line,
                p.span.column,
                _LEVELS[p.level],
                p.rule,
                p.message,
            ),
        )
    )


def has_errors(problems: Iterable[Problem]) -> bool:
    """Whether one of them is an error."""
    return any(problem.level == "error" for problem in problems)


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant, or None."""
    matches = get_close_matches(word[:80], list(known), n=1, cutoff=0.6)
    return matches[0] if matches else None


def unknown(noun: str, word: str, known: Iterable[str], *, listed: str = "allowed") -> str:
    """`unknown key 'max_attemps'; did you mean 'max_attempts'? (allowed: max_attempts, base_delay)`"""
    names = list(known)
    guess = closest(word, names)
    meant = f"; did you mean {guess!r}?" if guess else ""
    return f"unknown {noun} {word[:80]!r}{meant} ({listed}: {', '.join(names) or 'none'})"


def render_text(problems: Iterable[Problem]) -> str:
    """For people: one block a problem, with the source line, a caret, the reason and the fix. Ends in a newline."""
    return "".join(f"{line}\n" for problem in problems for line in _block(problem))


def _block(problem: Problem) -> Iterable[str]:
    yield _printable(str(problem))
    if not problem.hide:
        yield from excerpt(problem.span)
    if problem.reason:
        yield _printable(f"   reason: {problem.reason}")
    if problem.fix:
        yield _printable(f"   fix: {problem.fix}")
    for word, place in problem.others:
        yield _printable(f"   {word}: {place}")


def excerpt(span: Span) -> Iterable[str]:
    """The line of a place, and a caret below its column; nothing for a place without lines."""
    if 0 < span.line <= len(span.source.lines):
        text, caret = _excerpt(span.source.lines[span.line - 1], span.column)
        yield f"{span.line:6} | {text}".rstrip()
        yield f"{'':6} | {'':{caret}}^"


def _excerpt(line: str, column: int) -> tuple[str, int]:
    """The part of a line around a column, and how many characters of it stand before the column."""
    start = max(0, column - _WIDTH // 2) if len(line) > _WIDTH else 0
    return _printable(line[start : start + _WIDTH]), max(0, column - 1 - start)


def _printable(text: str) -> str:
    """Terminal controls must not get from a file to a terminal; one character stays one character."""
    return "".join(c if c.isprintable() else " " if c == "\t" else "?" for c in text)


def _record(problem: Problem) -> dict[str, Any]:
    return {
        "file": problem.span.source.name,
        "line": problem.span.line,
        "column": problem.span.column,
        "level": problem.level,
        "rule": problem.rule,
        "message": problem.message,
        "reason": problem.reason or None,
        "fix": problem.fix or None,
        "others": [
            {"what": word, "file": place.source.name, "line": place.line, "column": place.column}
            for word, place in problem.others
        ],
    }


def render_json(problems: Iterable[Problem]) -> str:
    """For programs: a JSON list of objects. Ends in a newline."""
    return json.dumps([_record(problem) for problem in problems], indent=2, ensure_ascii=False) + "\n"


def render_github(problems: Iterable[Problem]) -> str:
    """For GitHub Actions: one workflow command a problem, which becomes an annotation of the file."""
    return "".join(f"{_command(problem)}\n" for problem in problems)


def _command(problem: Problem) -> str:
    span = problem.span
    place = f",line={span.line},col={span.column}" if span.line else ""
    further = [text for text in (problem.reason, problem.fix and f"fix: {problem.fix}") if text]
    text = "\n".join([problem.message, *further, *(f"{word}: {place}" for word, place in problem.others)])
    return (
        f"::{_GITHUB[problem.level]} file={_property(span.source.name)}{place},title={_property(problem.rule)}"
        f"::{_data(text)}"
    )


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
