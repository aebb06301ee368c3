"""
Tiers of the cache that are stores: they outlive the process, and they can fail.

A store that fails or dawdles fails no request: it is left alone for a while. What it still holds although it has become
void is not believed until it is removed there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, Protocol, TypeVar, final

import msgspec
import trio

from sluiceway.pipeline.model.store import Store
from sluiceway.pipeline.protocol.errors import SluicewayError

from .entry import Entry
from .names import EVERYTHING, Selector

MAX_PENDING: Final = 64
"""Invalidations that a store has not carried out yet; then everything in it is void."""
REST_S: Final = 10.0
"""For how long a store that fails is left alone, in seconds."""
_FAILURES: Final = 5
"""Failures in a row after which it is."""

_T = TypeVar("_T")


class Tier(Protocol):
    """A place below memory where answers are kept. Bounded; what is past its `kept_until` is not there. May fail."""

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
            self._rests_until = trio.current_time() + REST_S
