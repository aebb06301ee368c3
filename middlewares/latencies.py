"""
How long answers took lately, and what share of them took no longer: a window of the latest samples, kept sorted.

Exact, constant size, and cheap at this size: an insertion moves a few hundred bytes.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from typing import final


@final
class Latencies:
    """
    The latest samples, in seconds.

    Args:
        size: Samples kept; the oldest goes first.
    """

    __slots__ = ("_size", "_sorted", "_window")

    def __init__(self, size: int) -> None:
        self._size = size
        self._window: deque[float] = deque()
        self._sorted: list[float] = []

    def __len__(self) -> int:
        return len(self._window)

    def add(self, seconds: float) -> None:
        """Take in a sample."""
        if len(self._window) >= self._size:
            del self._sorted[bisect_left(self._sorted, self._window.popleft())]
        self._window.append(seconds)
        insort(self._sorted, seconds)

    def quantile(self, share: float) -> float:
        """The least sample that at least this share of them does not exceed; there must be one."""
        index = min(len(self._sorted) - 1, max(0, -int(-share * len(self._sorted) // 1) - 1))
        return self._sorted[index]
