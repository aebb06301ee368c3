"""What every store does, whatever it is made of."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.model.store import Store
from sluiceway.pipeline.protocol.errors import CapacityExceeded
from sluiceway.pipeline.stores.memory import MemoryStore
from sluiceway.pipeline.stores.sqlite import SqliteStore

Opener = Callable[..., AbstractAsyncContextManager[Any]]


@pytest.fixture(params=["memory", "sqlite"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    """`async with opened(max_entries=...) as store:` opens the store under test."""

    @asynccontextmanager
    async def open_store(**options: Any) -> AsyncIterator[Store]:
        store: Store
        if request.param == "memory":
            store = MemoryStore(MemoryStore.Config(**options), Context(id="state"))
        else:
            store = SqliteStore(SqliteStore.Config(path=tmp_path / "state.db", **options), Context(id="state"))
        async with store.open():
            yield store

    return open_store


async def test_a_value_comes_back_as_it_was_put(opened: Opener, mock_clock: MockClock) -> None:
    """Any bytes under any text; the latest wins; what is not there is None."""
    async with opened() as store:
        for key, value in {"a": b"", "": b"\x00\xff", "\u00e9\U0001f600\x00b": b"x" * 100_000}.items():
            await store.put(key, b"old")
            await store.put(key, value)

            assert value == await store.get(key)
        assert await store.get("b") is None
        assert store.size() == 3


async def test_a_deleted_key_is_gone(opened: Opener, mock_clock: MockClock) -> None:
    """And deleting says whether there was something alive."""
    async with opened() as store:
        await store.put("a", b"1")
        await store.put("brief", b"1", ttl_s=1)
        mock_clock.jump(1)

        assert [True, False, False] == [await store.delete(key) for key in ("a", "a", "brief")]
        assert await store.get("a") is None
        assert store.size() == 0


async def test_a_value_is_there_until_its_time_and_not_after(opened: Opener, mock_clock: MockClock) -> None:
    """Exactly: the instant itself is already too late."""
    async with opened() as store:
        await store.put("a", b"1", ttl_s=10)
        await store.put("for ever", b"2")
        mock_clock.jump(9.9)
        assert (await store.get("a"), await store.keys()) == (b"1", ["a", "for ever"])

        mock_clock.jump(0.11)
        assert (await store.get("a"), await store.keys()) == (None, ["for ever"])


async def test_putting_again_sets_the_time_again(opened: Opener, mock_clock: MockClock) -> None:
    """Longer, and also to never."""
    async with opened() as store:
        await store.put("a", b"1", ttl_s=10)
        await store.put("b", b"1", ttl_s=10)
        mock_clock.jump(5)
        await store.put("a", b"2", ttl_s=10)
        await store.put("b", b"2")
        mock_clock.jump(6)
        await store.put("c", b"3")

        assert (await store.get("a"), await store.get("b")) == (b"2", b"2")
        mock_clock.jump(5)
        assert (await store.get("a"), await store.get("b")) == (None, b"2")


async def test_keys_are_listed_by_prefix_and_sorted(opened: Opener, mock_clock: MockClock) -> None:
    """A prefix is taken literally."""
    async with opened() as store:
        for key in ("b:2", "a:1", "b:1", "b%", "B:1", "b:\U0010ffff", "c"):
            await store.put(key, b"")

        assert ["b:1", "b:2", "b:\U0010ffff"] == await store.keys("b:")
        assert ["B:1", "a:1", "b%", "b:1", "b:2", "b:\U0010ffff", "c"] == await store.keys()
        assert [] == await store.keys("d")


async def test_the_number_of_entries_is_bounded(opened: Opener, mock_clock: MockClock) -> None:
    """The oldest goes, the newest is always there."""
    async with opened(max_entries=3) as store:
        for number in range(10):
            await store.put(f"k{number}", b"x")

        assert ["k7", "k8", "k9"] == await store.keys()
        assert (store.size(), store.evicted) == (3, 7)


async def test_the_number_of_bytes_is_bounded(opened: Opener, mock_clock: MockClock) -> None:
    """Keys count too; as many go as it takes."""
    async with opened(max_bytes=100) as store:
        for number in range(5):
            await store.put(f"k{number}", b"x" * 18)
        assert store.evicted == 0

        await store.put("k5", b"x" * 58)
        assert ["k3", "k4", "k5"] == await store.keys()


async def test_what_has_expired_makes_room_first(opened: Opener, mock_clock: MockClock) -> None:
    """A live entry does not have to go for a dead one."""
    async with opened(max_entries=2) as store:
        await store.put("live", b"1")
        await store.put("dead", b"1", ttl_s=1)
        mock_clock.jump(2)
        await store.put("new", b"1")

        assert ["live", "new"] == await store.keys()
        assert (store.size(), store.evicted) == (2, 0)


async def test_what_can_never_fit_is_refused(opened: Opener, mock_clock: MockClock) -> None:
    """With the limit in the text; nothing else has to go for it, and the old value stays."""
    async with opened(max_bytes=100) as store:
        await store.put("a", b"old")

        with pytest.raises(CapacityExceeded, match="101 bytes does not fit into store 'state': max_bytes is 100"):
            await store.put("a", b"x" * 100)
        assert await store.get("a") == b"old"


async def test_many_tasks_at_once_do_not_lose_each_others_writes(opened: Opener, mock_clock: MockClock) -> None:
    """An operation that fails or is cancelled takes nobody else's with it."""

    async def write(store: Store, number: int) -> None:
        for turn in range(10):
            await store.put(f"k{number}", b"%d" % turn)
            with trio.CancelScope() as scope:
                scope.cancel()
                await store.put(f"cancelled{number}", b"")

    async with opened() as store:
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(write, store, number)

        assert [b"9"] * 20 == [await store.get(f"k{number}") for number in range(20)]


