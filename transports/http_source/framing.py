"""The body of a request out of bytes, without I/O (RFC 9112 section 7.1); and how pieces of a response are framed."""

from __future__ import annotations

import re
from typing import Final, final

from .edge import CONTROL, MAX_HEAD, HeadRefused

_PLAIN_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,8})\r\n")
"""A chunk's size as nearly all write it: nothing is said about it."""
_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\0-\x08\x0a-\x1f\x7f]*)?")
_TRAILER: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\0-\x08\x0a-\x1f\x7f]*")
_MAX_LINE: Final = 4 * 1024
"""Bytes of a chunk's size with its extensions, which nobody reads."""


@final
class Chunks:
    """A body that comes in chunks. Extensions and trailers are checked and dropped: nobody here asks for them."""

    def __init__(self) -> None:
        self.done = False
        """Whether the last byte has been taken."""
        self._left = 0
        self._in_chunk = False
        self._in_trailers = False
        self._trailers = 0

    def take(self, buffer: bytearray) -> bytes:
        """
        Remove from a buffer what belongs to the body, and return its content.

        Raises:
            HeadRefused: It is not in chunks.
        """
        content: list[bytes | bytearray] = []
        if not (self._left or self._in_chunk or self._in_trailers):
            del buffer[: _whole_chunks(buffer, content)]
        while not self.done:
            if self._left:
                piece = bytes(buffer[: self._left])
                del buffer[: self._left]
                self._left -= len(piece)
                content.append(piece)
                if self._left:
                    break
            line = self._line(buffer)
            if line is None:
                break
            self._read(line)
        return b"".join(content)

    def _read(self, line: bytes) -> None:
        """Take a line between pieces of content."""
        if self._in_trailers:
            self._trailers += len(line)
            if self._trailers > MAX_HEAD:
                raise HeadRefused(431)
            if line and not _TRAILER.fullmatch(line):
                raise HeadRefused(400)
            self.done = not line
        elif self._in_chunk:
            if line:
                raise HeadRefused(400)  # the chunk is longer than it said
            self._in_chunk = False
        else:
            match = _SIZE_LINE.fullmatch(line)
            if match is None:
                raise HeadRefused(400)
            self._left = int(match[1], 16)
            self._in_chunk = self._left > 0
            self._in_trailers = self._left == 0

    def _line(self, buffer: bytearray) -> bytes | None:
        """The next line, without its end; None if that has not come."""
        end = buffer.find(b"\r\n")
        if self._in_chunk and buffer and end != 0 and buffer != b"\r":
            raise HeadRefused(400)
        if end < 0:
            if len(buffer) > _MAX_LINE or CONTROL.search(buffer[:-1]):
                raise HeadRefused(400)
            return None
        line = bytes(buffer[:end])
        if len(line) > _MAX_LINE:
            raise HeadRefused(400)
        del buffer[: end + 2]
        return line


def _whole_chunks(buffer: bytearray, content: list[bytes | bytearray]) -> int:
    """Take the chunks at the beginning that are there as a whole, but for the last one; the bytes they are."""
    at, end = 0, len(buffer)
    while (size := _PLAIN_SIZE.match(buffer, at)) is not None:
        start = size.end()
        stop = start + int(size[1], 16)
        if stop == start or stop + 2 > end or buffer[stop : stop + 2] != b"\r\n":
            break  # the last one, or not all of it, or none at all: looked at more closely
        content.append(buffer[start:stop])
        at = stop + 2
    return at


@final
class Sized:
    """A body whose length was said."""

    def __init__(self, length: int) -> None:
        self.done = length == 0
        """Whether the last byte has been taken."""
        self._left = length

    def take(self, buffer: bytearray) -> bytes:
        """Remove from a buffer what belongs to the body, and return it."""
        piece = bytes(buffer[: self._left])
        del buffer[: self._left]
        self._left -= len(piece)
        self.done = self._left == 0
        return piece


def chunk(data: bytes) -> bytes:
    """A piece of a response that comes in chunks; it must not be empty, for that would be the end."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK: Final = b"0\r\n\r\n"
