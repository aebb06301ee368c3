"""Memory, stores and both: what is found where, how long, and that nothing of it fails a request."""

from __future__ import annotations

import pytest
import structlog
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import LogCapture
from trio.testing import MockClock, wait_all_tasks_blocked

from sluiceway.middlewares.cache.config import Warm
from sluiceway.middlewares.cache.entry import Entry
from sluiceway.middlewares.cache.memory_tier import OVERHEAD, MemoryTier
from sluiceway.middlewares.cache.names import EVERYTHING, Selector
from sluiceway.middlewares.cache.store_tier import MAX_PENDING, LowerTier, StoreTier
from sluiceway.middlewares.cache.tiers import Tiers
from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.model.session import Caller
from sluiceway.pipeline.protocol.errors import CapacityExceeded
from sluiceway.pipeline.protocol.messages import Result
from sluiceway.pipeline.stores.memory import MemoryStore

BOB = Caller("bob", "acme", how="bearer")


def entry(ttl_s=60.0, body=b'"n":1'):
    now = trio.current_time()
    return Entry(body, b"", False, True, now, now + ttl_s, now + ttl_s, now + ttl_s)


def name(n, method="tools/list"):
    return f"{method}\tacme\twho\tdigest{n}\ttarget"


def new_store(**options):
    return MemoryStore(MemoryStore.Config(**options), Context(id="store"))


def log_to(captured):
    return structlog.wrap_logger(None, processors=[captured], wrapper_class=structlog.make_filtering_bound_logger(10))


def lower(store, captured=None, patience_s=0.25, prefix="cache:"):
    tier = StoreTier(store, prefix, lambda: trio.current_time() + 1e9)
    return LowerTier("shared", tier, patience_s, log_to(captured or LogCapture()))


LAYOUTS = {
    "memory": lambda: Tiers(MemoryTier(100, 10**6, 1000.0), ()),
    "a store": lambda: Tiers(None, (lower(new_store()),)),
    "both": lambda: Tiers(MemoryTier(100, 10**6, 1000.0), (lower(new_store()),)),
    "three": lambda: Tiers(MemoryTier(100, 10**6, 1000.0), (lower(new_store()), lower(new_store()))),
}


async def find(tiers, key):
    """As the stage does."""
    found = tiers.memory.find(key, trio.current_time()) if tiers.memory is not None else None
    return found or await tiers.get(key)


async def keep(tiers, key, value):
    await tiers.put(key, value, lambda: False)


@pytest.fixture(params=LAYOUTS)
def tiers(request):
    """Every layout passes the same tests."""
    return LAYOUTS[request.param]()


async def test_what_is_kept_is_found_until_its_time_is_over(tiers, autojump_clock):
    """Byte for byte."""
    kept = entry(60.0, b'"n":1.50,"t":"\\u0041"')
    assert await find(tiers, name(1)) is None
    await keep(tiers, name(1), kept)
    await trio.sleep(59.9)
    assert (await find(tiers, name(1))).body == kept.body
    await trio.sleep(0.2)
    assert await find(tiers, name(1)) is None


async def test_the_latest_counts(tiers, autojump_clock):
    """And its time: a renewed entry outlives its old deadline."""
    await keep(tiers, name(1), entry(10.0, b"old"))
    await trio.sleep(5)
    await keep(tiers, name(1), entry(10.0, b"new"))
    await trio.sleep(8)
    await keep(tiers, name(2), entry(1.0))

    assert (await find(tiers, name(1))).body == b"new"


async def test_a_pattern_removes_in_every_tier(tiers, autojump_clock):
    """At once, and without blocking; the rest stays."""
    for n in range(3):
        await keep(tiers, name(n), entry())
        await keep(tiers, name(n, "prompts/list"), entry())
    tiers.invalidate(Selector(methods=frozenset({"tools/list"})))
    assert [await find(tiers, name(n)) for n in range(3)] == [None] * 3
    assert all([await find(tiers, name(n, "prompts/list")) for n in range(3)])

    await tiers.sweep()
    for tier in tiers.lower:
        assert tier.pending == 0
        assert await tier._tier._store.keys() == [f"cache:{name(n, 'prompts/list')}" for n in range(3)]
    tiers.invalidate(EVERYTHING)
    assert await find(tiers, name(0, "prompts/list")) is None


