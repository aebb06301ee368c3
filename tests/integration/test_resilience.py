"""The sample of docs/resilience.md, with its primary taken away and given back; and failover between real sinks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.protocol.errors import UpstreamClosed
from sluiceway.pipeline.protocol.messages import ErrorReply, Json, Reply, Result
from sluiceway.pipeline.testing import FakeSink, PipelineHarness, legacy_client

SAMPLE = Path(__file__).resolve().parents[2] / "configs" / "resilient.yaml"
PROVENANCE = "io.sluiceway/fallback"


def _origin(reply: Reply | None) -> Json:
    if not isinstance(reply, Result):
        return reply.data["reason"] if isinstance(reply, ErrorReply) else None
    return reply.value.get("_meta", {}).get(PROVENANCE, {}).get("from", "primary")


async def test_the_sample_serves_on_while_its_primary_is_gone(autojump_clock: MockClock) -> None:
    """
    Every read is answered: by the primary, by the replica, by what was answered before. The breaker spares the primary
    meanwhile, and finds out by itself when it is back. A call that is lost is sent nowhere else.
    """
    up = {"primary": True, "replica": True}

    def server(name: str) -> FakeSink:
        async def behave(_exchange: Exchange) -> Reply:
            await trio.lowlevel.checkpoint()
            if not up[name]:
                raise UpstreamClosed(f"{name} is gone")
            return Result({"tools": [], "from": name})

        return FakeSink(behave)

    primary, replica = server("primary"), server("replica")
    async with PipelineHarness.from_yaml(SAMPLE, sinks={"primary": primary, "replica": replica}) as gateway:
        said = [_origin(await gateway.call("tools/list"))]
        up["primary"] = False
        said.append(_origin(await gateway.call("tools/call", name="pay")))
        said += [_origin(await gateway.call("tools/list")) for _ in range(20)]
        spared = len(primary.requests)
        up["replica"] = False
        said.append(_origin(await gateway.call("tools/list")))
        up["primary"] = True
        await trio.sleep(12)
        said += [_origin(await gateway.call("tools/list")) for _ in range(3)]

    assert said == ["primary", "outcome_unknown", *["sink"] * 20, "kept", *["primary"] * 3]
    assert spared < 10
    assert "tools/call" not in [request.method for request in replica.requests]


@pytest.mark.parametrize("stage", [{"retry": {"failover": ["spare"]}}, {"fallback": {"sink": "spare"}}])
async def test_a_legacy_session_goes_on_at_another_sink(stage: dict[str, Any]) -> None:
    """The other sink has never seen the handshake of this client; it serves it all the same."""
    data = {
        "version": 1,
        "sources": {"s": {"stdio": {}}},
        "pipelines": {"main": {"chain": [], "sink": "dead"}},
        "sinks": {"dead": {"embedded": {}, "chain": [stage]}, "spare": {"embedded": {}}},
    }
    async with PipelineHarness.from_data(data, sinks={"dead": FakeSink.fail(times=99)}) as gateway:
        gateway.client = legacy_client("2025-06-18")
        reply = await gateway.call("tools/list")

    assert isinstance(reply, Result)
    assert reply.value["tools"] != []
