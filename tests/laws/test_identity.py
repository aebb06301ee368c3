"""Every registered stage, switched off, is not there at all."""

from __future__ import annotations

import logging
import runpy
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest
import structlog
import trio
from attrs import frozen
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from sluiceway.pipeline.config import from_data
from sluiceway.pipeline.model.component import ComponentKind
from sluiceway.pipeline.model.document import Document
from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.registry import BUILT_IN
from sluiceway.pipeline.protocol.errors import UpstreamClosed
from sluiceway.pipeline.protocol.messages import ErrorReply, Json, Notification, Reply, Request, Result
from sluiceway.pipeline.testing import FakeSink, InFlight, PipelineHarness, legacy_client, run_clean

OPTIONS: Final = Path(__file__).parents[1] / "middlewares" / "options"
STAGES: Final = sorted(BUILT_IN[ComponentKind.MIDDLEWARE])
ORDER: Final = (
    "trace", "request_id", "metrics", "log", "audit", "headers", "auth_api_key", "auth_mtls", "auth_bearer",
    "auth_anonymous", "tenant", "access", "pin", "validate", "redact", "rate_limit", "concurrency_limit", "load_shed",
    "dedup", "cache", "fallback", "retry", "hedge", "circuit_breaker", "timeout", "fault",
)  # fmt: skip
"""All stages, in the recommended order (requirements D-31)."""
OFF: Final[Mapping[str, dict[str, Json]]] = {"disabled": {"enabled": False}, "guarded": {"when": {"name": "never"}}}


@frozen
class Ask:
    """One exchange of a client, and what becomes of it."""

    method: str
    params: dict[str, Json]
    at: float
    relayed: int
    end: str
    legacy: bool


EPISODES: Final = 40
"""Of one example: a thousand in all, each way to be off."""


def some_asks(rng: Random) -> list[Ask]:
    """What clients ask in one episode, and what becomes of it."""
    choose = rng.choice
    methods = ["tools/call", "tools/list", "resources/read", "ping", "acme/own", "notifications/acme"]
    asks = []
    for _ in range(rng.randint(1, 6)):
        params: dict[str, Json] = {"name": choose(["add", "pay"])}
        if choose([True, False]):
            params["arguments"] = {choose(["", "a", "xyz"]): rng.randint(0, 9) for _ in range(rng.randint(0, 2))}
        end = choose(["result", "result", "failed", "error", "closed", "bug"])
        asks.append(
            Ask(choose(methods), params, choose([0.0, 0.5, 1.0, 7.0]), rng.randint(0, 3), end, choose([True, False]))
        )
    return asks


@pytest.fixture(autouse=True)
def _quiet() -> None:
    """Nobody reads the tracebacks of some hundred bugs."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def required(stage: str) -> dict[str, Any]:
    """Options without which the stage cannot be; an auth stage must not be optional if it is the only one."""
    options = dict(runpy.run_path(str(OPTIONS / f"{stage}.py")).get("REQUIRED", {}))
    options.pop("optional", None)
    return options


@cache
def document(off: str | None) -> Document:
    """A gateway with all stages switched off in one way, or without any; read once."""
    chain = [{stage: {**required(stage), **OFF[off]}} for stage in ORDER] if off is not None else []
    return from_data(
        {
            "version": 1,
            "sources": {"s": {"stdio": {}}},
            "pipelines": {"main": {"chain": chain, "sink": "up"}},
            "sinks": {"up": {"embedded": {}}},
        }
    )


async def seen(off: str | None, episodes: list[list[Ask]]) -> tuple[list[Any], list[Any]]:
    """What clients and the upstream see of some exchanges that pass a chain."""
    asks = [ask for episode in episodes for ask in episode]
    order = {id(ask): number for number, ask in enumerate(asks)}
    met: dict[int, Any] = {}

    async def behave(exchange: Exchange) -> Reply:
        number = exchange.request.params["number"]
        assert isinstance(number, int)
        ask = asks[number]
        met[number] = (exchange.request, exchange.client, exchange.caller, exchange.reply_headers, exchange.marks)
        for step in range(ask.relayed):
            await exchange.relay(Notification("notifications/progress", {"progressToken": number, "progress": step}))
            await trio.sleep(0.25)
        await trio.sleep(1)
        match ask.end:
            case "failed":
                return Result({"content": [], "isError": True})
            case "error":
                return ErrorReply(-32000, "no", {"of": number})
            case "closed":
                raise UpstreamClosed("the upstream is gone")
            case "bug":
                raise ZeroDivisionError
        return Result({"content": [], "number": number})

    async with PipelineHarness(document(off), sinks={"up": FakeSink(behave)}) as gateway:
        calls: list[InFlight] = []
        modern, legacy = gateway.client, legacy_client()
        for episode in episodes:
            start, before = trio.current_time(), len(calls)
            for ask in sorted(episode, key=lambda ask: (ask.at, order[id(ask)])):
                await trio.sleep(max(0, start + ask.at - trio.current_time()))
                gateway.client = legacy if ask.legacy else modern
                calls.append(gateway.start(ask.method, ask.params, number=order[id(ask)]))
            for call in calls[before:]:
                await call.wait()
        replies = [await call.wait() for call in calls]
        assert not gateway.stage_log
        told = [
            (_steady(reply), call.interim, call.exchange.link.decisions)
            for call, reply in zip(calls, replies, strict=True)
        ]
        for number, (request, client, *_) in met.items():
            assert request.method == asks[number].method
            assert not isinstance(request, Request) or request.params == {**asks[number].params, "number": number}
            assert client in (modern, legacy)
    return told, [met[number][2:] for number in sorted(met)]


def _steady(reply: Reply | None) -> Any:
    """A reply without the number of its incident."""
    return "a bug" if isinstance(reply, ErrorReply) and "incident" in (reply.data or {}) else reply


@pytest.mark.parametrize("off", OFF)
@settings(max_examples=25, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(seed=st.integers(0, 2**64))
def test_stages_that_are_off_are_absent(off: str, seed: int) -> None:
    """Disabled, or guarded by what never matches: replies, notifications, requests, callers and headers are equal."""
    rng = Random(seed)
    episodes = [some_asks(rng) for _ in range(EPISODES)]

    async def main() -> None:
        assert await seen(off, episodes) == await seen(None, episodes)

    run_clean(main, clock=MockClock(autojump_threshold=0))


def test_no_stage_is_left_out() -> None:
    """The order below has every stage that is registered."""
    assert sorted(ORDER) == STAGES
