"""
Heads of requests, read once: a client begins most of its requests with the same bytes, or all but the same.

What a connection remembers is the head it read last. Heads that are equal are one object for all connections of a
server, and it goes with the last of them: a head carries credentials, and nobody keeps those longer than the connection
they came on.
"""

from __future__ import annotations

import re
from typing import Final, final
from urllib.parse import unquote
from weakref import WeakValueDictionary

from sluiceway.pipeline.model.options import KIB

from .edge import MAX_DIGITS, Head, read_head
from .request import RequestHead

MAX_REMEMBERED: Final = 8 * KIB
"""Bytes a head may have to be remembered."""
_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]+)", re.IGNORECASE)


@final
class KnownHead:
    """
    A head, as bytes and as what they say. Shared, so nobody changes anything of it.

    Args:
        raw: Its bytes, with the empty line.
        head: What HTTP/1.1 says they mean.
        request: What the application sees of it.
    """

    __slots__ = ("__weakref__", "_after", "_before", "end", "head", "length", "raw", "request", "size")

    def __init__(self, raw: bytes, head: Head, request: RequestHead) -> None:
        self.raw = raw
        self.head = head
        """As it was read first: the length and the size of this one are `length` and `size`."""
        self.request = request
        self.size = len(raw)
        """Bytes of it."""
        self.length = head.length
        """Bytes of the body; 0 if it comes in chunks."""
        self.end = -1 if head.chunked or head.switches else self.size + self.length
        """Where the request ends, if its head tells."""
        found = None if head.switches else _LENGTH.search(raw)
        self._before, self._after = (raw[: found.start(1)], raw[found.end(1) :]) if found else (raw, b"")

    def begins(self, data: bytes | bytearray) -> KnownHead | None:
        """
        The head that `data` begins with, if it is this one, or differs from it in the value of Content-Length only.

        None means that it has to be read.
        """
        if data.startswith(self.raw):
            return self
        start = len(self._before)
        end = data.find(b"\r", start, start + MAX_DIGITS + 1)
        if (
            not self._after
            or end <= start
            or not data.startswith(self._before)
            or not data.startswith(self._after, end)
        ):
            return None
        digits = bytes(data[start:end])
        return self._with_length(digits) if digits.isdigit() else None

    def _with_length(self, digits: bytes) -> KnownHead:
        other = object.__new__(KnownHead)
        other.raw = raw = self._before + digits + self._after
        other.head, other.request, other._before, other._after = self.head, self.request, self._before, self._after
        other.size, other.length = len(raw), int(digits)
        other.end = other.size + other.length
        return other


@final
class Heads:
    """What the connections of a server remember, so that equal heads are kept once."""

    def __init__(self) -> None:
        self._known: WeakValueDictionary[bytes, KnownHead] = WeakValueDictionary()

    def __len__(self) -> int:
        return len(self._known)

    def read(self, data: bytearray, last: KnownHead | None) -> KnownHead | None:
        """
        Read what arrived where a request is expected.

        Args:
            data: As `read_head` takes it.
            last: The head before, on the same connection.

        Returns:
            The head; None if it is not complete, and fine so far.

        Raises:
            HeadRefused: It is not fine.
        """
        found = None if last is None else last.begins(data)
        if found is not None:
            return found
        raw = bytes(data[: data.find(b"\r\n\r\n") + 4])
        found = self._known.get(raw)
        if found is not None:
            return found
        head = read_head(data)
        if head is None:
            return None
        found = KnownHead(raw, head, request_head_of(head))
        if len(raw) <= MAX_REMEMBERED:
            self._known[raw] = found
        return found


def request_head_of(head: Head) -> RequestHead:
    """What the application sees of a head."""
    path, _, query = head.target.partition(b"?")
    return RequestHead(head.method.decode("ascii"), unquote(path.decode("ascii")), query, head.headers)
