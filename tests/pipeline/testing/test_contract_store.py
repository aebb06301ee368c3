"""`check_store` passes a good store and names the rule that a bad one breaks."""

import pytest
import trio
from attrs import frozen

from sluiceway.pipeline.model.component import ComponentKind
from sluiceway.pipeline.model.options import option
from sluiceway.pipeline.model.store import Store
from sluiceway.pipeline.stores.memory import MemoryStore
from sluiceway.pipeline.stores.sqlite import SqliteStore
from sluiceway.pipeline.testing.contract import check_store
from sluiceway.pipeline.testing.musts import MUSTS, ContractViolation


class Plain(Store):
    """A dictionary."""

    name = "plain"

    @frozen
    class Config:
        """One option."""

        max_entries: int = option(10, ge=1, doc="Entries held at most.")

    def __init__(self, config, context):
        super().__init__(config, context)
        self.entries = {}

    def live(self):
        return {k: v for k, (v, expires) in self.entries.items() if expires > trio.current_time()}

    async def get(self, key):
        await trio.lowlevel.checkpoint()
        return self.live().get(key)

    async def put(self, key, value, *, ttl_s=None):
        await trio.lowlevel.checkpoint()
        self.entries[key] = (value, trio.current_time() + (float("inf") if ttl_s is None else ttl_s))
        while len(self.entries) > self.config.max_entries:
            del self.entries[next(iter(self.entries))]

    async def swap(self, key, expected, value, *, ttl_s=None):
        await trio.lowlevel.checkpoint()
        if self.live().get(key) != expected:
            return False
        self.entries[key] = (value, trio.current_time() + (float("inf") if ttl_s is None else ttl_s))
        return True

    async def delete(self, key):
        await trio.lowlevel.checkpoint()
        was_there = key in self.live()
        self.entries.pop(key, None)
        return was_there

    async def keys(self, prefix=""):
        await trio.lowlevel.checkpoint()
        return sorted(key for key in self.live() if key.startswith(prefix))

    def size(self):
        return len(self.entries)


class KeepsTheFirst(Plain):
    """Does not replace."""

    async def put(self, key, value, *, ttl_s=None):
        if key not in self.live():
            await super().put(key, value, ttl_s=ttl_s)


class DropsEmptyValues(Plain):
    """Takes an empty value for none."""

    async def get(self, key):
        return await super().get(key) or None


class DeletesAnything(Plain):
    """Says that something was there."""

    async def delete(self, key):
        await super().delete(key)
        return True


class GlobsPrefixes(Plain):
    """Takes `%` and `_` for wildcards, as LIKE does."""

    async def keys(self, prefix=""):
        if "_" in prefix:
            return [key for key in await super().keys() if key.startswith(prefix.replace("_", "")) and len(key) == 3]
        return await super().keys(prefix)


class DoesNotSort(Plain):
    """As they come."""

    async def keys(self, prefix=""):
        return list(reversed(await super().keys(prefix)))


class NeverExpires(Plain):
    """Ignores the time."""

    async def put(self, key, value, *, ttl_s=None):
        await super().put(key, value)


class KeepsTheOldTime(Plain):
    """A new value expires when the old one would have."""

    async def put(self, key, value, *, ttl_s=None):
        old = self.entries.get(key)
        await super().put(key, value, ttl_s=ttl_s)
        if old is not None:
            self.entries[key] = (value, old[1])


class SwapsAnything(Plain):
    """Does not look."""

    async def swap(self, key, expected, value, *, ttl_s=None):
        await self.put(key, value, ttl_s=ttl_s)
        return True


class SwapsTheExpired(Plain):
    """Takes an expired entry for one that is there."""

    async def swap(self, key, expected, value, *, ttl_s=None):
        held, _ = self.entries.get(key, (None, 0))
        if held != expected:
            return False
        await self.put(key, value, ttl_s=ttl_s)
        return True


class TakesNoneForEmpty(Plain):
    """Swaps nothing where an empty value is."""

    async def swap(self, key, expected, value, *, ttl_s=None):
        held = self.live().get(key)
        return await super().swap(key, held if (held or None) == (expected or None) else b"?", value, ttl_s=ttl_s)


