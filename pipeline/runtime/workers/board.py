"""
How many connections each worker has, where every worker can see it: a page of memory that they share.

It tells who should accept the next client. A worker that has more connections than another one hesitates, and so the
other is first; if that one is busy, or stuck, the first takes the client all the same.
"""

from __future__ import annotations

import mmap
import os
import sys
import tempfile
from typing import Final, final

_WIDTH: Final = 8
_VACANT: Final = 0


@final
class Board:
    """
    One number for each slot; each is written by one process at a time.

    Args:
        descriptor: Of the shared memory; closed by `close`.
        slots: Workers that have a place in it.
    """

    def __init__(self, descriptor: int, slots: int) -> None:
        self.descriptor = descriptor
        self.slots = slots
        self._memory = mmap.mmap(descriptor, slots * _WIDTH)
        self._numbers = memoryview(self._memory).cast("Q")

    @classmethod
    def make(cls, slots: int) -> Board:
        """Fresh memory in which all slots are vacant."""
        if sys.platform == "linux":
            descriptor = os.memfd_create("sluiceway")
        else:
            with tempfile.TemporaryFile() as file:
                descriptor = os.dup(file.fileno())
        os.ftruncate(descriptor, slots * _WIDTH)
        return cls(descriptor, slots)

    def set(self, slot: int, connections: int) -> None:
        """Say how many connections a worker that accepts has."""
        self._numbers[slot] = connections + 1

    def vacate(self, slot: int) -> None:
        """Nobody accepts there."""
        self._numbers[slot] = _VACANT

    def connections(self, slot: int) -> int | None:
        """Of the worker in a slot; None if nobody accepts there."""
        number = self._numbers[slot]
        return None if number == _VACANT else number - 1

    def least(self, connections: int) -> int:
        """The fewest that a worker has which accepts; so many if none has fewer."""
        return min([connections, *(number - 1 for number in self._numbers if number != _VACANT)])

    def close(self) -> None:
        """Let go of the memory."""
        self._numbers.release()
        self._memory.close()
        os.close(self.descriptor)
