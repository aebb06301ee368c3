"""
The index beside each part of a tape, `<part>.index`: places from which reading can start.

JSON Lines, one mark for about each `INDEX_EVERY` bytes. Only a hint: a reader that finds it missing, torn
or wrong reads from the beginning, and `sluiceway tape index` makes it anew.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Final, final

import msgspec

from .entries import Begun, Entry

INDEX_EVERY: Final = 256 << 10
"""Bytes of a part between two marks, at least."""


@final
class Mark(msgspec.Struct, frozen=True, array_like=True):
    """A place: `[offset, n, t, exchange]`."""

    offset: int
    """Bytes from the beginning of the part; a line, or a gzip member, begins there."""
    n: int
    """Number of the first line from there."""
    t: float
    """Its time."""
    exchange: int
    """The highest number of an exchange that had begun before."""


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Mark).decode


def index_of(part: Path) -> Path:
    """Where the index of a part is."""
    return part.with_name(f"{part.name}.index")


def number_of(entry: Entry) -> int:
    """The number of the exchange that an entry begins; 0 if it begins none."""
    return entry.exchange if isinstance(entry, Begun) else 0


def render_mark(mark: Mark) -> bytes:
    """A mark as a line."""
    return _encode(mark) + b"\n"


def read_marks(part: Path) -> list[Mark]:
    """The marks of a part in their order; none from the first on that does not fit those before."""
    try:
        lines = index_of(part).read_bytes().split(b"\n")
    except OSError:
        return []
    marks: list[Mark] = []
    for line in lines[:-1]:
        try:
            mark = _decode(line)
        except msgspec.DecodeError:
            break
        if marks and (mark.offset <= marks[-1].offset or mark.n <= marks[-1].n):
            break
        marks.append(mark)
    return marks


def write_marks(part: Path, marks: Sequence[Mark]) -> None:
    """Write the index of a part anew."""
    index_of(part).write_bytes(b"".join(map(render_mark, marks)))


def before_time(marks: Sequence[Mark], t: float) -> Mark | None:
    """The last place with everything from `t` on behind it; None for the beginning."""
    at = bisect_right(marks, t, key=lambda mark: mark.t)
    while at and marks[at - 1].t >= t:
        at -= 1
    return marks[at - 1] if at else None


def before_exchange(marks: Sequence[Mark], exchange: int) -> Mark | None:
    """The last place with the beginning of an exchange behind it; None for the beginning."""
    at = bisect_right(marks, exchange - 1, key=lambda mark: mark.exchange)
    return marks[at - 1] if at else None