class SwapsInTwoSteps(Plain):
    """Looks, and puts later: two win."""

    async def swap(self, key, expected, value, *, ttl_s=None):
        if await self.get(key) != expected:
            return False
        await self.put(key, value, ttl_s=ttl_s)
        return True


class CountsTheDeleted(Plain):
    """Its size only grows."""

    count = 0

    async def put(self, key, value, *, ttl_s=None):
        self.count += key not in self.entries
        await super().put(key, value, ttl_s=ttl_s)

    def size(self):
        return self.count


class GrowsAboveItsBound(Plain):
    """Forgets `max_entries`."""

    async def put(self, key, value, *, ttl_s=None):
        self.entries[key] = (value, trio.current_time() + (float("inf") if ttl_s is None else ttl_s))


class TearsValues(Plain):
    """A cancelled `put` leaves half of the value."""

    async def put(self, key, value, *, ttl_s=None):
        await super().put(key, value[: len(value) // 2], ttl_s=ttl_s)
        await trio.lowlevel.checkpoint()
        await super().put(key, value, ttl_s=ttl_s)


BAD = [
    ("M-VALUES", KeepsTheFirst, "get of 'plain': expected b'value', got b'before'"),
    ("M-VALUES", DropsEmptyValues, "get of 'empty': expected b'', got None"),
    ("M-VALUES", DeletesAnything, "delete of an unknown key: expected False, got True"),
    ("M-KEYS", GlobsPrefixes, "prefix 'a_'"),
    ("M-KEYS", DoesNotSort, "all: expected"),
    ("M-EXPIRY", NeverExpires, "get after its time: expected None, got b'1'"),
    ("M-EXPIRY", KeepsTheOldTime, "keys after its time"),
    ("M-SWAP", SwapsAnything, "swap of something for nothing: expected False, got True"),
    ("M-SWAP", TakesNoneForEmpty, "swap of nothing where an empty value is: expected False, got True"),
    ("M-SWAP", SwapsTheExpired, "swap of what has expired: expected False, got True"),
    ("M-SWAP", SwapsInTwoSteps, "get after 8 tasks added one each: expected b'8', got b'"),
    ("M-SIZE", CountsTheDeleted, "after deleting everything: expected 0, got 5"),
    ("M-BOUNDED", GrowsAboveItsBound, "13 entries, although max_entries is 10"),
    ("M-CANCEL", TearsValues, "a cancelled put or swap left b'va'"),
]


@pytest.mark.parametrize(("cls", "config"), [(Plain, None), (MemoryStore, None), (MemoryStore, {"max_entries": 8})])
def test_a_good_store_keeps_the_contract(cls, config):
    """With a bound that can be reached and with one that cannot."""
    check_store(cls, config)


def test_a_store_on_a_disk_keeps_the_contract(tmp_path):
    """One that works in threads, which a jumping clock would not wait for."""
    check_store(SqliteStore, {"path": str(tmp_path / "state.db"), "max_entries": 20})


def test_what_a_store_held_before_is_removed():
    """A store on a disk may have entries from an earlier run."""

    class Durable(Plain):
        """Keeps its entries beyond its own life."""

        def __init__(self, config, context):
            super().__init__(config, context)
            self.entries = disk

    disk = {"old": (b"entry", float("inf"))}
    check_store(Durable)

    assert disk == {}


@pytest.mark.parametrize(("must", "cls", "found"), BAD, ids=[f"{row[0]}-{row[1].__name__}" for row in BAD])
def test_a_store_that_breaks_a_rule_is_told_which(must, cls, found):
    """The violation names the rule and what was found."""
    with pytest.raises(ContractViolation, match=f"(?s)^{must}: .*found: .*{found}"):
        check_store(cls)


def test_every_rule_of_stores_is_broken_by_a_store_here():
    """Those that bind every component are broken by stages."""
    rules = {m.id for m in MUSTS.values() if ComponentKind.STORE in m.kinds and ComponentKind.SOURCE not in m.kinds}

    assert rules | {"M-CANCEL"} == {must for must, _cls, _found in BAD}
