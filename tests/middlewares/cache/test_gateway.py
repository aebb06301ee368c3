"""Both stages in a whole gateway: from the configuration that ships, over changes, reloads and replaced stages."""

from __future__ import annotations

from pathlib import Path

import pytest
from trio.testing import wait_all_tasks_blocked

from sluiceway.pipeline.config import check_text
from sluiceway.pipeline.model.component import Context, Middleware, middleware
from sluiceway.pipeline.model.session import Caller
from sluiceway.pipeline.protocol.messages import Notification, Result
from sluiceway.pipeline.testing import FakeSink, PipelineHarness

CONFIG = Path(__file__).resolve().parents[3] / "configs" / "caching.yaml"


def counting():
    """A sink that numbers its answers, which are good for a minute."""
    calls = []

    async def answer(exchange):
        calls.append(exchange.method)
        return Result({"n": len(calls), "ttlMs": 60_000})

    return FakeSink(answer), calls


async def test_the_sample_saves_calls(autojump_clock):
    """Its lists, its tools, what it warms; each principal for itself."""
    sink, calls = counting()
    async with PipelineHarness.from_yaml(CONFIG, sinks={"demo": sink}) as gateway:
        await wait_all_tasks_blocked()
        assert calls == ["server/discover"]
        for caller in ("ana", "bob"):
            gateway.caller = Caller(caller, how="bearer")
            for _ in range(2):
                await gateway.call("server/discover")
                await gateway.call("tools/list")
                await gateway.call("tools/call", {"name": "search_docs", "arguments": {"q": "x"}})
                await gateway.call("tools/call", {"name": "write", "arguments": {}})

    assert calls[1:] == ["tools/list", "tools/call", "tools/call", "tools/call"] * 2


async def test_a_change_that_a_sink_announces_reaches_the_cache(autojump_clock):
    """Through the hub that all components of an engine share."""
    sink, calls = counting()
    async with PipelineHarness.from_yaml(CONFIG, sinks={"demo": sink}) as gateway:
        await gateway.call("tools/list")
        await gateway.call("prompts/list")
        stage = gateway.engine._generation.stage("main", "cache").component
        stage.context.changes.announce("demo", Notification("notifications/tools/list_changed"))
        await gateway.call("prompts/list")
        await gateway.call("tools/list")

    assert calls.count("tools/list") == 2
    assert calls.count("prompts/list") == 1


@middleware("inner")
class Inner(Middleware):
    """Says which one it is."""

    async def __call__(self, exchange, call_next):
        """Add its id to the answer."""
        reply = await call_next(exchange)
        return Result({**reply.value, "through": self.context.id})


async def test_a_refresh_goes_through_the_stages_that_stand_there_now(autojump_clock):
    """Also when an inner stage was replaced since the answer was kept."""
    sink, _ = counting()
    from sluiceway.middlewares.cache.stage import Cache

    config = Cache.Config(stale_while_revalidate=1000.0, max_idle=10_000.0)
    async with PipelineHarness.from_stages([(Cache, config), (Inner, None)], sink=sink) as gateway:
        first = await gateway.call("tools/list")
        await gateway.engine.replace("main", "inner", Inner(None, Context(id="the new one")))
        await gateway.advance(61)
        await gateway.call("tools/list")
        await wait_all_tasks_blocked()
        last = await gateway.call("tools/list")

    assert first.value["through"] != "the new one"
    assert last.value["through"] == "the new one"


@pytest.mark.parametrize(
    ("chain", "rules"),
    [
        ("[auth_anonymous, dedup, cache, retry]", []),
        ("[cache, auth_anonymous]", ["order/cache-before-auth"]),
        ("[dedup, auth_anonymous]", ["order/dedup-before-auth"]),
        ("[retry, cache]", ["order/retry-before-cache"]),
        ("[retry, dedup]", ["order/retry-before-dedup"]),
    ],
)
def test_wrong_orders_are_errors(chain, rules):
    """With a reason each."""
    text = f"""
version: 1
sources: {{s: {{http: {{bind: "127.0.0.1:8080"}}}}}}
pipelines: {{main: {{chain: {chain}}}}}
sinks: {{demo: {{embedded: {{server: demo}}}}}}
"""
    problems = [each for each in check_text(text).problems if each.rule in rules or "cache" in each.rule]

    assert [each.rule for each in problems] == rules
    assert all(each.level == "error" and each.reason for each in problems)
