"""
A long JSON-RPC response in pieces: where its result begins and ends, without ever holding it.

For results that nobody on the way reads. The envelope is checked as strictly as that of a message which came whole
(`codec.decode_upstream`); of the result it is checked that it is one object, that its brackets and texts close, and
that it is UTF-8. What is wrong inside is the client's to find, as it is behind every proxy of bytes.

Looking at each bracket in Python would cost more than everything else, so a piece is reduced by the C loops of `bytes`
first: escapes are cut out, then everything but quotes and brackets, then two quotes in a row, which are a text without
brackets, or the gap between two texts: for all that follows it is in a text or out of one as before. Where a text has
brackets, its quotes are left, and it is cut out between them. Then pairs of brackets that close at once go, and what is
left are brackets that close something older, and then brackets that stay open. 1 MB of records takes 1.8 ms; they took
7 when texts were cut out first, and their full decoding takes 7.
"""

from __future__ import annotations

import codecs
import re
from typing import Final, NamedTuple, final

from .codec import decode_upstream
from .envelope import one_line
from .errors import UpstreamProtocolError
from .messages import RequestId, Response

_MEMBER: Final = rb'"(?:jsonrpc|id)"\s*:\s*(?:"(?:[^"\\]|\\.)*+"|-?\d+|null)'
_PREFIX: Final = re.compile(rb"\s*\{\s*(?:" + _MEMBER + rb'\s*,\s*)*"result"\s*:\s*(?=\{)')
_SUFFIX: Final = re.compile(rb"\s*(?:,\s*" + _MEMBER + rb"\s*)*\}\s*")
_TOKEN: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"?|[{}]|[\[\]]', re.DOTALL)
_TEXT_END: Final = re.compile(rb'(?:[^"\\]|\\.)*+"', re.DOTALL)
_ALIKE: Final = bytes.maketrans(b"[]", b"{}")
_NOT_MARKS: Final = bytes(set(range(256)) - set(b'"{}[]'))
_FAILED: Final = (b'"isError":true', b'"isError": true')
_FAILED_KEY: Final = b'"isError":'
_LONGEST_MARK: Final = max(map(len, _FAILED))
_HALF_A_MARK: Final = re.compile(
    rb"(?:" + b"|".join(re.escape(mark[:n]) for mark in _FAILED for n in range(len(mark) - 1, 0, -1)) + rb")\Z"
)
ENVELOPE: Final = 4096
"""Bytes of the envelope on either side of the result, at most."""
_MAX_ROUNDS: Final = 256
"""Levels of pairs that are taken out of one piece before it is walked bracket by bracket instead."""
_WALKED: Final = 512
"""Bytes in which the end of the result is looked for token by token; in more than these, by halves."""


class _Place(NamedTuple):
    """Where in the result a byte stands."""

    depth: int
    """Objects and arrays that are open; 0 behind the end."""
    in_text: bool


