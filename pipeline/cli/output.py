"""
What goes where: the product of a verb to stdout, everything said about it to stderr.

Colour only on a terminal, and never with NO_COLOR (no-color.org). rich is imported when something is drawn with it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import IO, TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.console import Console

    from ..protocol.messages import Json

Format = Literal["text", "json"]
"""What `--format` offers on every verb that lists."""

_WIDE = 100_000
"""Columns of what is not a terminal: nothing is cut or wrapped there."""


def emit(text: str) -> None:
    """Write a piece of the product to stdout."""
    sys.stdout.write(text if text.endswith("\n") else text + "\n")


def emit_json(value: Json) -> None:
    """Write a JSON value to stdout, indented."""
    import json

    emit(json.dumps(value, indent=2, ensure_ascii=False))


def say(text: str) -> None:
    """Tell the operator something, on stderr."""
    sys.stderr.write(text if text.endswith("\n") else text + "\n")


def console(stream: IO[str]) -> Console:
    """A rich console for one of the streams; what goes to a file or pipe is plain and as wide as it needs."""
    from rich.console import Console

    width = None if stream.isatty() else _WIDE
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False, soft_wrap=width is not None)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, styles: Sequence[str] = ()) -> None:
    """
    Print aligned columns to stdout.

    Args:
        columns: Headings.
        rows: Cells; each row as long as `columns`.
        styles: rich styles of the columns, where they have one.
    """
    cells = [[printable(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        emit(_aligned([list(columns), *cells]))
        return
    from rich.table import Table

    drawn = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for index, name in enumerate(columns):
        drawn.add_column(name, style=styles[index] if index < len(styles) else None, overflow="fold")
    for row in cells:
        drawn.add_row(*row)
    console(sys.stdout).print(drawn)


def _aligned(rows: list[list[str]]) -> str:
    """Columns for a file or a pipe: one line a row, nothing cut."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def printable(text: str) -> str:
    """Without terminal controls: what a server or a file says must not steer the operator's terminal."""
    return "".join(c if c.isprintable() or c == "\n" else " " if c == "\t" else "?" for c in text)


def first_sentence(text: str) -> str:
    """The first line of a description, up to its first full stop."""
    line = text.strip().partition("\n")[0]
    return line.partition(". ")[0].rstrip(".")
