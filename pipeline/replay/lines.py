"""
Entries as lines of text, and back.

A line is a JSON object whose last member is a checksum: `,"crc":"xxxxxxxx"}` with the CRC-32 (ISO 3309, as in gzip) of
the same object without that member, in hexadecimal. A line that was cut off, or changed by chance, does not pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from zlib import crc32

import msgspec

from .entries import AnyEntry, Entry

_CRC_AT: Final = -len(',"crc":"00000000"}\n')
_encode: Final = msgspec.json.Encoder().encode
_decode: Final[Callable[[bytes], Entry]] = msgspec.json.Decoder(AnyEntry).decode


class BadLine(ValueError):
    """A line that is not what was written."""


class _Tag(msgspec.Struct):
    """As much of an entry as every version has."""

    event: str
    n: int


_decode_tag: Final = msgspec.json.Decoder(_Tag).decode
_TAGS: Final = frozenset(str(cls.__struct_config__.tag) for cls in AnyEntry.__args__)


def seal(text: bytes) -> bytes:
    """The line of an entry's JSON text."""
    return b'%b,"crc":"%08x"}\n' % (text[:-1], crc32(text))


def render_entry(entry: Entry) -> bytes:
    """
    The JSON text of an entry, to be sealed.

    Raises:
        TypeError: It holds something that is not JSON.
    """
    return _encode(entry)


def open_line(line: bytes) -> bytes:
    """
    The JSON text of a line.

    Raises:
        BadLine: Its checksum is wrong or missing.
    """
    text = line[:_CRC_AT] + b"}"
    if line != seal(text):
        raise BadLine("its checksum is wrong" if line.endswith(b"\n") else "it was cut off")
    return text


def parse_line(line: bytes) -> Entry | int:
    """
    The entry of a line, or its number if it is of a kind that this version does not know.

    Args:
        line: With its line feed.

    Raises:
        BadLine: It is not what was written, or by something else than a recorder.
    """
    text = open_line(line)
    try:
        return _decode(text)
    except msgspec.DecodeError as error:
        try:
            tag = _decode_tag(text)
        except msgspec.DecodeError:
            tag = None
        if tag is not None and tag.event not in _TAGS:
            return tag.n
        raise BadLine(str(error)) from error
