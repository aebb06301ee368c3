"""A cache is no cache, but for the staleness that was declared; and nobody ever gets what is somebody else's."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from sluiceway.middlewares.cache.names import Selector, names_of
from sluiceway.middlewares.cache.rules import Rule
from sluiceway.middlewares.cache.stage import Cache
from sluiceway.pipeline.model.changes import RESOURCE_UPDATED
from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.model.session import Caller
from sluiceway.pipeline.protocol.errors import ConnectFailed, GatewayError
from sluiceway.pipeline.protocol.messages import Notification, Result
from sluiceway.pipeline.runtime.chain import Stage, compile_chain
from sluiceway.pipeline.stores.memory import MemoryStore
from sluiceway.pipeline.testing import cancel_everywhere, check_middleware, legacy_client, memory_exchange

PEOPLE = {
    "ana": Caller("ana", "acme", how="bearer"),
    "ana, who writes": Caller("ana", "acme", frozenset({"write"}), how="bearer"),
    "bob": Caller("bob", "acme", how="bearer"),
    "ana at globex": Caller("ana", "globex", how="bearer"),
}
URIS = ["a:1", "a:2"]
TTL_S = 5.0
SLOWEST_S = 4.0

VISITS = st.tuples(
    st.just("visit"),
    st.sampled_from([*PEOPLE, "ana", "ana"]),
    st.sampled_from(URIS),
    st.sampled_from([None, None, None, None, 0.3, 1.2]),  # when its client leaves
)
EVENTS = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.4, 0.4, 1.0, 4.0, 7.0]),  # pause before it
        VISITS
        | VISITS
        | VISITS
        | st.tuples(st.just("change"), st.booleans(), st.sampled_from(URIS), st.none())  # announced, or not
        | st.tuples(st.just("purge"), st.none(), st.sampled_from(URIS), st.none()),
    ),
    min_size=6,
    max_size=24,
)
OPTIONS = st.fixed_dictionaries(
    {
        "trust_public": st.booleans(),
        "stale_while_revalidate": st.sampled_from([0.0, 3.0]),
        "stale_if_error": st.sampled_from([0.0, 3.0]),
        "max_entries": st.sampled_from([1, 100]),
        "memory": st.booleans(),
    }
)


class World:
    """An upstream whose resources change, the cache in front of it, and what everybody was told."""

    def __init__(self, options, rng):
        self.options, self.rng = options, rng
        self.history = {uri: [(0.0, 0)] for uri in URIS}  # (since when, version)
        self.announced = {uri: [] for uri in URIS}
        self.told = []
        stores = {"s": MemoryStore(MemoryStore.Config(), Context(id="s"))}
        context = Context(id="cache", stores=stores.__getitem__, now=lambda: trio.current_time() + 1e6)
        self.stage = Cache(Cache.Config(stores=() if options["memory"] else ("s",), **options), context)
        self.chain = compile_chain([Stage("cache", self.stage)], self.upstream)

    async def upstream(self, exchange):
        uri, caller = exchange.target, exchange.caller
        before, after = self.rng.choice([0.0, 0.5, 1.0]), self.rng.choice([0.0, 1.0, 3.0])
        fails = self.rng.random() < 0.15
        await trio.sleep(before)
        version = self.history[uri][-1][1]
        await trio.sleep(after)
        if fails:
            raise ConnectFailed("down")
        is_public = uri == "a:2"
        whose = caller.tenant if is_public else [caller.tenant, caller.subject, sorted(caller.scopes)]
        scope = "public" if is_public else "private"
        value = {"uri": uri, "version": version, "whose": whose, "ttlMs": TTL_S * 1000, "cacheScope": scope}
        return Result(value)

    async def visit(self, who, uri, leaves):
        exchange = memory_exchange("resources/read", {"uri": uri}, caller=PEOPLE[who], relay=self.chain.relay)
        asked = trio.current_time()
        with trio.move_on_after(1000.0 if leaves is None else leaves):
            try:
                reply = await self.chain.service(exchange)
            except GatewayError:
                return
            self.told.append((who, uri, asked, trio.current_time(), reply.value))

    async def live(self, events):
        async with self.stage.open():
            async with trio.open_nursery() as nursery:
                for pause, (what, who, uri, leaves) in events:
                    await trio.sleep(pause)
                    if what == "visit":
                        nursery.start_soon(self.visit, who, uri, leaves)
                        await wait_all_tasks_blocked()
                    elif what == "purge":
                        await self.stage.act("purge", {"name": uri})
                        self.announced[uri].append((trio.current_time(), self.history[uri][-1][1]))
                    else:
                        self.change(uri, is_announced=who)
            await trio.sleep(100)
            assert self.stage._flights.count == 0

    def change(self, uri, *, is_announced):
        now, version = trio.current_time(), self.history[uri][-1][1] + 1
        self.history[uri].append((now, version))
        if is_announced:
            self.stage.context.changes.announce("sink", Notification(RESOURCE_UPDATED, {"uri": uri}))
            self.announced[uri].append((now, version))

    def superseded(self, uri, version):
        """When a version was no longer the latest."""
        return next((since for since, number in self.history[uri] if number == version + 1), float("inf"))

    def check(self):
        window_s = TTL_S + max(self.options["stale_while_revalidate"], self.options["stale_if_error"]) + SLOWEST_S
        for who, uri, asked, replied, value in self.told:
            caller = PEOPLE[who]
            own = caller.tenant if uri == "a:2" else [caller.tenant, caller.subject, sorted(caller.scopes)]
            assert (value["uri"], value["whose"]) == (uri, own)
            assert self.superseded(uri, value["version"]) >= asked - window_s
            known = [version for at, version in self.announced[uri] if at < asked]
            assert value["version"] >= max(known, default=0)
            assert value["version"] <= max(v for since, v in self.history[uri] if since <= replied)
            assert 0 <= value["ttlMs"] <= TTL_S * 1000


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(EVENTS, OPTIONS, st.randoms(use_true_random=False))
def test_a_cache_is_no_cache_but_for_the_staleness_declared(events, options, rng):
    """
    Never older than `ttlMs` and the windows allow, never from before a change that was announced or a purge, and always
    the caller's own: whatever comes, changes, fails, leaves or is purged in between.
    """

    async def main():
        world = World(options, rng)
        await world.live(events)
        world.check()

    trio.run(main, clock=MockClock(autojump_threshold=0))


NAMES = st.lists(st.sampled_from(["a", "b", "\t", " ", "*", "/"]), max_size=4).map("".join)


@given(st.lists(st.tuples(NAMES, NAMES, NAMES), min_size=2, max_size=2, unique=True))
def test_names_are_different_if_anything_is(pairs):
    """Tenants, subjects and uris of any text, separators included; and a selector finds what it names."""
    names = []
    for tenant, subject, uri in pairs:
        exchange = memory_exchange("resources/read", {"uri": uri}, caller=Caller(subject, tenant, how="bearer"))
        names.append(names_of(exchange, shares=True))
        assert Selector(tenant=tenant, methods=frozenset({"resources/read"})).compile()(names[-1].private)
        assert Selector(uri=uri).compile()(names[-1].private)
        assert Selector(name="*").compile()(names[-1].public)

    assert names[0].private != names[1].private
    assert (names[0].public == names[1].public) is ((pairs[0][0], pairs[0][2]) == (pairs[1][0], pairs[1][2]))


READS = [
    ("tools/call", {"name": "echo", "arguments": {"text": "hello"}, "_meta": {"progressToken": "p"}}),
    ("tools/list", {}),
    ("resources/read", {"uri": "file:///readme.md"}),
    ("prompts/get", {"name": "greet", "arguments": {"name": "Ana"}}),
]
EVERYTHING_ON = {
    "rules": [{"method": ["tools/call", "tools/list", "prompts/get", "resources/read"], "name": ["*"], "ttl": "5s"}],
    "trust_public": True,
    "trust_hints": True,
    "max_entries": 2,
    "max_waiting": 1,
    "negative_ttl": "5s",
    "negative_tool_errors": True,
    "stale_while_revalidate": "10s",
    "stale_if_error": "1m",
}


@pytest.mark.parametrize("options", [{}, EVERYTHING_ON, {**EVERYTHING_ON, "max_entries": 100}])
def test_it_keeps_the_contract(options):
    """With nothing on, and with everything."""
    check_middleware(Cache, options)


def test_it_keeps_the_contract_for_legacy_sessions():
    """Answers are those of the session."""
    check_middleware(Cache, EVERYTHING_ON, client=legacy_client(), samples=READS)


@pytest.mark.parametrize("situation", ["miss", "join", "stale", "store"])
async def test_cancelling_anywhere_leaves_nothing(situation, autojump_clock):
    """Neither a call that others wait for in vain, nor a refresh that never ends."""

    @asynccontextmanager
    async def trial():
        calls = []

        async def upstream(exchange):
            calls.append(exchange)
            await exchange.relay(Notification("notifications/progress", {"progressToken": 1, "progress": 1}))
            await trio.sleep(1)
            return Result({"n": len(calls)})

        rule = Rule(method=("tools/list",), ttl=10.0, stale_while_revalidate=100.0)
        store = MemoryStore(MemoryStore.Config(), Context(id="s"))
        stage = Cache(
            Cache.Config(rules=(rule,), stores=("s",) if situation == "store" else (), max_idle=1000.0),
            Context(id="cache", stores=lambda _: store),
        )
        chain = compile_chain([Stage("cache", stage)], upstream)

        async def call():
            return await chain.service(memory_exchange("tools/list", relay=chain.relay))

        async with stage.open():
            async with trio.open_nursery() as nursery:
                if situation == "join":
                    nursery.start_soon(call)
                    await wait_all_tasks_blocked()
                elif situation == "stale":
                    await call()
                    await trio.sleep(11)
                yield call
            await trio.sleep(50)
            assert stage._flights.count == 0
            assert stage._errands._busy == set()
            with trio.fail_after(10):
                assert (await call()).value["n"] <= len(calls)

    await cancel_everywhere(trial)
