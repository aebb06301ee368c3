"""
Cursors of merged lists: one page of the client is one page of every upstream that has more.

A cursor holds each such upstream's own one. It is opaque and authenticated (keyed BLAKE2b), and bound to the list and
to the caller, so nobody can make an upstream read what it never wrote. It is not encrypted: the upstream's cursor was
meant for the client. An upstream that goes round in circles is found by Brent's method: with every position goes the
digest of the one at the last power of two, which a circle must come back to.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from typing import Final, final

import msgspec
from attrs import frozen

from sluiceway.pipeline.model.session import Caller
from sluiceway.pipeline.protocol.messages import Json

_DIGEST: Final = 16
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
        self._key = key
        self._encode = msgspec.json.Encoder().encode
        self._decode = msgspec.json.Decoder(dict[str, tuple[str, int, str]]).decode

    def seal(self, method: str, caller: Caller, positions: Mapping[str, Position]) -> str:
        """The cursor of some positions, by the id of their upstream."""
        body = self._encode({key: (each.cursor, each.page, each.mark) for key, each in positions.items()})
        return urlsafe_b64encode(self._tag(method, caller, body) + body).decode().rstrip("=")

    def open(self, method: str, caller: Caller, cursor: Json) -> dict[str, Position]:
        """
        The positions in a cursor.

        Raises:
            BadCursor: It is not one that `seal` made for this method and caller.
        """
        try:
            sealed = urlsafe_b64decode(f"{cursor}{'=' * (-len(cursor) % 4)}".encode("ascii"))
        except (TypeError, ValueError, binascii.Error) as error:
            raise BadCursor("not a cursor of this list; start again without one") from error
        tag, body = sealed[:_DIGEST], sealed[_DIGEST:]
        if not hmac.compare_digest(tag, self._tag(method, caller, body)):
            raise BadCursor("not a cursor of this list; start again without one")
        return {key: Position(*each) for key, each in self._decode(body).items()}

    def _tag(self, method: str, caller: Caller, body: bytes) -> bytes:
        said = self._encode([method, caller.subject, caller.tenant]) + body
        return hashlib.blake2b(said, key=self._key, digest_size=_DIGEST).digest()
