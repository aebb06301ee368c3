"""
Pages of an audit trail, latest entries first, for readers who come again and again.

A page reads backwards from where the last one ended, and looks at a bounded number of records: a filter that fits
nothing costs no more than one that fits everything. Where it stopped it can go on.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, BinaryIO, Final, final

from attrs import frozen

from ..protocol.messages import Json
from .audit_file import begins_with, files_of
from .audit_reading import Query, entry_of

MAX_RECORDS: Final = 20_000
"""Records that are looked at for one page."""
NEWEST: Final = 1 << 62
"""Larger than the number of any record."""
_SEQ: Final = re.compile(rb'\{"seq":(\d{1,18}),')
"""How a record begins."""
_NEXT: Final = re.compile(rb'\n\{"seq":(\d{1,18}),')
_BLOCK: Final = 1 << 16
_MAX_LINE: Final = 1 << 22
"""Bytes without a newline after which a file is no trail."""


@final
@frozen
class Page:
    """Some entries."""

    entries: tuple[Mapping[str, Json], ...]
    """The latest first."""
    before: int | None
    """Number to go on with; None if there is nothing further."""


def read_page(
    path: Path,
    query: Query,
    only: Callable[[Mapping[str, Any]], bool],
    *,
    before: int = NEWEST,
    max_records: int = MAX_RECORDS,
) -> Page:
    """
    The latest entries that fit. Blocks.

    Args:
        path: The trail.
        query: Which entries, and how many.
        only: What else an entry must be: whether this reader may see it.
        before: Only entries numbered below this.
        max_records: How many records are looked at.

    Raises:
        OSError: There is no trail, or it cannot be read.
    """
    fits = query.compile()
    found: list[Mapping[str, Json]] = []
    looked, at = 0, before
    with closing(newest_first(path, before)) as lines:
        for line in lines:
            entry = entry_of(line)
            seq = None if entry is None else entry.get("seq")
            if isinstance(seq, int) and seq >= before:
                continue
            if len(found) == query.limit or looked == max_records:
                return Page(tuple(found), at)
            looked += 1
            if entry is None or not isinstance(seq, int):
                continue
            at = seq
            if only(entry) and fits(entry):
                found.append(entry)
    return Page(tuple(found), None)


def newest_first(path: Path, before: int = NEWEST) -> Generator[bytes]:
    """
    The lines of a trail without their newlines, the latest first. Of those numbered from `before` on there are few.

    Raises:
        OSError: There is none, or it cannot be read.
    """
    if path.exists():
        from . import audit_sqlite  # a database driver, for those who have a database

        if audit_sqlite.is_sqlite(path):
            yield from audit_sqlite.newest_first(path, before)
            return
    if not files_of(path):
        raise FileNotFoundError(2, "there is no audit trail", str(path))
    read: set[Path] = set()
    while True:  # files are looked for anew each time: the current one may be put aside meanwhile, and old ones go
        left = [file for file in files_of(path) if file not in read and begins_with(path, file) < before]
        if not left:
            return
        read.add(left[-1])
        with suppress(FileNotFoundError):
            for line in _backwards(left[-1], before):
                match = _SEQ.match(line)
                before = before if match is None else min(before, int(match[1]))
                yield line


def _backwards(file: Path, before: int) -> Iterator[bytes]:
    """The lines of a file, the last one first."""
    with file.open("rb") as data:
        at = _end_below(data, before)
        rest = b""
        while at:
            size = min(_BLOCK, at)
            at -= size
            data.seek(at)
            rest = data.read(size) + rest
            if len(rest) > _MAX_LINE:
                raise OSError(f"{file} has lines that no audit trail has")
            rest, *lines = rest.split(b"\n")
            yield from (line for line in reversed(lines) if line)
        if rest:
            yield rest


def _end_below(data: BinaryIO, before: int) -> int:
    """Where in a file the records numbered from `before` on begin, to within a block: they rise, so it is bisected."""
    low, high = 0, data.seek(0, os.SEEK_END)
    while before < NEWEST and high - low > _BLOCK:
        middle = (low + high) // 2
        data.seek(middle)
        match = _NEXT.search(data.read(_BLOCK))
        if match is None or middle + match.end() > high:
            return high
        start = middle + match.start() + 1
        low, high = (start, high) if int(match[1]) < before else (low, start)
    return high