async def test_a_name_can_be_forgotten(tiers, autojump_clock):
    """In every tier."""
    await keep(tiers, name(1), entry())
    await tiers.delete(name(1))

    assert await find(tiers, name(1)) is None


async def test_what_became_void_while_it_was_stored_is_removed(tiers, autojump_clock):
    """The stores are slow: the change may come in between."""
    await tiers.put(name(1), entry(), lambda: True)

    for tier in tiers.lower:
        assert await tier._tier._store.keys() == []


async def test_what_is_found_below_comes_up_with_the_time_it_has_left(autojump_clock):
    """Not with a new one: it expires when the original would have."""
    stores = [new_store(), new_store()]
    tiers = Tiers(MemoryTier(100, 10**6, 1000.0), (lower(stores[0]), lower(stores[1])))
    await lower(stores[1]).put(name(1), entry(60.0))
    await trio.sleep(50)
    found = await find(tiers, name(1))
    assert found.fresh_until == pytest.approx(60.0)
    assert (await tiers.lower[0].get(name(1))).fresh_until == pytest.approx(60.0)
    assert tiers.memory.find(name(1), trio.current_time()) == found
    assert [tier.hits for tier in tiers.lower] == [1, 1]

    await trio.sleep(11)
    assert await find(tiers, name(1)) is None


async def test_an_entry_outlives_the_process_in_a_store(autojump_clock):
    """Its times are dates there: another process, with another zero of its clock, reads the same."""
    store = new_store()
    one = StoreTier(store, "", lambda: trio.current_time() + 1000.0)
    await one.put(name(1), entry(60.0))
    other = StoreTier(store, "", lambda: trio.current_time() + 1010.0)

    assert (await other.get(name(1))).fresh_until == pytest.approx(50.0)
    assert await StoreTier(store, "", lambda: trio.current_time() + 1061.0).get(name(1)) is None


async def test_rubbish_in_a_store_is_nothing(autojump_clock):
    """And what is too old is not even put there."""
    store = new_store()
    tier = StoreTier(store, "", trio.current_time)
    await store.put(name(1), b"rubbish")
    await tier.put(name(2), entry(0.0))

    assert await tier.get(name(1)) is None
    assert await store.keys() == [name(1)]


# Memory.


async def test_bytes_are_bounded(cached, autojump_clock):
    """By `max_bytes`; what alone is larger is not kept at all."""
    memory = MemoryTier(100, 3 * (OVERHEAD + 200), 1000.0)
    for n in range(10):
        memory.keep(name(n), entry(60.0, bytes([65 + n]) * 100), 0.0)
        assert memory.bytes <= 3 * (OVERHEAD + 200)
    assert (len(memory), memory.evicted) == (3, 7)
    memory.keep(name(9), entry(60.0, b"x" * 5000), 0.0)
    assert len(memory) == 2

    async with cached(max_bytes=100) as cache:
        assert [await cache.number() for _ in range(2)] == [1, 2]


async def test_equal_answers_are_held_once(autojump_clock):
    """A thousand principals with one list of tools."""
    memory, body = MemoryTier(1000, 10**9, 1000.0), b"x" * 10_000
    for n in range(100):
        memory.keep(name(n), entry(60.0, bytes(body)), 0.0)
    assert memory.bytes < 100_000

    memory.drop(EVERYTHING)
    assert memory.bytes == 0


async def test_dead_entries_make_room_first(autojump_clock):
    """What is past its time, and what nobody asks for; and the order of deadlines does not grow without end."""
    memory = MemoryTier(3, 10**6, 50.0)
    memory.keep(name(1), entry(10.0), 0.0)
    memory.keep(name(2), entry(1000.0), 0.0)
    await trio.sleep(20)
    memory.find(name(2), 20.0)
    for n in (3, 4):
        memory.keep(name(n), entry(1000.0), 20.0)
    assert (len(memory), memory.evicted) == (3, 0)

    await trio.sleep(60)
    memory.keep(name(5), entry(1000.0), 80.0)
    assert (len(memory), memory.evicted) == (1, 0)

    for _ in range(500):
        memory.keep(name(6), entry(1000.0), 80.0)
    assert len(memory._ends) < 150


OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["keep", "find", "drop", "wait"]), st.integers(0, 5), st.sampled_from([1, 50, 400])),
    max_size=60,
)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(OPERATIONS)
def test_memory_never_holds_more_than_it_may_nor_gives_what_is_too_old(operations):
    """Whatever is done with it; and it counts its bytes right."""

    async def main():
        memory, model = MemoryTier(4, 2500, 30.0), {}
        for what, n, amount in operations:
            now = trio.current_time()
            if what == "keep":
                memory.keep(name(n), entry(float(amount), b"%d" % n * amount), now)
                model[n] = (now + amount, b"%d" % n * amount)
            elif what == "find":
                found = memory.find(name(n), now)
                assert found is None or (found.kept_until > now and (found.kept_until, found.body) == model[n])
            elif what == "drop":
                memory.drop(Selector(key=name(n)))
                assert memory.find(name(n), now) is None
            else:
                await trio.sleep(amount / 10)
            bodies = {slot.entry.body for slot in memory._slots.values()}
            sizes = sum(len(key) + OVERHEAD for key in memory._slots)
            assert memory.bytes == sizes + sum(map(len, bodies)) <= 2500
            assert len(memory) <= 4

    trio.run(main, clock=MockClock(autojump_threshold=0))


# Stores that fail.


class Broken(MemoryStore):
    """A store that can be told to fail, or to dawdle."""

    def __init__(self):
        super().__init__(MemoryStore.Config(), Context(id="broken"))
        self.error = None
        self.delay_s = 0.0
        self.asked = 0

    async def _suffer(self):
        self.asked += 1
        await trio.sleep(self.delay_s)
        if self.error is not None:
            raise self.error

    async def get(self, key):
        await self._suffer()
        return await super().get(key)

    async def put(self, key, value, *, ttl_s=None):
        await self._suffer()
        await super().put(key, value, ttl_s=ttl_s)

    async def delete(self, key):
        await self._suffer()
        return await super().delete(key)

    async def keys(self, prefix=""):
        await self._suffer()
        return await super().keys(prefix)


@pytest.mark.parametrize("error", [OSError("disk"), CapacityExceeded("full")])
async def test_a_store_that_fails_fails_nothing(cached, error, autojump_clock):
    """Neither reading nor writing nor purging; it is told once, and left alone for a while."""
    store = Broken()
    async with cached({"s": store}, stores=("s",)) as cache:
        store.error = error
        for n in range(20):
            assert await cache.number(params={"cursor": str(n)}) == n + 1
            assert await cache.number(params={"cursor": str(n)}) == n + 1
        assert store.asked == 5
        assert [line["event"] for line in cache.logged.entries] == ["a tier of the cache fails"]
        assert cache.stage.details()["store s"] == {"hits": 0, "failures": 5, "pending": 0}
        assert cache.figure("cache_tier_failures_total") == 5
        assert await cache.stage.act("purge", {}) == {"removed": 20, "pending": 1}

        store.error = None
        await trio.sleep(25)
        assert await cache.number() == 21
        assert cache.stage.details()["store s"]["pending"] == 0
        assert len(await store.keys()) == 1


async def test_a_store_that_dawdles_is_not_waited_for(cached, autojump_clock):
    """Longer than `store_timeout`."""
    store = Broken()
    async with cached({"s": store}, stores=("s",), store_timeout=0.1) as cache:
        store.delay_s = 10.0
        assert await cache.number() == 1

        assert trio.current_time() == pytest.approx(0.2)


