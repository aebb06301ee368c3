"""Stores in a test case: in memory, and failing where the case says so."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, final

import trio

from ...model.component import Component, Context
from ...model.faults import StoreFault, dice_for
from ...model.store import Store, store
from ...protocol.errors import ComponentError
from ...stores.memory import MemoryStore
from ..configs import make_config


@final
@store("faulty")
class FaultyStore(Store):
    """
    A store in memory, whatever was declared, so that a case leaves nothing behind and waits for no disk.

    Args:
        store_id: Whose place it takes.
        options: Those of the store in memory that was declared; None for its defaults.
        faults: What goes wrong with its operations, tried in order.
        rng: What the faults are seeded from.

    Raises:
        ComponentError: From its operations, as the faults say.
    """

    def __init__(self, store_id: str, options: Any | None, faults: Sequence[StoreFault], rng: random.Random) -> None:
        super().__init__(None, Context(id=f"stores.{store_id}"))
        self._store = MemoryStore(make_config(MemoryStore, None) if options is None else options, self.context)
        self._rows = list(zip(faults, dice_for(faults, rng), strict=True))

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        async with self._store.open():
            yield

    async def get(self, key: str) -> bytes | None:
        await self._suffer()
        return await self._store.get(key)

    async def put(self, key: str, value: bytes, *, ttl_s: float | None = None) -> None:
        await self._suffer()
        await self._store.put(key, value, ttl_s=ttl_s)

    async def swap(self, key: str, expected: bytes | None, value: bytes, *, ttl_s: float | None = None) -> bool:
        await self._suffer()
        return await self._store.swap(key, expected, value, ttl_s=ttl_s)

    async def delete(self, key: str) -> bool:
        await self._suffer()
        return await self._store.delete(key)

    async def keys(self, prefix: str = "") -> list[str]:
        await self._suffer()
        return await self._store.keys(prefix)

    def size(self) -> int:
        return self._store.size()

    async def _suffer(self) -> None:
        for fault, dice in self._rows:
            delay_s = dice.roll()
            if delay_s is None:
                continue
            await trio.sleep(delay_s)
            if fault.effect == "hang":
                await trio.sleep_forever()
            if fault.effect == "fail":
                raise ComponentError(self.context.id, "run", "a fault on purpose: the store fails")


def options_in_memory(cls: type[Component], config: Any) -> Any | None:
    """The options of a declared store, if it is one in memory."""
    return config if cls is MemoryStore else None
