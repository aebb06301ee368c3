"""
Heads of responses that came before from the same origin, by the very bytes they were.

Servers say the same again and again: only a date changes, once a second. A head of which every byte is known needs no
parser, and if it says how long the body is, neither does that. What is not known, or not plain, is left to the parser,
so nothing is accepted here that it would not accept.
"""

from __future__ import annotations

from typing import Final, final

from attrs import frozen

from .parser import Head, ResponseParser

MAX_KNOWN: Final = 64
"""Heads that are remembered of one origin; the one that was learned first makes room."""
MAX_BYTES: Final = 2048
"""Of one such head."""
_END: Final = b"\r\n\r\n"


@final
@frozen(eq=False)
class _Known:
    head: Head
    length: int
    """Bytes of the body that follows."""


@final
class KnownHeads:
    """What is remembered of one origin."""

    def __init__(self) -> None:
        self._known: dict[bytes, _Known] = {}

    def __len__(self) -> int:
        return len(self._known)

    def whole(self, data: bytes) -> tuple[Head, bytes] | None:
        """Head and body, if these bytes are one response with a head that is known, no less and no more; else None."""
        start = data.find(_END) + len(_END)
        known = self._known.get(data[:start])
        if known is None or len(data) - start != known.length:
            return None
        return known.head, data[start:]

    def feed(self, parser: ResponseParser, data: bytes) -> None:
        """
        Feed a parser with the first bytes of a response, and remember the head if it stands in them and is plain.

        Raises:
            MalformedResponse: As the parser does.
        """
        start = data.find(_END) + len(_END)
        if not len(_END) <= start <= MAX_BYTES:
            parser.feed(data)
            return
        parser.feed(data[:start])
        length = parser.plain_length
        if length is not None and parser.head is not None:
            if len(self._known) >= MAX_KNOWN:
                del self._known[next(iter(self._known))]
            self._known[data[:start]] = _Known(parser.head, length)
        if start < len(data):
            parser.feed(data[start:])