async def test_what_is_void_is_not_believed_although_a_store_still_has_it(cached, autojump_clock):
    """A store that cannot be purged now is purged later."""
    store = Broken()
    async with cached({"s": store}, stores=("s",), memory=False) as cache:
        await cache.number()
        assert await cache.number() == 1
        store.error = OSError("disk")
        cache.change("notifications/tools/list_changed")
        await wait_all_tasks_blocked()
        store.error = None
        assert await cache.number() == 2
        await trio.sleep(11)
        await wait_all_tasks_blocked()

        assert await cache.number() == 3
        assert await cache.number() == 3


async def test_what_becomes_void_while_it_is_read_is_not_believed(autojump_clock):
    """Also if it has been removed by the time the store answers."""
    store = Broken()
    tier = lower(store, patience_s=10.0)
    await tier.put(name(1), entry())

    class Slow:
        async def get(self, key):
            value = await StoreTier(store, "cache:", lambda: trio.current_time() + 1e9).get(key)
            await trio.sleep(1)
            return value

    reading = LowerTier("slow", Slow(), 10.0, log_to(LogCapture()))
    found = []

    async def read():
        found.append(await reading.get(name(1)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        reading.declare_void(EVERYTHING)
        reading._void.clear()

    assert found == [None]


async def test_too_much_that_is_void_is_everything(autojump_clock):
    """The list of what a store has not removed yet is bounded."""
    tier = lower(Broken())
    for n in range(MAX_PENDING + 1):
        tier.declare_void(Selector(key=name(n)))

    assert tier.pending == 1
    assert tier._void[0][0] == EVERYTHING


async def test_a_name_that_cannot_be_forgotten_is_void(autojump_clock):
    """Until it can."""
    store = Broken()
    tier = lower(store)
    await tier.put(name(1), entry())
    store.error = OSError("disk")
    await tier.delete(name(1))
    store.error = None

    assert await tier.get(name(1)) is None
    assert await tier.sweep()
    assert await store.keys() == []


async def test_a_sweep_stops_at_a_store_that_rests(autojump_clock):
    """It is tried again later."""
    store = Broken()
    tier = lower(store)
    store.error = OSError("disk")
    for _ in range(5):
        await tier.get(name(1))
    store.error = None
    tier.declare_void(EVERYTHING)
    assert not await tier.sweep()
    await trio.sleep(11)
    assert await tier.sweep()


# The stage over stores.


async def test_stores_can_stand_alone(cached, autojump_clock):
    """With `memory: false` everything is in `stores`; another gateway with the same store finds it."""
    store = new_store()
    async with cached({"s": store}, stores=("s",), memory=False, trust_public=True) as one:
        await one.number()
        assert await one.number() == 1
        assert "memory" not in one.stage.details()
        assert one.figure("cache_tier_hits_total") == 1
    async with cached({"s": store}, stores=("s",), trust_public=True) as other:
        assert await other.number() == 1
        assert other.upstream.calls == []
        assert await other.number(caller=BOB) == 1
        assert len(other.upstream.calls) == 1
        other.upstream.answer = lambda *_: Result({"n": 9, "ttlMs": 60_000, "cacheScope": "public"})
        await other.number("prompts/list")
    async with cached({"s": store}, stores=("s",), trust_public=True) as third:
        assert await third.number("prompts/list", caller=BOB) == 9


async def test_a_stale_entry_in_a_store_is_refreshed_there(cached, autojump_clock):
    """What memory has forgotten, a store may still know."""
    store = new_store()
    async with cached({"s": store}, stores=("s",), max_idle=10.0, stale_while_revalidate=100.0) as cache:
        await cache.number()
        await trio.sleep(70)
        assert await cache.number() == 1
        await wait_all_tasks_blocked()

        assert await cache.number() == 2


async def test_warming_fills_stores_too(cached, rule, autojump_clock):
    """Also without memory."""
    options = {"rules": (rule("tools/list", scope="public"),), "warm": (Warm(method="tools/list"),), "warm_wait": True}
    store = new_store()
    async with cached(
        {"s": store}, answer=lambda _, n: Result({"n": n}), stores=("s",), memory=False, **options
    ) as cache:
        assert await cache.number(caller=Caller("anonymous")) == 1
        assert cache.logged.entries == []
