"""What only the store in memory does."""

from __future__ import annotations

from trio.testing import MockClock

from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.stores.memory import MemoryStore


def make(**options: int) -> MemoryStore:
    """A store; it needs no opening."""
    return MemoryStore(MemoryStore.Config(**options), Context(id="state"))  # type: ignore[arg-type]  # sizes are ints


async def test_the_least_recently_used_goes_first(mock_clock: MockClock) -> None:
    """Reading counts as using."""
    store = make(max_entries=2)
    await store.put("a", b"1")
    await store.put("b", b"1")
    await store.get("a")
    await store.put("c", b"1")

    assert ["a", "c"] == await store.keys()


async def test_an_expired_entry_is_removed_when_it_is_asked_for(mock_clock: MockClock) -> None:
    """Until then it counts."""
    store = make()
    await store.put("a", b"1", ttl_s=1)
    mock_clock.jump(1)
    assert store.size() == 1

    await store.get("a")
    assert store.size() == 0


async def test_expired_entries_are_removed_when_something_is_stored(mock_clock: MockClock) -> None:
    """All of them, so that a store that is only written does not grow."""
    store = make()
    for number in range(10):
        await store.put(f"k{number}", b"1", ttl_s=1)
    mock_clock.jump(1)
    await store.put("a", b"1")

    assert store.size() == 1


async def test_rewriting_a_key_for_ever_costs_no_memory(mock_clock: MockClock) -> None:
    """What remembers expiries is bounded by the entries there are."""
    store = make()
    await store.put("kept", b"1", ttl_s=5000)
    await store.put("never", b"1")
    for turn in range(1000):
        await store.put("a", b"%d" % turn, ttl_s=1000 + turn)

    assert len(store._expiring) < 100
    mock_clock.jump(1999.5)
    await store.put("b", b"1")
    assert ["b", "kept", "never"] == await store.keys()
    assert store.size() == 3
