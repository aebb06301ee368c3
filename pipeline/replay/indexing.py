"""Making the index of a part anew: see `index`."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path

from .entries import Entry
from .frames import LONGEST, MAGIC
from .index import INDEX_EVERY, Mark, number_of, write_marks
from .lines import BadLine, parse_line


def index_part(part: Path) -> int:
    """
    Write the index of a part anew; how many places it has.

    Raises:
        OSError: The part cannot be read, or its index not written.
    """
    marks: list[Mark] = []
    exchange = 0
    for offset, lines in _places(part):
        entries = [entry for line in lines if (entry := _entry(line)) is not None]
        if entries and (not marks or offset - marks[-1].offset >= INDEX_EVERY):
            marks.append(Mark(offset, entries[0].n, entries[0].t, exchange))
        exchange = max(exchange, *map(number_of, entries), 0)
    write_marks(part, marks)
    return len(marks)


def _entry(line: bytes) -> Entry | None:
    try:
        entry = parse_line(line)
    except BadLine:
        return None
    return None if isinstance(entry, int) else entry


def _places(part: Path) -> Iterator[tuple[int, list[bytes]]]:
    """Where reading can start, and the lines from there to the next such place."""
    with part.open("rb") as file:
        compressed = file.read(len(MAGIC)) == MAGIC
        file.seek(0)
        offset = 0
        if not compressed:
            for line in file:
                yield offset, [line]
                offset += len(line)
            return
        data = b""
        member = zlib.decompressobj(wbits=31)
        texts: list[bytes] = []
        while data := data or file.read(1 << 18):
            try:
                texts.append(member.decompress(data, LONGEST))
            except zlib.error:  # what is behind the damage has no place of its own
                return
            if member.eof:
                yield offset, [line + b"\n" for line in b"".join(texts).split(b"\n")[:-1]]
                offset = file.tell() - len(member.unused_data)
                data, member, texts = member.unused_data, zlib.decompressobj(wbits=31), []
            else:
                data = member.unconsumed_tail
