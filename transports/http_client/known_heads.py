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
_UNSAID: Final = -1


@final
@frozen(eq=False)
class _Known:
    head: Head
    length: int
    """Bytes of the body that follows; `_UNSAID` if only the parser can tell."""


@final
class KnownHeads:
    """What is remembered of one origin."""

    def __init__(self) -> None:
        self._known: dict[bytes, _Known] = {}

    def __len__(self) -> int:
        return len(self._known)

    def whole(self, data: bytes) -> tuple[Head, bytes] | None:
        """
        Head and body, if these bytes are one response with a head that is known, no less and no more, and need no
        parser; else None.
        """
        start = data.find(_END) + len(_END)
        known = self._known.get(data[:start])
        if known is None or len(data) - start != known.length:
            return None
        return known.head, data[start:]

    def parse(self, data: bytes) -> ResponseParser:
        """
        A parser that was fed with the first bytes of a response. Its head is remembered if it stands in them as a whole
        and the connection goes on; one that is known is not read again.

        Raises:
            MalformedResponse: As the parser does.
        """
        start = data.find(_END) + len(_END)
        head = data[:start]
        known = self._known.get(head)
        if known is not None:
            parser = ResponseParser(known.head)
            parser.feed(data)
            return parser
        parser = ResponseParser()
        if not len(_END) <= start <= MAX_BYTES:
            parser.feed(data)
            return parser
        parser.feed(head)
        if parser.has_head_only and parser.head is not None:
            if len(self._known) >= MAX_KNOWN:
                del self._known[next(iter(self._known))]
            self._known[head] = _Known(parser.head, _length(parser))
        if start < len(data):
            parser.feed(data[start:])
        return parser


def _length(parser: ResponseParser) -> int:
    """How long the body is that follows, by the head that was parsed."""
    head = parser.head
    assert head is not None
    length = head.length
    if length is None or "transfer-encoding" in head.headers or parser.complete != (length == 0):
        return _UNSAID
    return length
