"""
Where answers are kept: memory first, then stores, each slower and larger than the one above.

What is found below is put into the tiers above with the time it has left, not with a new one. A store that fails or
dawdles fails no request: it is left alone for a while. Something that becomes void is void at once, in every tier: in
memory it is removed, and what a store still holds of it is not believed until it is removed there, too.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any, Final, Protocol, TypeVar, final

import msgspec
import trio
from attrs import define, evolve

from sluiceway.pipeline.model.component import Store
from sluiceway.pipeline.protocol.errors import SluicewayError
from sluiceway.pipeline.stores.content import ContentStore

from .entry import Entry
from .names import EVERYTHING, Selector

MAX_PENDING: Final = 64
"""Invalidations that a store has not carried out yet; then everything in it is void."""
OVERHEAD: Final = 400
"""Bytes that an entry takes beside its own, by measurement."""
_SLACK: Final = 64
_FAILURES: Final = 5
"""Failures in a row after which a store is left alone."""
_REST_S: Final = 10.0
"""For how long it is."""

_T = TypeVar("_T")


class Tier(Protocol):
    """One place where answers are kept. Bounded; what is past its `kept_until` is not there."""

    async def get(self, name: str) -> Entry | None:
        """The entry of a name, or None."""
        ...

    async def put(self, name: str, entry: Entry) -> None:
        """Keep an entry, replacing what was there, until it is of no use or there is no room."""
        ...

    async def delete(self, name: str) -> None:
        """Forget a name."""
        ...

    async def purge(self, selector: Selector) -> int:
        """Forget all names of a selector; how many there were."""
        ...


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
    The tier above all others. Not one of its methods is a checkpoint.

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

    def find(self, name: str, now: float) -> Entry | None:
        """The entry of a name, or None; asking for it is a use."""
        slot = self._slots.get(name)
        if slot is None:
            return None
        if slot.entry.kept_until <= now or slot.used + self._max_idle_s <= now:
            self._remove(name)
            return None
        slot.used = now
        self._slots.move_to_end(name)
        return slot.entry

    def keep(self, name: str, entry: Entry, now: float) -> None:
        """Put an entry; nothing happens with one that is larger than all there is."""
        self._remove(name)
        size = len(name) + len(entry.meta) + OVERHEAD
        if size + len(entry.body) > self._max_bytes or entry.kept_until <= now:
            return
        self._drop_dead(now)
        while self._slots and (
            len(self._slots) >= self._max_entries or self.bytes + size + len(entry.body) > self._max_bytes
        ):
            self._remove(next(iter(self._slots)))
            self.evicted += 1
        content = self._contents.keep(entry.body)
        shared = self._contents.get(content)
        assert shared is not None
        self._slots[name] = _Slot(evolve(entry, body=shared), content, size, now)
        self._bytes += size
        heapq.heappush(self._ends, (entry.kept_until, name))

    def drop(self, selector: Selector) -> int:
        """Forget all names of a selector; how many there were."""
        matches = selector.compile()
        found = [name for name in self._slots if matches(name)]
        for name in found:
            self._remove(name)
        return len(found)

    async def get(self, name: str) -> Entry | None:
        """See `Tier`."""
        return self.find(name, trio.current_time())

    async def put(self, name: str, entry: Entry) -> None:
        """See `Tier`."""
        self.keep(name, entry, trio.current_time())

    async def delete(self, name: str) -> None:
        """See `Tier`."""
        self._remove(name)

    async def purge(self, selector: Selector) -> int:
        """See `Tier`."""
        return self.drop(selector)

    def _remove(self, name: str) -> None:
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
                self._remove(name)
        while self._slots:
            name, slot = next(iter(self._slots.items()))
            if slot.used + self._max_idle_s > now:
                break
            self._remove(name)
        if len(self._ends) > 2 * len(self._slots) + _SLACK:  # most belong to entries replaced or removed since
            self._ends = [(slot.entry.kept_until, name) for name, slot in self._slots.items()]
            heapq.heapify(self._ends)


_Stored = tuple[bool, bool, float, float, float, float, bytes, bytes]
_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(_Stored).decode


@final
class StoreTier:
    """
    A tier in a store. Whatever the store raises comes out; times are dates, for it may outlive the process.

    Args:
        store: The store.
        prefix: Of all its keys there.
        date: Seconds since 1970, as `Context.now`.
    """

    def __init__(self, store: Store, prefix: str, date: Callable[[], float]) -> None:
        self._store = store
        self._prefix = prefix
        self._date = date

    async def get(self, name: str) -> Entry | None:
        """See `Tier`. What cannot be read is not there."""
        raw = await self._store.get(self._prefix + name)
        if raw is None:
            return None
        try:
            is_error, has_hints, *dates, body, meta = _decode(raw)
        except msgspec.DecodeError:
            return None
        offset = trio.current_time() - self._date()
        born, fresh, stale, error = (date + offset for date in dates)
        entry = Entry(body, meta, is_error, has_hints, born, fresh, stale, error)
        return entry if entry.kept_until > trio.current_time() else None

    async def put(self, name: str, entry: Entry) -> None:
        """See `Tier`."""
        now = trio.current_time()
        left_s = entry.kept_until - now
        if left_s <= 0:
            return
        offset = self._date() - now
        dates = (time + offset for time in (entry.born, entry.fresh_until, entry.stale_until, entry.error_until))
        value = _encode((entry.is_error, entry.has_hints, *dates, entry.body, entry.meta))
        await self._store.put(self._prefix + name, value, ttl_s=left_s)

    async def delete(self, name: str) -> None:
        """See `Tier`."""
        await self._store.delete(self._prefix + name)

    async def purge(self, selector: Selector) -> int:
        """See `Tier`."""
        matches, width, count = selector.compile(), len(self._prefix), 0
        method = next(iter(selector.methods)) if selector.methods is not None and len(selector.methods) == 1 else ""
        for key in await self._store.keys(self._prefix + (f"{method}\t" if method else "")):
            if matches(key[width:]):
                count += await self._store.delete(key)
        return count


@final
class LowerTier:
    """
    A tier that may fail, and what of it is void although it still holds it. Never raises, never takes long.

    Args:
        name: What it is called in status and log.
        tier: The tier.
        patience_s: Seconds any operation may take.
        log: Where failures are told.
    """

    def __init__(self, name: str, tier: Tier, patience_s: float, log: Any) -> None:
        self.name = name
        self._tier = tier
        self._patience_s = patience_s
        self._log = log
        self._rests_until = float("-inf")
        self._failed_in_row = 0
        self._void: list[tuple[Selector, Callable[[str], bool]]] = []
        self._declared = 0
        self.hits = 0
        """Entries found here, and in no tier above."""
        self.failures = 0
        """Operations that failed or took too long."""

    @property
    def pending(self) -> int:
        """Invalidations it has not carried out yet."""
        return len(self._void)

    async def get(self, name: str) -> Entry | None:
        """The entry of a name, unless it is void."""
        if self._is_void(name):
            return None
        declared = self._declared
        found = await self._guarded(lambda: self._tier.get(name))
        if found is None or self._declared != declared:  # what was read may have become void, and been removed, since
            return None
        self.hits += 1
        return found

    async def put(self, name: str, entry: Entry) -> None:
        """Keep an entry, if that goes well."""
        await self._guarded(lambda: self._tier.put(name, entry))

    async def delete(self, name: str) -> None:
        """Forget a name; if that fails, what it holds of it is void."""
        if not await self._carry_out(lambda: self._tier.delete(name)):
            self.declare_void(Selector(key=name))

    def declare_void(self, selector: Selector) -> None:
        """Believe nothing of this from now on; `sweep` removes it."""
        if len(self._void) >= MAX_PENDING:
            self._void.clear()
            selector = EVERYTHING
        self._declared += 1
        self._void.append((selector, selector.compile()))

    async def sweep(self) -> bool:
        """Remove what is void; whether all of it is gone."""
        for void in tuple(self._void):
            selector = void[0]
            if not await self._carry_out(partial(self._tier.purge, selector)):
                return False
            if void in self._void:
                self._void.remove(void)
        return not self._void

    def _is_void(self, name: str) -> bool:
        return any(matches(name) for _, matches in self._void)

    async def _carry_out(self, operation: Callable[[], Awaitable[object]]) -> bool:
        before = self.failures
        if self._rests_until > trio.current_time():
            return False
        await self._guarded(operation)
        return self.failures == before

    async def _guarded(self, operation: Callable[[], Awaitable[_T]]) -> _T | None:
        if self._rests_until > trio.current_time():
            return None
        with trio.move_on_after(self._patience_s):
            try:
                result = await operation()
            except (SluicewayError, OSError) as error:
                self._fail(str(error))
                return None
            self._failed_in_row = 0
            return result
        self._fail(f"nothing came within {self._patience_s:g} s")
        return None

    def _fail(self, why: str) -> None:
        self.failures += 1
        self._failed_in_row += 1
        if self._failed_in_row == 1:
            self._log.warning("a tier of the cache fails", tier=self.name, error=why)
        if self._failed_in_row >= _FAILURES:
            self._rests_until = trio.current_time() + _REST_S


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
            await self.memory.delete(name)
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
                await trio.sleep(_REST_S)
                await self.sweep()

    def rows(self) -> Iterator[tuple[str, LowerTier]]:
        """The stores by name."""
        for tier in self.lower:
            yield tier.name, tier
