"""
Where answers are kept: memory first, then stores, each slower and larger than the one above.

What is found below is put into the tiers above with the time it has left, not with a new one. Something that becomes
void is void at once, in every tier.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import trio

from .entry import Entry
from .memory_tier import MemoryTier
from .names import Selector
from .store_tier import REST_S, LowerTier


@final
class Tiers:
    """
    All tiers of a stage, as one.

    Args:
        memory: The first; None to go without.
        lower: The others, nearest first.
    """

    def __init__(self, memory: MemoryTier | None, lower: tuple[LowerTier, ...]) -> None:
        self.memory = memory
        self.lower = lower
        self._has_void = trio.Event()

    async def get(self, name: str) -> Entry | None:
        """The entry of a name, from the nearest tier that has it; those above get it, too."""
        for depth, tier in enumerate(self.lower):
            entry = await tier.get(name)
            if entry is not None:
                if self.memory is not None:
                    self.memory.keep(name, entry, trio.current_time())
                for above in self.lower[:depth]:
                    await above.put(name, entry)
                return entry
        return None

    async def put(self, name: str, entry: Entry, is_void: Callable[[], bool]) -> None:
        """
        Keep an entry in every tier.

        Args:
            name: Its name.
            entry: The entry.
            is_void: Whether it has become void; asked again when the slower tiers have it.
        """
        if self.memory is not None:
            self.memory.keep(name, entry, trio.current_time())
        for tier in self.lower:
            await tier.put(name, entry)
            if is_void():
                await tier.delete(name)

    async def delete(self, name: str) -> None:
        """Forget a name."""
        if self.memory is not None:
            self.memory.remove(name)
        for tier in self.lower:
            await tier.delete(name)

    def invalidate(self, selector: Selector) -> int:
        """Make entries void, at once and without blocking; how many were in memory."""
        for tier in self.lower:
            tier.declare_void(selector)
        self._has_void.set()
        return self.memory.drop(selector) if self.memory is not None else 0

    async def sweep(self) -> None:
        """Remove from the stores what is void there."""
        for tier in self.lower:
            await tier.sweep()

    async def sweep_forever(self) -> None:
        """Do so whenever something has become void; again after a pause where it failed. Runs until cancelled."""
        while True:
            await self._has_void.wait()
            self._has_void = trio.Event()
            await self.sweep()
            while any(tier.pending for tier in self.lower):
                await trio.sleep(REST_S)
                await self.sweep()
