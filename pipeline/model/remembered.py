"""A table with a bound, for what can be found out again: verified tokens, rules that concern a caller, names."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import TypeVar, final

_K = TypeVar("_K", bound=Hashable)
_V = TypeVar("_V")


@final
class Remembered(OrderedDict[_K, _V]):
    """
    At most so many entries; what was kept longest ago falls out, in constant time (a plain dict looks at every gap).

    Args:
        most: Entries.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most
        """Entries at most."""

    def keep(self, key: _K, value: _V) -> None:
        """Put an entry, as the latest."""
        self[key] = value
        self.move_to_end(key)
        if len(self) > self.most:
            self.popitem(last=False)
