"""The tier of the cache that is memory: the least recently used goes first, and equal bodies are held once."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from typing import Final, final

from attrs import define, evolve

from sluiceway.pipeline.stores.content import ContentStore

from .entry import Entry
from .names import Selector

OVERHEAD: Final = 400
"""Bytes that an entry takes beside its own, by measurement."""
_SLACK: Final = 64


@final
@define(eq=False)
class _Slot:
    """An entry in memory; its body is in the content store, once for all that are equal."""

    entry: Entry
    content: str
    size: int
    used: float


@final
class MemoryTier:
    """
    The tier above all others; unlike those below it never fails and never blocks.

    Args:
        max_entries: Entries held; above this the least recently used goes.
        max_bytes: Bytes of all entries; likewise.
        max_idle_s: Seconds after which an entry that nobody asked for is gone.
    """

    def __init__(self, max_entries: int, max_bytes: int, max_idle_s: float) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._max_idle_s = max_idle_s
        self._slots: OrderedDict[str, _Slot] = OrderedDict()
        self._ends: list[tuple[float, str]] = []
        self._contents = ContentStore(max_bytes)
        self._bytes = 0
        self.evicted = 0
        """Entries that had to go because there was no room."""

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def bytes(self) -> int:
        """Bytes held now; equal bodies count once."""
        return self._bytes + self._contents.bytes

    @property
    def duplicates(self) -> int:
        """Entries whose body was held already when they came."""
        return self._contents.duplicates

    def find(self, name: str, now: float) -> Entry | None:
        """The entry of a name, or None; asking for it is a use."""
        slot = self._slots.get(name)
        if slot is None:
            return None
        if slot.entry.kept_until <= now or slot.used + self._max_idle_s <= now:
            self.remove(name)
            return None
        slot.used = now
        self._slots.move_to_end(name)
        return slot.entry

    def keep(self, name: str, entry: Entry, now: float) -> None:
        """Put an entry; nothing happens with one that is larger than all there is."""
        self.remove(name)
        size = len(name) + len(entry.meta) + OVERHEAD
        if size + len(entry.body) > self._max_bytes or entry.kept_until <= now:
            return
        self._drop_dead(now)
        while self._slots and (
            len(self._slots) >= self._max_entries or self.bytes + size + len(entry.body) > self._max_bytes
        ):
            self.remove(next(iter(self._slots)))
            self.evicted += 1
        content = self._contents.keep(entry.body)
        shared = self._contents.get(content)
        assert shared is not None
        if shared is not entry.body:
            entry = evolve(entry, body=shared)
        self._slots[name] = _Slot(entry, content, size, now)
        self._bytes += size
        heapq.heappush(self._ends, (entry.kept_until, name))

    def drop(self, selector: Selector) -> int:
        """Forget all names of a selector; how many there were."""
        matches = selector.compile()
        found = [name for name in self._slots if matches(name)]
        for name in found:
            self.remove(name)
        return len(found)

    def remove(self, name: str) -> None:
        """Forget a name; harmless for one that is not there."""
        slot = self._slots.pop(name, None)
        if slot is not None:
            self._bytes -= slot.size
            self._contents.release(slot.content)

    def _drop_dead(self, now: float) -> None:
        """Remove what is past its time, and what nobody asked for; the least recently used stand first."""
        while self._ends and self._ends[0][0] <= now:
            end, name = heapq.heappop(self._ends)
            slot = self._slots.get(name)
            if slot is not None and slot.entry.kept_until == end:
                self.remove(name)
        while self._slots:
            name, slot = next(iter(self._slots.items()))
            if slot.used + self._max_idle_s > now:
                break
            self.remove(name)
        if len(self._ends) > 2 * len(self._slots) + _SLACK:  # most belong to entries replaced or removed since
            self._ends = [(slot.entry.kept_until, name) for name, slot in self._slots.items()]
            heapq.heapify(self._ends)
