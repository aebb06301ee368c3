"""
Heads of responses that came before from the same origin, by the very bytes they were.

Servers say the same again and again; only the date changes, and how long the body is. A head of which every other byte
is known needs no parser, and if it says how long the body is, neither does that. What is not known, or not plain, is
left to the parser, so nothing is accepted here that it would not accept.
"""

from __future__ import annotations

import re
from typing import Final, TypeVar, final

from attrs import frozen

from .parser import Head, ResponseParser
from .response import WholeResponse

MAX_KNOWN: Final = 64
"""Heads that are remembered of one origin; the one that was learned first makes room."""
MAX_BYTES: Final = 2048
"""Of one such head."""
_END: Final = b"\r\n\r\n"
_UNSAID: Final = -1
_K = TypeVar("_K")
_CHANGING: Final = re.compile(
    rb"\r\n((?i:content-length(?=: [1-9]\d{0,14}(?:\r|\Z))|date(?=: [A-Z][\w, :]{1,38}[A-Z](?:\r|\Z)))): ([^\r]+)"
)
"""What differs from one response to the next in a head that is else the same: how long it is, and when. Name, value."""


@final
@frozen(eq=False)
class _Known:
    head: Head
    length: int
    """Bytes of the body that follows; `_UNSAID` if only the parser can tell."""


def _split(head: bytes) -> tuple[tuple[bytes, ...], dict[str, str]]:
    """What does not change in a head, and what does, by the name of its header."""
    parts = _CHANGING.split(head)
    values = {name.decode().lower(): value.decode() for name, value in zip(parts[1::3], parts[2::3], strict=True)}
    del parts[2::3]
    return tuple(parts), values


@final
class KnownHeads:
    """What is remembered of one origin."""

    def __init__(self) -> None:
        self._known: dict[bytes, _Known] = {}  # by what stands before the empty line
        self._alike: dict[tuple[bytes, ...], _Known] = {}

    def __len__(self) -> int:
        return len(self._known)

    def whole(self, data: bytes) -> WholeResponse | None:
        """The response, if these bytes are one with a head that is known, no less and no more; else None."""
        head, end, body = data.partition(_END)
        if not end:  # what is there may be the beginning of one that goes on
            return None
        known = self._known.get(head) or self._derived(head)
        if known is None or len(body) != known.length:
            return None
        return WholeResponse(known.head, body)

    def parse(self, data: bytes) -> ResponseParser:
        """
        A parser that was fed with the first bytes of a response. Its head is remembered if it stands in them as a whole
        and the connection goes on; one that is known is not read again.

        Raises:
            MalformedResponse: As the parser does.
        """
        head, end, body = data.partition(_END)
        known = self._known.get(head) if end else None
        if known is not None:
            parser = ResponseParser(known.head)
            parser.feed(data)
            return parser
        parser = ResponseParser()
        if not end or len(head) > MAX_BYTES:
            parser.feed(data)
            return parser
        parser.feed(head + end)
        if parser.has_head_only and parser.head is not None:
            self._learn(head, _Known(parser.head, _length(parser)))
        if body:
            parser.feed(body)
        return parser

    def _learn(self, head: bytes, known: _Known) -> None:
        _remember(self._known, head, known)
        (same, values), headers = _split(head), known.head.headers
        if values and all(headers.get(name) == value for name, value in values.items()):  # none stands there twice
            _remember(self._alike, same, known)

    def _derived(self, head: bytes) -> _Known | None:
        """What a head says that differs from one that is known in what changes only."""
        if not self._alike or len(head) > MAX_BYTES:
            return None
        same, values = _split(head)
        alike = self._alike.get(same)
        if alike is None:
            return None
        made = alike.head.with_values(values)
        known = _Known(made, _UNSAID if alike.length == _UNSAID or made.length is None else made.length)
        _remember(self._known, head, known)
        return known


def _remember(memory: dict[_K, _Known], key: _K, known: _Known) -> None:
    if len(memory) >= MAX_KNOWN:
        del memory[next(iter(memory))]
    memory[key] = known


def _length(parser: ResponseParser) -> int:
    """How long the body is that follows, by the head that was parsed."""
    head = parser.head
    assert head is not None
    length = head.length
    if length is None or "transfer-encoding" in head.headers or parser.complete != (length == 0):
        return _UNSAID
    return length
