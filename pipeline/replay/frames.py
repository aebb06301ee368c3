"""
The lines of one part of a tape, plain or compressed, whatever state it is in.

A compressed part is a row of gzip members (RFC 1952). Where one is damaged, reading goes on with the next that can be
found. Of the last one, which may have been cut off, as many lines are read as there are.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

MAGIC: Final = b"\x1f\x8b"
_MEMBER: Final = b"\x1f\x8b\x08\x00\x00\x00\x00\x00"
"""How every member that a recorder writes begins: deflate, no flags, no date."""
_CHUNK: Final = 256 << 10
LONGEST: Final = 256 << 20
"""Bytes of a line, above which it is taken for damage."""


def lines_of(path: Path, offset: int = 0) -> Iterator[bytes]:
    """
    The lines of a part with their line feeds; the last one may lack it, and so may one that is followed by damage.

    Args:
        path: The part.
        offset: Where to begin; a line or a gzip member must begin there.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        compressed = file.read(len(MAGIC)) == MAGIC
        file.seek(offset)
        yield from _split(_inflated(file) if compressed else _chunks(file))


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK):
        yield chunk


def _split(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Lines of a text that comes in pieces; an empty piece ends the line that it comes in."""
    rest: list[bytes] = []
    size = 0
    for chunk in chunks:
        *whole, last = chunk.split(b"\n")
        for piece in whole:
            yield b"".join([*rest, piece, b"\n"])
            rest, size = [], 0
        rest.append(last)
        size += len(last)
        if size > LONGEST or not chunk:
            if size:
                yield b"".join(rest)
            rest, size = [], 0
    if size:
        yield b"".join(rest)


def _inflated(file: IO[bytes]) -> Iterator[bytes]:
    """The text of all members; an empty piece where something is missing."""
    data = b""
    member = zlib.decompressobj(wbits=31)
    while True:
        data = data or file.read(_CHUNK)
        if not data:
            return
        try:
            text = member.decompress(data, _CHUNK)
        except zlib.error:
            yield b""
            data = _next_member(file, data)
            member = zlib.decompressobj(wbits=31)
            continue
        if text:
            yield text
        data = member.unconsumed_tail
        if member.eof:
            data, member = member.unused_data, zlib.decompressobj(wbits=31)


def _next_member(file: IO[bytes], data: bytes) -> bytes:
    """What can be read from the next member's beginning on: further than the first byte of `data`."""
    data = data[1:]
    while (at := data.find(_MEMBER)) < 0:
        more = file.read(_CHUNK)
        if not more:
            return b""
        data = data[-len(_MEMBER) :] + more
    return data[at:]
