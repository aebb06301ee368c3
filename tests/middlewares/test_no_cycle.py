"""A failure leaves nothing for the garbage collector: its frames would keep all that was read until that comes."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from trio.testing import wait_all_tasks_blocked

from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.protocol.errors import UpstreamUnavailable
from sluiceway.pipeline.protocol.messages import Reply
from sluiceway.pipeline.testing import FakeSink, PipelineHarness

CHAINS: dict[str, list[Any]] = {
    "bare": [],
    "retry": [{"retry": {"repeat": ["find"], "max_attempts": 2}}],
    "circuit_breaker": ["circuit_breaker"],
    "timeout": [{"timeout": {"after": "1s"}}],
    "hedge": [{"hedge": {"repeat": ["find"], "after": "1s"}}],
    "fallback": [{"fallback": {"empty_lists": True}}],
    "dedup": [{"dedup": {"repeat": ["find"]}}],
    "cache": [{"cache": {"rules": [{"method": ["tools/call"], "name": ["find"], "ttl": "1s", "scope": "private"}]}}],
    "load_shed": ["load_shed"],
    "concurrency_limit": ["concurrency_limit"],
    "trace": ["trace"],
    "log": ["log"],
    "metrics": ["metrics"],
    "audit": [{"audit": {"to": "log"}}],
    "validate": ["validate"],
}
ROUTES: dict[str, Any] = {
    "route": {"route": {"to": ["up", "other"]}},
    "bare route": {"route": {"to": ["up", "other"], "prefixes": "never"}},
}


@pytest.fixture
def made() -> Iterator[list[weakref.ref[Exception]]]:
    """Failures that upstreams raised; nothing is collected meanwhile."""
    gc.collect()
    gc.disable()
    yield []
    gc.enable()


def failing(made: list[weakref.ref[Exception]]) -> FakeSink:
    """An upstream that is away, and remembers what it raised."""

    class Away(UpstreamUnavailable):
        """One of them."""

        def __init__(self) -> None:
            super().__init__("away")
            made.append(weakref.ref(self))

    async def raise_it(_exchange: Exchange) -> Reply:
        raise Away

    return FakeSink(raise_it)


@pytest.mark.parametrize("name", [*CHAINS, *ROUTES])
async def test_a_failure_is_gone_when_its_exchange_is(autojump_clock, made, name):
    """Whatever stands around it, and holds it on the way."""
    data = {
        "version": 1,
        "sources": {"in": {"http": {"bind": "127.0.0.1:1"}}},
        "pipelines": {"main": {"chain": CHAINS.get(name, []), "sink": "all" if name in ROUTES else "up"}},
        "sinks": {"up": {"embedded": {}}, "other": {"embedded": {}}, "all": ROUTES.get(name, ROUTES["route"])},
    }
    async with PipelineHarness.from_data(data, sinks={"up": failing(made), "other": failing(made)}) as gateway:
        for _ in range(2):
            await gateway.call("tools/call", name="find", arguments={})
            await gateway.call("tools/list")
        await wait_all_tasks_blocked()

        assert len(made) > 0
        assert [each() for each in made if each() is not None] == []
