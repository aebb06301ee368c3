"""Unguessable ids, many from one call of the system: asking it for each costs more than the rest of making one."""

from __future__ import annotations

import os
from typing import Final

_BYTES: Final = 16
"""Bytes of an id: 128 random bits."""
_AT_ONCE: Final = 128
"""Ids that are made of what the system gives at once."""

_left: Final[list[str]] = []
os.register_at_fork(after_in_child=_left.clear)  # a child that was forked must not give out what its parent holds


def random_id() -> str:
    """32 hex digits of the system's randomness (`os.urandom`), no two alike."""
    if not _left:
        _left.extend(os.urandom(_BYTES * _AT_ONCE).hex(" ", _BYTES).split())
    return _left.pop()
