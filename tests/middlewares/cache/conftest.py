"""A cache in front of an upstream that counts, and exchanges through it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from itertools import count

import pytest
import structlog
import trio
from structlog.testing import LogCapture

from sluiceway.middlewares.cache.rules import Rule
from sluiceway.middlewares.cache.stage import Cache
from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.session import Caller
from sluiceway.pipeline.protocol.errors import GatewayError
from sluiceway.pipeline.protocol.messages import Notification, Result
from sluiceway.pipeline.runtime.chain import Stage, compile_chain
from sluiceway.pipeline.stores.memory import MemoryStore
from sluiceway.pipeline.testing import memory_exchange

ANA = Caller("ana", "acme", how="bearer")


def answer_of(number, **more):
    """A result of 2026-07-28 that is good for a minute, and says which call it comes from."""
    return Result({"resultType": "complete", "n": number, "ttlMs": 60_000, "cacheScope": "private", **more})


class Upstream:
    """Takes some time, counts its calls, answers what it is told."""

    def __init__(self, answer=None):
        self.answer = answer or (lambda exchange, number: answer_of(number))
        self.seconds = 0.0
        self.relays = ()
        self.calls = []

    async def __call__(self, exchange: Exchange):
        self.calls.append(exchange)
        number = len(self.calls)
        for notification in self.relays:
            await exchange.relay(notification)
        await trio.sleep(self.seconds)
        answer = self.answer(exchange, number)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Cached:
    """One cache, its upstream, and what its log says."""

    def __init__(self, options, stores=None, answer=None, stage_id="cache"):
        self.logged = LogCapture()
        self.stores = {} if stores is None else stores
        ids = count(1)
        log = structlog.wrap_logger(
            None, processors=[self.logged], wrapper_class=structlog.make_filtering_bound_logger(10)
        )
        context = Context(
            id=stage_id,
            log=log,
            new_id=lambda: f"id-{next(ids)}",
            stores=self.stores.__getitem__,
            now=lambda: trio.current_time() + 1_000_000.0,
        )
        self.upstream = Upstream(answer)
        self.stage = Cache(Cache.Config(**options), context)
        self.chain = compile_chain([Stage(stage_id, self.stage)], self.upstream)

    def exchange(self, method="tools/list", params=None, *, caller=ANA, **more):
        return memory_exchange(method, params or {}, caller=caller, relay=self.chain.relay, **more)

    async def ask(self, method="tools/list", params=None, *, exchange=None, **more):
        """What comes of one exchange: a value, or an error."""
        exchange = exchange or self.exchange(method, params, **more)
        try:
            reply = await self.chain.service(exchange)
        except GatewayError as error:
            return error
        return reply.value if isinstance(reply, Result) else reply

    async def number(self, *args, **more):
        """Which call the answer comes from."""
        return (await self.ask(*args, **more))["n"]

    def change(self, method, **params):
        """An upstream announces a change."""
        self.stage.context.changes.announce("sink", Notification(method, params))

    def figure(self, name):
        return sum(each.value for each in self.stage.figures() if each.name == name)


@pytest.fixture
def new_cache():
    """Makes a cache with options."""

    def make(by_name=None, /, answer=None, **options):
        return Cached(options, by_name, answer)

    return make


@pytest.fixture
def cached(new_cache):
    """Makes and opens a cache with options."""

    @asynccontextmanager
    async def make(by_name=None, /, answer=None, **options):
        cache = new_cache(by_name, answer=answer, **options)
        async with cache.stage.open():
            yield cache
        assert cache.stage._flights.count == 0

    return make


@pytest.fixture
def rule():
    """Makes a rule."""

    def make(*methods, **more):
        return Rule(method=methods, **more)

    return make


def memory_store(**options):
    """A store in memory."""
    return MemoryStore(MemoryStore.Config(**options), Context(id="store"))


@pytest.fixture
def store():
    """A store in memory."""
    return memory_store()
