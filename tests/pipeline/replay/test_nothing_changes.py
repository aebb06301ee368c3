"""A law: a gateway that is recorded answers, relays, decides and fails exactly as one that is not."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from sluiceway.pipeline.config import from_data
from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.protocol.errors import ConnectFailed, UpstreamClosed
from sluiceway.pipeline.protocol.messages import ErrorReply, Notification, Reply, Result
from sluiceway.pipeline.replay.assembly import exchanges
from sluiceway.pipeline.replay.reading import Tape
from sluiceway.pipeline.replay.recording import open_recorder
from sluiceway.pipeline.testing import FakeSink, PipelineHarness

STAGES: list[Any] = [
    "request_id",
    {"rate_limit": {"rate": "2/s", "burst": 3}},
    {"concurrency_limit": {"max_in_flight": 2}},
    "dedup",
    {"cache": {"rules": [{"method": ["resources/read"], "ttl": "5s"}]}},
    {"retry": {"max_attempts": 3}},
    {"circuit_breaker": {}},
    {"timeout": {"after": "2s"}},
]
"""In the only order that the linter has nothing against."""
BEHAVIOURS = ["answer", "relay", "ask", "error", "closed", "unreachable", "slow", "hang", "bug"]
# pauses such that nothing else happens at the same moment: which of two tasks goes first is Trio's to choose
CALLS = st.lists(
    st.tuples(st.sampled_from(BEHAVIOURS), st.sampled_from([0.0371, 0.1137, 1.0173]), st.booleans()),
    min_size=1,
    max_size=8,
)


async def behave(exchange: Exchange) -> Reply:
    """As the call says."""
    match exchange.request.params.get("uri"):
        case "relay":
            await exchange.relay(Notification("notifications/progress", {"progress": 1}))
        case "ask":
            return await exchange.ask("roots/list", {})
        case "error":
            return ErrorReply(-32603, "broke")
        case "closed":
            raise UpstreamClosed("gone")
        case "unreachable":
            raise ConnectFailed("nobody there")
        case "slow":
            await trio.sleep(1.5)
        case "hang":
            await trio.sleep(100)
        case "bug":
            raise KeyError("nothing")
    return Result({"contents": [], "cacheScope": "public", "ttlMs": 5000})


async def roots(method: str, params: Any) -> Reply:
    """The client's answer."""
    await trio.sleep(0.2)
    return Result({"roots": []})


async def observe(chain: list[Any], calls: list[Any], edges: Any) -> list[Any]:
    """Everything that can be seen of some calls."""
    data = {
        "version": 1,
        "sources": {"in": {"http": {"bind": "127.0.0.1:1"}}},
        "pipelines": {"main": {"chain": chain, "sink": "up", "timeout": "9s"}},
        "sinks": {"up": {"embedded": {}}},
    }
    began = trio.current_time()
    async with PipelineHarness(
        from_data(data), sinks={"up": FakeSink(behave)}, edges=edges, now=lambda: trio.current_time() - began
    ) as gateway:
        gateway.ask = roots
        started = []
        for behaviour, pause, cancels in calls:
            call = gateway.start("resources/read", uri=behaviour)
            started.append(call)
            await trio.sleep(pause)
            if cancels:
                call.cancel()
        seen = [(await call.wait(), call.interim, list(call.exchange.link.decisions)) for call in started]
        attempts = [call.exchange.link.attempts for call in started]
        return [seen, attempts, round(trio.current_time() - began, 6), gateway.engine.pipelines["main"].status()]


@pytest.mark.timeout(120)
@given(chosen=st.sets(st.integers(0, len(STAGES) - 1)), calls=CALLS)
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    max_examples=12,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
)
def test_a_recorded_gateway_behaves_like_any_other(chosen, calls, tmp_path_factory):
    """Whatever the chain and the traffic; and the tape has every exchange, whole."""
    chain = [stage for number, stage in enumerate(STAGES) if number in chosen]
    path = tmp_path_factory.mktemp("tape") / "calls.jsonl"

    async def recorded() -> list[Any]:
        async with open_recorder(path, inline=True) as recorder:
            return await observe(chain, calls, recorder)

    plain = trio.run(observe, chain, calls, None, clock=trio.testing.MockClock(autojump_threshold=0.0))
    taped = trio.run(recorded, clock=trio.testing.MockClock(autojump_threshold=0.0))
    tape = Tape(path)
    found = [each for each in exchanges(tape.entries()) if each.begun is not None and each.begun.source]

    assert taped == plain
    assert tape.findings == []
    assert sorted(each.number for each in found) == list(range(1, len(calls) + 1))
    assert all(each.is_whole for each in found)
    by_number = {each.number: each for each in found}
    for number, (_, interim, decisions) in enumerate(plain[0], 1):
        ended = by_number[number].ended
        assert ended is not None
        assert [(d.stage, d.outcome, d.cause) for d in ended.decisions] == [
            (d.stage, d.outcome, d.cause) for d in decisions
        ]
        assert len(by_number[number].relayed) == len(interim)
