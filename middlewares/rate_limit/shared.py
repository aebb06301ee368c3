"""
A ledger in a store, for limits that outlive a reload or the process, or count for several processes.

Everything a key owes is one value, so that all windows are charged or none: read, decide, swap, and again if somebody
was faster. Within a process the requests of one key take turns; so only other processes are ever faster.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, final

import trio

from sluiceway.pipeline.model.gcra import FRESH, NS_PER_S, Limit, State, nanoseconds
from sluiceway.pipeline.model.store import Store
from sluiceway.pipeline.protocol.errors import SluicewayError

MAX_SWAPS: Final = 64
"""Times that others may be faster before it counts as a failure of the store."""
MOST_S: Final = 2.0
"""Seconds that asking the store may take, with the wait for those of the same key."""


class StoreFailed(Exception):
    """The store could not say, or be told, what a key owes. Whether it was charged is not known."""


@final
class SharedLedger:
    """
    What the keys of one limit owe, in a store. As bounded as the store is: one that is full forgets debts.

    Processes agree on the time by their wall clocks; within a run it goes on by the Trio clock from one reading.

    Args:
        limit: The limit. Another one counts anew: its numbers are others.
        store: Open as long as this is used.
        prefix: Of its keys in the store.
    """

    def __init__(self, limit: Limit, store: Store, prefix: str) -> None:
        self._limit = limit
        self._store = store
        self._prefix = f"{prefix}:{limit}:"
        self._turns: dict[str, trio.Lock] = {}
        self._offset_ns = time.time_ns() - nanoseconds(trio.current_time())

    async def take(self, key: str, weight: int, patience_ns: int) -> tuple[int, State, int]:
        """
        Charge a key if that fits within `patience_ns`, as `Ledger.take` does.

        Returns:
            Nanoseconds until it fits, what the key owes now, and the time that both are reckoned from.

        Raises:
            StoreFailed: The store failed or took longer than `MOST_S`, or others were faster `MAX_SWAPS` times.
        """
        with trio.move_on_after(MOST_S):
            async with self._turn(key):
                try:
                    return await self._take(self._prefix + key, weight, patience_ns)
                except (SluicewayError, OSError) as error:
                    raise StoreFailed(str(error)) from error
        raise StoreFailed(f"no answer within {MOST_S:g} s")

    async def _take(self, key: str, weight: int, patience_ns: int) -> tuple[int, State, int]:
        limit = self._limit
        for _ in range(MAX_SWAPS):
            held = await self._store.get(key)
            now_ns = nanoseconds(trio.current_time()) + self._offset_ns
            state = limit.not_beyond(decode(held, len(limit.windows)), now_ns, patience_ns)
            charged, wait_ns = limit.charge(state, now_ns, weight)
            if wait_ns > patience_ns:
                return wait_ns, state, now_ns
            ttl_s = limit.debt_ns(charged, now_ns) / NS_PER_S
            if await self._store.swap(key, held, encode(charged), ttl_s=ttl_s):
                return wait_ns, charged, now_ns
        raise StoreFailed(f"others were faster {MAX_SWAPS} times")

    @asynccontextmanager
    async def _turn(self, key: str) -> AsyncIterator[None]:
        """First come, first served. A key's lock exists while somebody has it, or waits for it."""
        turn = self._turns.get(key)
        if turn is None:
            turn = self._turns[key] = trio.Lock()
        try:
            async with turn:
                yield
        finally:
            if not turn.locked():
                self._turns.pop(key, None)


def encode(state: State) -> bytes:
    """A state as a store keeps it."""
    return " ".join(map(str, state if isinstance(state, tuple) else (state,))).encode()


def decode(value: bytes | None, windows: int) -> State:
    """A state as it was kept; nothing, and what is no state of so many windows, is a fresh one."""
    try:
        arrivals = tuple(map(int, (value or b"").split()))
    except ValueError:
        return FRESH
    if len(arrivals) != windows:
        return FRESH
    return arrivals if windows > 1 else arrivals[0]
