"""One fetch at a time, one per interval, and keys that outlast their issuer for a while."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from sluiceway.middlewares.auth.fetching import FetchFailed
from sluiceway.middlewares.auth.jwks import KeySet, parse_jwks
from sluiceway.middlewares.auth.key_ring import KeyRing


class Source:
    """Gives keys, takes time, fails."""

    def __init__(self, issuer):
        self.issuer = issuer
        self.kids = ("rsa",)
        self.takes_s = 1
        self.fails = False
        self.asked_at = []

    async def __call__(self):
        self.asked_at.append(trio.current_time())
        await trio.sleep(self.takes_s)
        if self.fails:
            raise FetchFailed("no")
        return parse_jwks(self.issuer.jwks(*self.kids))


@pytest.fixture
def source(issuer):
    return Source(issuer)


@asynccontextmanager
async def ringing(source, **options):
    told = []
    ring = KeyRing(source, **{"refresh_s": 600, "interval_s": 30, "stale_s": 3600, "told": told.append} | options)
    async with trio.open_nursery() as nursery:
        await nursery.start(ring.run)
        yield ring, told
        nursery.cancel_scope.cancel()


def kids(ring):
    return [key.kid for key in ring.keys.keys]


async def test_keys_are_fetched_now_and_then(source, autojump_clock):
    """Every `refresh_s` after the last; a change is counted, the same keys again are not."""
    async with ringing(source) as (ring, told):
        await trio.sleep(602)
        source.kids = ("ec",)
        await trio.sleep(602)

    assert source.asked_at == [0, 601, 1202]
    assert (kids(ring), ring.fetches, ring.changed, told) == (["ec"], 3, 2, [None] * 3)


async def test_who_asks_while_keys_are_fetched_waits_for_those(source, autojump_clock):
    """All of them; none of them starts another fetch."""
    async with ringing(source) as (ring, _):
        await trio.sleep(30)
        source.kids = ("rsa", "ec")
        answers = []

        async def ask():
            answers.append((await ring.newer(), kids(ring)))

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(ask)

    assert answers == [(True, ["rsa", "ec"])] * 10
    assert source.asked_at == [0, 31]


async def test_there_is_one_fetch_an_interval(source, autojump_clock):
    """Who asks in between gets no for an answer, at once."""
    async with ringing(source) as (ring, _):
        start = trio.current_time()
        answers = [await ring.newer() for _ in range(100)]
        assert trio.current_time() == start
        await trio.sleep(30)
        answers.append(await ring.newer())

    assert answers == [False] * 100 + [True]
    assert len(source.asked_at) == 2


async def test_who_leaves_takes_no_fetch_along(source, autojump_clock):
    """The fetch is nobody's but the ring's."""
    async with ringing(source) as (ring, _):
        await trio.sleep(30)
        source.kids = ("ec",)
        with trio.move_on_after(0.5):
            await ring.newer()
        await trio.sleep(1)

        assert kids(ring) == ["ec"]


async def test_a_failed_fetch_is_repeated_after_the_interval(source, autojump_clock):
    """And the keys stay meanwhile."""
    async with ringing(source) as (ring, told):
        source.fails = True
        await trio.sleep(602 + 31 + 31)
        assert kids(ring) == ["rsa"]
        source.fails = False
        await trio.sleep(40)

    assert told == [None, "no", "no", "no", None][: len(told)]
    assert told[-1] is None


async def test_keys_do_not_outlast_their_issuer_for_ever(source, autojump_clock):
    """After `keep_stale` the set is empty: a key could have been withdrawn long ago."""
    async with ringing(source, stale_s=1000, refresh_s=100, interval_s=10) as (ring, _):
        source.fails = True
        await trio.sleep(990)
        assert kids(ring) == ["rsa"]
        await trio.sleep(100)
        assert ring.keys == KeySet()
        await wait_all_tasks_blocked()
        source.fails = False
        await trio.sleep(20)

        assert kids(ring) == ["rsa"]
        assert ring.retry_after_s >= 1
