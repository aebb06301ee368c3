"""The contract of stores: what is put is what is got, until it expires."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import trio
from trio.testing import MockClock

from ..model.store import Store
from .contract_subject import Subject, cancelled_anywhere
from .musts import ContractViolation

_VALUES: Final = {
    "plain": b"value",
    "empty": b"",
    "binary": bytes(range(256)),
    "a key: with / odd * characters % _ ? [x] \N{SNOWMAN} '\"\\": b"odd",
    "k" * 200: b"v" * 10_000,
}
_MAX_FILL: Final = 1000


def _expect(must: str, what: str, expected: object, actual: object) -> None:
    if expected != actual:
        raise ContractViolation(must, f"{what}: expected {expected!r:.200}, got {actual!r:.200}")


async def check_values(subject: Subject) -> None:
    """M-VALUES and M-SIZE."""
    store: Store = subject.make()
    async with store.open():
        for key in list(await store.keys()):
            await store.delete(key)
        _expect("M-VALUES", "get of an unknown key", None, await store.get("unknown"))
        _expect("M-VALUES", "delete of an unknown key", False, await store.delete("unknown"))
        for key, value in _VALUES.items():
            await store.put(key, b"before")
            await store.put(key, value)
        for key, value in _VALUES.items():
            _expect("M-VALUES", f"get of {key!r:.60}", value, await store.get(key))
        _expect("M-SIZE", "after putting", len(_VALUES), store.size())
        for key in _VALUES:
            _expect("M-VALUES", f"delete of {key!r:.60}", True, await store.delete(key))
            _expect("M-VALUES", f"get of the deleted {key!r:.60}", None, await store.get(key))
        _expect("M-SIZE", "after deleting everything", 0, store.size())


async def check_keys(subject: Subject) -> None:
    """M-KEYS."""
    store: Store = subject.make()
    async with store.open():
        for key in ("b:2", "a:1", "a:2", "a%b", "a_b", "axb", "A:1"):
            await store.put(key, b"")
        _expect("M-KEYS", "all", ["A:1", "a%b", "a:1", "a:2", "a_b", "axb", "b:2"], await store.keys())
        _expect("M-KEYS", "prefix 'a:'", ["a:1", "a:2"], await store.keys("a:"))
        _expect("M-KEYS", "prefix 'a%'", ["a%b"], await store.keys("a%"))
        _expect("M-KEYS", "prefix 'a_'", ["a_b"], await store.keys("a_"))
        _expect("M-KEYS", "prefix nobody has", [], await store.keys("z"))
        for key in await store.keys():
            await store.delete(key)


async def check_expiry(subject: Subject) -> None:
    """M-EXPIRY."""
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, MockClock)
    store: Store = subject.make()
    async with store.open():
        await store.put("short", b"1", ttl_s=10)
        await store.put("renewed", b"1", ttl_s=10)
        await store.put("unbound", b"1", ttl_s=10)
        await store.put("for good", b"1")
        clock.jump(9)
        await store.put("renewed", b"2", ttl_s=10)
        await store.put("unbound", b"2")
        _expect("M-EXPIRY", "get before its time", b"1", await store.get("short"))
        clock.jump(2)
        _expect("M-EXPIRY", "get after its time", None, await store.get("short"))
        _expect("M-EXPIRY", "keys after its time", ["for good", "renewed", "unbound"], await store.keys())
        _expect("M-EXPIRY", "delete after its time", False, await store.delete("short"))
        _expect("M-EXPIRY", "get of what was put again with a new time", b"2", await store.get("renewed"))
        clock.jump(1e6)
        _expect("M-EXPIRY", "get of what was put again without a time", b"2", await store.get("unbound"))
        _expect("M-EXPIRY", "get of what never expires", b"1", await store.get("for good"))
        _expect("M-EXPIRY", "get after the second time", None, await store.get("renewed"))
        for key in await store.keys():
            await store.delete(key)


async def check_swap(subject: Subject) -> None:
    """M-SWAP."""
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, MockClock)
    store: Store = subject.make()
    async with store.open():
        _expect("M-SWAP", "swap of something for nothing", False, await store.swap("key", b"1", b"2"))
        _expect("M-SWAP", "swap of nothing", True, await store.swap("key", None, b""))
        _expect("M-SWAP", "swap of nothing where an empty value is", False, await store.swap("key", None, b"2"))
        _expect("M-SWAP", "swap of an empty value", True, await store.swap("key", b"", b"1", ttl_s=10))
        _expect("M-SWAP", "swap of what was there before", False, await store.swap("key", b"", b"2"))
        _expect("M-SWAP", "get after swaps", b"1", await store.get("key"))
        clock.jump(11)
        _expect("M-SWAP", "swap of what has expired", False, await store.swap("key", b"1", b"2"))
        _expect("M-SWAP", "swap of nothing where something has expired", True, await store.swap("key", None, b"3"))
        clock.jump(1e6)
        _expect("M-SWAP", "get of what was swapped in without a time", b"3", await store.get("key"))
        await _race(store)
        await store.delete("key")


async def _race(store: Store) -> None:
    """Many tasks add one each: a swap that two of them win loses an addition, and so does one that nobody wins."""
    racers = 8
    await store.put("key", b"0")

    async def add_one() -> None:
        for _ in range(racers):
            held = await store.get("key")
            if await store.swap("key", held, b"%d" % (int(held or b"0") + 1)):
                return

    async with trio.open_nursery() as nursery:
        for _ in range(racers):
            nursery.start_soon(add_one)
    _expect("M-SWAP", f"get after {racers} tasks added one each", b"%d" % racers, await store.get("key"))


async def check_bound(subject: Subject) -> None:
    """M-BOUNDED, where the config has a `max_entries` that is small enough to fill."""
    bound: Any = getattr(subject.config, "max_entries", None)
    if not isinstance(bound, int) or bound > _MAX_FILL:
        return
    store: Store = subject.make()
    async with store.open():
        for number in range(bound + 3):
            await store.put(f"key {number}", b"")
        if store.size() > bound:
            raise ContractViolation("M-BOUNDED", f"{store.size()} entries, although max_entries is {bound}")
        for key in await store.keys():
            await store.delete(key)


async def check_cancelled_use(subject: Subject) -> None:
    """M-CANCEL: after a cancelled call the store is usable, and an entry is there wholly or not at all."""
    store: Store = subject.make()

    @asynccontextmanager
    async def trial() -> AsyncIterator[Callable[[], Awaitable[None]]]:
        async def use() -> None:
            await store.put("key", b"value")
            await store.get("key")
            await store.swap("key", b"value", b"other")
            await store.swap("key", b"other", b"value")
            await store.keys()

        yield use
        value = await store.get("key")
        if value not in (None, b"value", b"other"):
            raise ContractViolation("M-VALUES", f"a cancelled put or swap left {value!r}")
        await store.delete("key")
        _expect("M-SIZE", "after deleting everything", 0, store.size())

    async with store.open():
        await cancelled_anywhere(trial)


def check_keeping(subject: Subject) -> None:
    """Everything that binds stores beyond what binds every component."""
    for check in (check_values, check_keys, check_expiry, check_swap, check_bound, check_cancelled_use):
        subject.run(check, subject)
