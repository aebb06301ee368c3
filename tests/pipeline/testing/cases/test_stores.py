"""Stores that stand in for declared ones."""

from __future__ import annotations

from random import Random

import pytest
import trio

from sluiceway.pipeline.model.faults import StoreFault
from sluiceway.pipeline.protocol.errors import ComponentError
from sluiceway.pipeline.stores.memory import MemoryStore
from sluiceway.pipeline.stores.sqlite import SqliteStore
from sluiceway.pipeline.testing.cases.stores import FaultyStore, options_in_memory


async def test_without_faults_it_is_a_store():
    """Every operation does what it says."""
    store = FaultyStore("kept", None, (), Random(0))
    async with store.open():
        await store.put("a", b"1")
        assert await store.get("a") == b"1"
        assert await store.swap("a", b"1", b"2")
        assert not await store.swap("a", b"1", b"3")
        assert (await store.keys(), store.size()) == (["a"], 1)
        assert await store.delete("a")


async def test_it_fails_and_is_late_as_it_is_told(autojump_clock):
    """Delays of several faults add up; the last word is the failure."""
    faults = (StoreFault(latency=1.0), StoreFault(latency=2.0, effect="fail", skip=1))
    store = FaultyStore("kept", None, faults, Random(0))
    async with store.open():
        await store.put("a", b"1")
        assert trio.current_time() == 1.0
        with pytest.raises(ComponentError, match="on purpose"):
            await store.get("a")

    assert trio.current_time() == 4.0


def test_only_options_of_a_store_in_memory_are_taken_over():
    """A file has others."""
    assert options_in_memory(SqliteStore, "options") is None
    assert options_in_memory(MemoryStore, "options") == "options"
