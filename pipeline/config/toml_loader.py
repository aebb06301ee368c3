"""
TOML text to the same tree as YAML.

`tomllib` tells no places, so they are found by a scan over the lines for table headers and keys. A key in an inline
table gets the place of the nearest key around it: right line, approximate column.
"""

from __future__ import annotations

import re
import tomllib
from typing import Final

from .nodes import Node, Path, tree_of
from .problems import Problem, SourceText, Span

_KEY: Final = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*')"""
_DOTTED: Final = rf"{_KEY}(?:\s*\.\s*{_KEY})*"
_HEADER: Final = re.compile(rf"\s*(\[\[?)\s*({_DOTTED})\s*\]")
_ASSIGNMENT: Final = re.compile(rf"\s*({_DOTTED})\s*=\s*")
_LONG_QUOTES: Final = ('"""', "'''")
_AT_LINE: Final = re.compile(r"\(at line (\d+), column (\d+)\)")


def load_toml(text: str, source: SourceText) -> tuple[Node | None, list[Problem]]:
    """
    Read a TOML document.

    Returns:
        The tree (None if the text is not TOML), and what is wrong with it.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        at = _AT_LINE.search(str(error))
        end = len(source.lines), len(source.lines[-1]) + 1
        span = Span(source, *((int(at[1]), int(at[2])) if at else end))
        message = f"not TOML: {_AT_LINE.sub('', str(error)).removesuffix('(at end of document)').strip()}"
        return None, [Problem(rule="toml/syntax", message=message, span=span)]
    except RecursionError:
        return None, [Problem(rule="toml/size", message="nested too deep to be read", span=Span(source))]
    try:
        return tree_of(data, source, _places(source)), []
    except ValueError as error:
        return None, [Problem(rule="toml/size", message=str(error), span=Span(source))]


def _places(source: SourceText) -> dict[Path, tuple[Span, Span]]:
    """Places of keys and values, by path. Text in triple quotes is skipped."""
    places: dict[Path, tuple[Span, Span]] = {}
    table: Path = ()
    counts: dict[Path, int] = {}
    quote: str | None = None

    def put(path: Path, key: Span, value: Span) -> None:
        for length in range(1, len(path)):
            places.setdefault(path[:length], (key, key))
        places[path] = key, value

    for number, line in enumerate(source.lines, 1):
        if quote is not None:
            quote = None if quote in line else quote
        elif (header := _HEADER.match(line)) is not None:
            table = _keys(header[2])
            if header[1] == "[[":
                counts[table] = counts.get(table, -1) + 1
            table = _indexed(table, counts)
            span = Span(source, number, header.start(2) + 1)
            put(table, span, span)
        elif (assignment := _ASSIGNMENT.match(line)) is not None:
            key = Span(source, number, assignment.start(1) + 1)
            put((*table, *_keys(assignment[1])), key, Span(source, number, assignment.end() + 1))
            quote = next((q for q in _LONG_QUOTES if line.count(q) == 1), None)
    return places


def _keys(dotted: str) -> tuple[str, ...]:
    return tuple(key[1:-1] if key[0] in "\"'" else key for key in re.findall(_KEY, dotted))


def _indexed(table: Path, counts: dict[Path, int]) -> Path:
    """The path of a table with the index of the latest element wherever it runs through a list of tables."""
    path: Path = ()
    for length in range(1, len(table) + 1):
        path = (*path, table[length - 1])
        if (index := counts.get(table[:length])) is not None:
            path = (*path, index)
    return path
