"""The store `memory`: this process only, gone with it."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from typing import Final, final

import trio
from attrs import frozen

from ..model.component import Context
from ..model.options import MIB, Size, option
from ..model.store import Store, store
from ..protocol.errors import CapacityExceeded

_SLACK: Final = 64


@final
@frozen
class _Entry:
    value: bytes
    expires: float
    """Trio clock seconds; infinite if never."""


@store("memory")
@final
class MemoryStore(Store):
    """
    Bytes by key in memory. When it is full, expired entries go first, then those not used for longest.

    Nothing runs in the background: an expired entry is never returned, and it is removed when it is next asked for
    or when something is stored. No method blocks, and none is a checkpoint.
    """

    @frozen
    class Config:
        """Options of `memory`."""

        max_entries: int = option(10_000, ge=1, doc="Entries held at most; above this the least recently used goes.")
        max_bytes: Size = option(
            Size(64 * MIB), ge=1, doc="Bytes of keys and values together; above this the least recently used goes."
        )

    def __init__(self, config: Config, context: Context) -> None:
        super().__init__(config, context)
        self._max_entries = config.max_entries
        self._max_bytes: int = config.max_bytes
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._expiring: list[tuple[float, str]] = []
        self._bytes = 0
        self.evicted = 0
        """Live entries that had to go because the store was full, since it was made."""

    async def get(self, key: str) -> bytes | None:
        """The live value of a key, or None; a value that is read counts as used."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.expires <= trio.current_time():
            self._remove(key)
            return None
        self._entries.move_to_end(key)
        return entry.value

    async def put(self, key: str, value: bytes, *, ttl_s: float | None = None) -> None:
        """
        Store a value, replacing what was there.

        Args:
            key: Any text.
            value: Any bytes.
            ttl_s: Seconds of the Trio clock after which it is gone; None for never.

        Raises:
            CapacityExceeded: The entry alone is larger than `max_bytes`. What was there stays.
        """
        size = len(key) + len(value)
        if size > self._max_bytes:
            raise CapacityExceeded(
                f"an entry of {size} bytes does not fit into store {self.context.id!r}: max_bytes is {self._max_bytes}"
            )
        now = trio.current_time()
        if key in self._entries:
            self._remove(key)
        expires = float("inf") if ttl_s is None else now + ttl_s
        self._entries[key] = _Entry(value, expires)
        self._bytes += size
        if ttl_s is not None:
            heapq.heappush(self._expiring, (expires, key))
        self._drop_expired(now)
        while len(self._entries) > self._max_entries or self._bytes > self._max_bytes:
            self._remove(next(iter(self._entries)))
            self.evicted += 1

    async def swap(self, key: str, expected: bytes | None, value: bytes, *, ttl_s: float | None = None) -> bool:
        """
        Store a value if the key holds `expected` (None: nothing that is live); whether it did.

        Raises:
            CapacityExceeded: As `put` does.
        """
        entry = self._entries.get(key)
        held = None if entry is None or entry.expires <= trio.current_time() else entry.value
        if held != expected:
            return False
        await self.put(key, value, ttl_s=ttl_s)  # no checkpoint, so nobody comes between
        return True

    async def delete(self, key: str) -> bool:
        """Remove a key; whether it was there and live."""
        entry = self._entries.get(key)
        if entry is None:
            return False
        self._remove(key)
        return entry.expires > trio.current_time()

    async def keys(self, prefix: str = "") -> list[str]:
        """The live keys that start with `prefix`, sorted."""
        now = trio.current_time()
        return sorted(key for key, entry in self._entries.items() if entry.expires > now and key.startswith(prefix))

    def size(self) -> int:
        """How many entries it holds, expired ones not yet removed included."""
        return len(self._entries)

    def _remove(self, key: str) -> None:
        self._bytes -= len(key) + len(self._entries.pop(key).value)

    def _drop_expired(self, now: float) -> None:
        while self._expiring and self._expiring[0][0] <= now:
            expires, key = heapq.heappop(self._expiring)
            entry = self._entries.get(key)
            if entry is not None and entry.expires == expires:
                self._remove(key)
        if len(self._expiring) > 2 * len(self._entries) + _SLACK:  # most belong to entries replaced or removed since
            self._expiring = [(e.expires, key) for key, e in self._entries.items() if e.expires != float("inf")]
            heapq.heapify(self._expiring)