@final
class ResultPieces:
    """One response, from the piece in which its result begins: `begin`, then `feed` it all that follows, then `end`."""

    def __init__(self, prefix: bytes) -> None:
        self.complete = False
        """The result has ended; only the rest of the envelope may come."""
        self.is_error = False
        """The result says `isError: true` (a tool that failed)."""
        self._prefix = prefix
        self._suffix = b""
        self._held = b""
        self._place = _Place(0, in_text=False)
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self._half_a_character = False

    @classmethod
    def begin(cls, head: bytes) -> tuple[ResultPieces, bytes] | None:
        """
        Take a response of which the first bytes are there.

        Returns:
            It, and what of its result can be passed on already; None if the result cannot be told from these bytes:
            then the response must be read whole.

        Raises:
            UpstreamProtocolError: As `feed`.
        """
        found = _PREFIX.match(head, 0, ENVELOPE)
        if found is None:
            return None
        pieces = cls(found.group())
        return pieces, pieces.feed(head[found.end() :])

    def feed(self, data: bytes) -> bytes:
        """
        Take the next bytes of the response.

        Returns:
            What of the result can be passed on now, on one line; may be empty.

        Raises:
            UpstreamProtocolError: Not UTF-8, or too much stands behind the result.
        """
        if self._half_a_character or not data.isascii():
            self._decode(data)
        if self.complete:
            self._keep(data)
            return b""
        data = self._held + data
        cut = len(data) - _unclear(data)
        data, self._held = data[:cut], data[cut:]
        if self._place.in_text and b'"' not in data:
            return one_line(data)
        place, lowest = _look(data, self._place)
        if lowest <= 1:
            self._notice_failure(data)
        if place is None:
            end = _end_in(data, self._place)
            self.complete = True
            self._keep(data[end:] + self._held)
            return one_line(data[:end])
        self._place = place
        return one_line(data)

    def end(self) -> RequestId | None:
        """
        Close it: all of the response has come.

        Returns:
            The id in its envelope.

        Raises:
            UpstreamProtocolError: The result did not end, or the envelope is not that of a result.
        """
        if not self.complete:
            raise _broken("it ends in the middle of its result")
        if _SUFFIX.fullmatch(self._suffix) is None:
            raise _broken("something else stands behind its result")
        self._utf8.decode(b"", final=True)  # cannot fail: behind the result everything is ASCII
        response = decode_upstream(self._prefix + b"{}" + self._suffix)
        assert isinstance(response, Response)
        return response.id

    def _decode(self, data: bytes) -> None:
        try:
            self._utf8.decode(data)
        except UnicodeDecodeError as error:
            raise _broken("it is not UTF-8") from error
        self._half_a_character = bool(self._utf8.getstate()[0])

    def _keep(self, data: bytes) -> None:
        self._suffix += data
        if len(self._suffix) > ENVELOPE:
            raise _broken(f"more than {ENVELOPE} bytes stand behind its result")

    def _notice_failure(self, data: bytes) -> None:
        """Look for `isError: true` among the result's own members; deeper down it is somebody else's."""
        at = data.find(_FAILED_KEY)
        while at >= 0 and not self.is_error:
            if data.startswith(_FAILED, at):
                self.is_error = _look(data[:at], self._place)[0] == _Place(1, in_text=False)
            at = data.find(_FAILED_KEY, at + 1)


def _unclear(data: bytes) -> int:
    """How many of the last bytes can only be understood with what follows: half an escape, or half a mark."""
    half = _HALF_A_MARK.search(data, len(data) - _LONGEST_MARK)
    marked = 0 if half is None else len(half.group())
    before = data[: len(data) - marked] if marked else data
    return marked + (len(before) - len(before.rstrip(b"\\"))) % 2


def _look(data: bytes, place: _Place) -> tuple[_Place | None, int]:
    """
    Where the byte behind `data` stands, None if the result ends in it; and a depth below which nothing of it is.

    That depth may be lower than the lowest there is, never higher.
    """
    if not data:
        return place, place.depth
    if b"\\" in data and b'\\"' in data:  # other escapes hide no quote
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    marks = data.translate(_ALIKE, _NOT_MARKS).replace(b'""""', b"").replace(b'""', b"")
    parts = marks.split(b'"')
    brackets = b"".join(parts[place.in_text :: 2])
    in_text = place.in_text == (len(parts) % 2 == 1)
    depth = place.depth
    if not depth and brackets:  # the bracket with which the result opens
        depth, brackets = 1, brackets[1:]
    for _ in range(_MAX_ROUNDS):
        fewer = brackets.replace(b"{}", b"")
        if len(fewer) == len(brackets):
            break
        brackets = fewer
    else:
        return _walked(brackets, depth, in_text=in_text), 0
    closing = brackets.count(b"}")  # all of them in front of those that open
    lowest = depth - closing
    if lowest <= 0:
        return None, 0
    return _Place(lowest + len(brackets) - closing, in_text), lowest


def _walked(brackets: bytes, depth: int, *, in_text: bool) -> _Place | None:
    for bracket in brackets:
        depth += 1 if bracket == ord("{") else -1
        if not depth:
            return None
    return _Place(depth, in_text)


def _end_in(data: bytes, place: _Place) -> int:
    """The offset behind the bracket with which the result ends, which is in `data`."""
    start, end = 0, len(data)
    while end - start > _WALKED:
        middle = (start + end) // 2
        half = data[start:middle]
        middle -= (len(half) - len(half.rstrip(b"\\"))) % 2  # no escape is cut in two
        behind, _ = _look(data[start:middle], place)
        if behind is None:
            end = middle
        else:
            start, place = middle, behind
    depth = place.depth
    if place.in_text:
        rest = _TEXT_END.match(data, start)
        assert rest is not None
        start = rest.end()
    for token in _TOKEN.finditer(data, start):
        first = data[token.start()]
        if first in b"{[":
            depth += 1
        elif first in b"}]":
            depth -= 1
            if not depth:
                return token.end()
    raise AssertionError("the result does not end here")


def _broken(why: str) -> UpstreamProtocolError:
    return UpstreamProtocolError(f"the upstream sent something that is not a JSON-RPC message: {why}")
