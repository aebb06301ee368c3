"""Every registered stage, switched off, is not there at all."""

from __future__ import annotations

import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import trio
from attrs import frozen
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from sluiceway.pipeline.model.component import ComponentKind
from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.registry import BUILT_IN
from sluiceway.pipeline.protocol.errors import UpstreamClosed
from sluiceway.pipeline.protocol.messages import ErrorReply, Json, Notification, Reply, Request, Result
from sluiceway.pipeline.testing import FakeSink, PipelineHarness, legacy_client, run_clean

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


ASKS: Final = st.builds(
    Ask,
    method=st.sampled_from(["tools/call", "tools/list", "resources/read", "ping", "acme/own", "notifications/acme"]),
    params=st.fixed_dictionaries(
        {"name": st.sampled_from(["add", "pay"])},
        optional={"arguments": st.dictionaries(st.text(max_size=3), st.integers(0, 9), max_size=2)},
    ),
    at=st.sampled_from([0.0, 0.5, 1.0, 7.0]),
    relayed=st.integers(0, 3),
    end=st.sampled_from(["result", "result", "failed", "error", "closed", "bug"]),
    legacy=st.booleans(),
)


def required(stage: str) -> dict[str, Any]:
    """Options without which the stage cannot be; an auth stage must not be optional if it is the only one."""
    options = dict(runpy.run_path(str(OPTIONS / f"{stage}.py")).get("REQUIRED", {}))
    options.pop("optional", None)
    return options


async def seen(chain: list[Json], asks: list[Ask]) -> tuple[list[Any], list[Any]]:
    """What clients and the upstream see of some exchanges that pass a chain."""
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

    data: dict[str, Json] = {
        "version": 1,
        "sources": {"s": {"stdio": {}}},
        "pipelines": {"main": {"chain": chain, "sink": "up"}},
        "sinks": {"up": {"embedded": {}}},
    }
    async with PipelineHarness.from_data(data, sinks={"up": FakeSink(behave)}) as gateway:
        calls = []
        modern, legacy = gateway.client, legacy_client()
        for ask in sorted(asks, key=lambda ask: (ask.at, order[id(ask)])):
            await trio.sleep(max(0, ask.at - trio.current_time()))
            gateway.client = legacy if ask.legacy else modern
            calls.append(gateway.start(ask.method, ask.params, number=order[id(ask)]))
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
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(asks=st.lists(ASKS, min_size=1, max_size=6))
def test_stages_that_are_off_are_absent(off: str, asks: list[Ask]) -> None:
    """Disabled, or guarded by what never matches: replies, notifications, requests, callers and headers are equal."""

    async def main() -> None:
        assert await seen([{stage: {**required(stage), **OFF[off]}} for stage in ORDER], asks) == await seen([], asks)

    run_clean(main, clock=MockClock(autojump_threshold=0))


def test_no_stage_is_left_out() -> None:
    """The order below has every stage that is registered."""
    assert sorted(ORDER) == STAGES
