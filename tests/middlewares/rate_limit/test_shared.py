"""Counting in a store: as exact as in memory, whoever else counts there."""

from __future__ import annotations

import subprocess
import sys

import pytest
import trio

from sluiceway.middlewares.rate_limit import shared
from sluiceway.middlewares.rate_limit.shared import MAX_SWAPS, SharedLedger, StoreFailed, decode, encode
from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.model.gcra import FRESH, NS_PER_S, Limit, Window
from sluiceway.pipeline.model.options import Rate
from sluiceway.pipeline.protocol.errors import ComponentError
from sluiceway.pipeline.stores.memory import MemoryStore
from sluiceway.pipeline.stores.sqlite import SqliteStore

TWENTY = Limit(Window(Rate(20, 3600.0), 20))


def memory():
    """A store in memory."""
    return MemoryStore(MemoryStore.Config(), Context(id="state"))


class Rival(MemoryStore):
    """A store in which somebody else is always faster, so many times."""

    def __init__(self, times):
        super().__init__(MemoryStore.Config(), Context(id="state"))
        self.times = times

    async def swap(self, key, expected, value, *, ttl_s=None):
        if self.times:
            self.times -= 1
            return False
        return await super().swap(key, expected, value, ttl_s=ttl_s)


async def test_exactly_the_burst_of_many_at_once_gets_through(tmp_path):
    """Twenty of five hundred, in one file, from two ledgers that know nothing of each other."""
    admitted = 0
    store = SqliteStore(SqliteStore.Config(path=tmp_path / "state.db"), Context(id="state"))

    async def send(ledger):
        nonlocal admitted
        wait_ns, _, _ = await ledger.take("key", 1, 0)
        admitted += wait_ns == 0

    async with store.open():
        ledgers = [SharedLedger(TWENTY, store, "limit") for _ in range(2)]
        async with trio.open_nursery() as nursery:
            for number in range(500):
                nursery.start_soon(send, ledgers[number % 2])

    assert admitted == 20
    assert [ledger._turns for ledger in ledgers] == [{}, {}]


CHILD = """
import sys, trio
from pathlib import Path
from sluiceway.middlewares.rate_limit.shared import SharedLedger
from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.model.gcra import Limit, Window
from sluiceway.pipeline.model.options import Rate
from sluiceway.pipeline.stores.sqlite import SqliteStore

async def main():
    store = SqliteStore(SqliteStore.Config(path=Path(sys.argv[1])), Context(id="state"))
    async with store.open():
        ledger = SharedLedger(Limit(Window(Rate(20, 3600.0), 20)), store, "limit")
        print(sum([(await ledger.take("key", 1, 0))[0] == 0 for _ in range(60)]))

trio.run(main)
"""


def test_two_processes_share_one_burst(tmp_path):
    """Real ones, on one file, at the same time."""
    command = [sys.executable, "-c", CHILD, str(tmp_path / "state.db")]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    admitted = [int(child.communicate(timeout=60)[0]) for child in children]

    assert sum(admitted) == 20


async def test_all_windows_are_charged_together_or_none(mock_clock):
    """One value holds them all."""
    limit = Limit(Window(Rate(2, 1.0), 2), Window(Rate(5, 3600.0), 5))
    store = memory()
    ledger = SharedLedger(limit, store, "limit")
    waits = []
    for _ in range(3):
        for _ in range(3):
            wait_ns, _, _ = await ledger.take("key", 1, 0)
            waits.append(wait_ns == 0)
        ledger._offset_ns += NS_PER_S

    assert waits == [True, True, False, True, True, False, True, False, False]
    (key,) = await store.keys()
    held = await store.get(key)
    assert key == "limit:2/s and 5/h:key"
    assert held is not None
    assert len(held.split()) == 2


async def test_who_is_slower_reads_again(mock_clock):
    """As often as it takes, up to a bound."""
    for times, works in ((MAX_SWAPS - 1, True), (MAX_SWAPS, False)):
        ledger = SharedLedger(TWENTY, Rival(times), "limit")
        if works:
            assert (await ledger.take("key", 1, 0))[0] == 0
        else:
            with pytest.raises(StoreFailed, match="others were faster 64 times"):
                await ledger.take("key", 1, 0)


@pytest.mark.parametrize("error", [ComponentError("state", "run", "the disk is full"), OSError("the disk is full")])
async def test_a_failure_of_the_store_is_told_as_one(error, mock_clock, monkeypatch):
    """With its text, for the log and status."""

    async def fail(_self, _key):
        raise error

    monkeypatch.setattr(MemoryStore, "get", fail)
    with pytest.raises(StoreFailed, match="the disk is full"):
        await SharedLedger(TWENTY, memory(), "limit").take("key", 1, 0)


async def test_an_entry_is_gone_when_the_debt_is(mock_clock):
    """So a store is as large as its debtors are many."""
    store = memory()
    ledger = SharedLedger(TWENTY, store, "limit")
    for _ in range(3):
        await ledger.take("key", 1, 0)
    mock_clock.jump(539)
    assert len(await store.keys()) == 1

    mock_clock.jump(1)
    assert await store.keys() == []


async def test_a_wall_clock_that_is_set_back_locks_nobody_out(mock_clock, monkeypatch):
    """A debt from the future is no more than a burst."""
    store = memory()
    await SharedLedger(TWENTY, store, "limit").take("key", 20, 0)
    monkeypatch.setattr(shared.time, "time_ns", lambda: 0)
    wait_ns, _, _ = await SharedLedger(TWENTY, store, "limit").take("key", 1, 0)

    assert wait_ns == 180 * NS_PER_S


@pytest.mark.parametrize(
    ("value", "windows", "state"),
    [
        (None, 1, FRESH),
        (b"", 2, FRESH),
        (b"12", 1, 12),
        (b"12 13", 2, (12, 13)),
        (b"12", 2, FRESH),
        (b"12 13", 1, FRESH),
        (b"twelve", 1, FRESH),
        (b"\xff", 1, FRESH),
        (b"9" * 5000, 1, FRESH),
    ],
)
def test_rubbish_in_a_store_is_nothing(value, windows, state):
    """Rather than an error for one key for ever."""
    assert decode(value, windows) == state


@pytest.mark.parametrize("state", [0, 10**25, (1, 2, 3)])
def test_a_state_comes_back_as_it_was(state):
    """Of any size."""
    assert decode(encode(state), 3 if isinstance(state, tuple) else 1) == state