async def test_a_cancelled_put_leaves_the_old_value_or_the_new(opened: Opener, mock_clock: MockClock) -> None:
    """Never half of one, and never nothing."""
    old, new = b"o" * 50_000, b"n" * 50_000
    async with opened() as store:
        for checkpoints in range(4):
            await store.put("a", old)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(store.put, "a", new)
                for _ in range(checkpoints):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()

            assert await store.get("a") in (old, new)
            assert store.size() == 1


async def test_a_value_is_swapped_only_for_what_is_there(opened: Opener, mock_clock: MockClock) -> None:
    """Nothing is None, an empty value is not; what has expired is nothing; what did not swap changed nothing."""
    async with opened() as store:
        assert [False, True, False, True, False] == [
            await store.swap("a", b"", b"1"),
            await store.swap("a", None, b"", ttl_s=10),
            await store.swap("a", None, b"1"),
            await store.swap("a", b"", b"2", ttl_s=20),
            await store.swap("a", b"", b"3"),
        ]
        mock_clock.jump(15)
        assert (await store.get("a"), store.size()) == (b"2", 1)

        mock_clock.jump(5)
        assert [False, True] == [await store.swap("a", b"2", b"3"), await store.swap("a", None, b"4")]
        mock_clock.jump(1e9)
        assert (await store.get("a"), store.size()) == (b"4", 1)


async def test_a_swap_keeps_the_bounds(opened: Opener, mock_clock: MockClock) -> None:
    """As a put does; one that is too large changes nothing."""
    async with opened(max_entries=2, max_bytes=100) as store:
        for key in ("a", "b", "c"):
            assert await store.swap(key, None, b"1")
        assert (await store.keys(), store.size(), store.evicted) == (["b", "c"], 2, 1)

        with pytest.raises(CapacityExceeded, match="101 bytes does not fit into store 'state': max_bytes is 100"):
            await store.swap("b", b"1", b"x" * 100)
        assert await store.get("b") == b"1"


async def test_swaps_of_many_tasks_lose_no_addition(opened: Opener, mock_clock: MockClock) -> None:
    """Read, add, swap, and again if somebody was faster."""
    counted = 0

    async def add_one(store: Store) -> None:
        nonlocal counted
        while True:
            held = await store.get("count")
            await trio.lowlevel.checkpoint()
            if await store.swap("count", held, b"%d" % (int(held or b"0") + 1)):
                counted += 1
                return

    async with opened() as store:
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(add_one, store)

        assert (counted, await store.get("count")) == (20, b"20")
