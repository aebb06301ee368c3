"""
Cursors of merged lists: one page of the client is one page of every upstream that has more.

A cursor holds each such upstream's own one, sealed for the list and the caller (`seals`). An upstream that goes round
in circles is found by Brent's method: with every position goes the digest of the one at the last power of two, which a
circle must come back to.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final, final

import msgspec
from attrs import frozen

from sluiceway.pipeline.model.session import Caller
from sluiceway.pipeline.protocol.messages import Json

from ..seals import BadSeal, Seals

_MARK: Final = 8


class BadCursor(ValueError):
    """A cursor that is not ours, was changed, or belongs to another list or caller."""


class CursorLoop(ValueError):
    """The cursors of an upstream go round in a circle."""


@final
@frozen
class Position:
    """Where to go on at one upstream."""

    cursor: str
    """Its own; may be empty, which is a valid cursor."""
    page: int = 1
    """Pages seen before it."""
    mark: str = ""
    """Digest of the cursor at the last power of two."""

    def advance(self, cursor: str) -> Position:
        """
        The position after this one.

        Raises:
            CursorLoop: It has been here before.
        """
        digest = _mark(cursor)
        if cursor == self.cursor or digest == self.mark:
            raise CursorLoop(f"page {self.page + 1} leads back to an earlier one")
        page = self.page + 1
        return Position(cursor, page, digest if page & (page - 1) == 0 else self.mark)


def first_position(cursor: str) -> Position:
    """The position after the first page."""
    return Position(cursor, 1, _mark(cursor))


def _mark(cursor: str) -> str:
    return hashlib.blake2b(cursor.encode(), digest_size=_MARK).hexdigest()


@final
class Cursors:
    """
    Makes and reads cursors.

    Args:
        key: At most 64 bytes.
    """

    def __init__(self, key: bytes) -> None:
        self._seals = Seals(key)
        self._encode = msgspec.json.Encoder().encode
        self._decode = msgspec.json.Decoder(dict[str, tuple[str, int, str]]).decode

    def seal(self, method: str, caller: Caller, positions: Mapping[str, Position]) -> str:
        """The cursor of some positions, by the id of their upstream."""
        body = self._encode({key: (each.cursor, each.page, each.mark) for key, each in positions.items()})
        return self._seals.seal(method, caller, body)

    def open(self, method: str, caller: Caller, cursor: Json) -> dict[str, Position]:
        """
        The positions in a cursor.

        Raises:
            BadCursor: It is not one that `seal` made for this method and caller.
        """
        try:
            body = self._seals.open(method, caller, cursor)
        except BadSeal as error:
            raise BadCursor("not a cursor of this list; start again without one") from error
        return {key: Position(*each) for key, each in self._decode(body).items()}
