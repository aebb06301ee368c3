"""
Pages of lists: a cursor names the last item already given, so that a list may change between two pages.

The cursor is opaque to clients and holds nothing secret; any process can continue what another one began.
"""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from typing import TypeVar

from sluiceway.pipeline.protocol.messages import Json

from .errors import InvalidParams

_T = TypeVar("_T")


def page_of(kind: str, items: Mapping[str, _T], size: int, cursor: Json) -> tuple[list[_T], str | None]:
    """
    One page.

    Args:
        kind: Names the list; a cursor of another list is refused.
        items: Everything, in a stable order, by key.
        size: Items per page.
        cursor: The client's; None for the first page.

    Returns:
        The page, and the cursor of the next one or None.

    Raises:
        InvalidParams: The cursor is not one of ours, or its item is gone (the client starts again).
    """
    keys = list(items)
    start = 0 if cursor is None else _position(kind, keys, cursor)
    page = keys[start : start + size]
    more = start + size < len(keys)
    return [items[key] for key in page], _render(kind, page[-1]) if more else None


def _render(kind: str, last: str) -> str:
    return urlsafe_b64encode(f"{kind}\n{last}".encode()).decode().rstrip("=")


def _position(kind: str, keys: list[str], cursor: Json) -> int:
    try:
        text = urlsafe_b64decode(f"{cursor}{'=' * (-len(cursor) % 4)}".encode("ascii")).decode()
        last = text.partition("\n")[2]
        if _render(kind, last) == cursor:
            return keys.index(last) + 1
    except (TypeError, ValueError, binascii.Error):
        pass
    raise InvalidParams("cursor: not a cursor of this list; start again without one")
