"""What a client sees of a limit, over HTTP and over stdio; and the sample with the seeds' figures."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import httpx2
import pytest
import trio

from sluiceway.pipeline.config import from_data
from sluiceway.pipeline.model.component import ComponentKind, Context, Sink
from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.session import Caller
from sluiceway.pipeline.protocol.messages import ErrorReply, Reply, Result
from sluiceway.pipeline.runtime.engine import Engine
from sluiceway.pipeline.testing import FakeSink, PipelineHarness

MAIN = "import sys; from sluiceway.pipeline.cli import main; sys.exit(main())"
SAMPLE = Path(__file__).resolve().parents[2] / "configs" / "limits.yaml"
META = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}
HEADERS = {
    "accept": "application/json, text/event-stream",
    "mcp-protocol-version": "2026-07-28",
    "mcp-method": "tools/call",
    "mcp-name": "x",
}


def body(number: int) -> dict[str, Any]:
    """A call of the tool `x`."""
    return {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": {"name": "x", "_meta": META}}


@attrs.frozen
class NoOptions:
    """Nothing to choose."""


class Gate(Sink):
    """Answers when it is told to."""

    Config = NoOptions
    name = "gate"

    def __init__(self) -> None:
        super().__init__(NoOptions(), Context(id="k"))
        self.entered = trio.Event()
        self.go = trio.Event()

    async def __call__(self, exchange: Exchange) -> Reply:
        self.entered.set()
        await self.go.wait()
        return Result({"content": []})


@asynccontextmanager
async def gateway(stage: dict[str, Any], sink: Sink) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of a gateway with one stage, over a real socket."""
    document = from_data(
        {
            "version": 1,
            "sources": {"web": {"http": {"bind": "127.0.0.1:0"}}},
            "pipelines": {"main": {"chain": [stage], "sink": "k"}},
            "sinks": {"k": {"embedded": {"server": "demo"}}},
        }
    )
    engine = Engine(document, overrides={(ComponentKind.SINK, "k"): sink})
    async with engine.running():
        address = str(engine.sources["web"].addresses[0])
        async with httpx2.AsyncClient(base_url=f"http://{address}", headers=HEADERS) as client:
            yield client


async def test_a_rate_limit_over_http() -> None:
    """429; `Retry-After` in header, data and text is one number, within 5 % of the truth (case 29)."""
    sink = Gate()
    sink.go.set()
    async with gateway({"rate_limit": {"id": "inbound", "rate": "1/h", "per": "address"}}, sink) as client:
        first = await client.post("/mcp", json=body(1))
        second = await client.post("/mcp", json=body(2))

    assert (first.status_code, second.status_code) == (200, 429)
    assert (
        first.headers["ratelimit-policy"] == second.headers["ratelimit-policy"] == '"pipelines.main.inbound";q=1;w=3600'
    )
    assert first.headers["ratelimit"] == '"pipelines.main.inbound";r=0;t=3600'
    error = second.json()["error"]
    wait_ms = error["data"].pop("retry_after_ms")
    assert 0.95 * 3_600_000 <= wait_ms <= 3_600_000
    wait_s = math.ceil(wait_ms / 1000)
    assert second.headers["retry-after"] == str(wait_s)
    assert second.headers["ratelimit"] == f'"pipelines.main.inbound";r=0;t={wait_s}'
    message = error.pop("message")
    assert message.startswith("pipelines.main.inbound: rate limit exceeded: 1/h per address; try again in ")
    assert error == {
        "code": 42900,
        "data": {"origin": "gateway", "reason": "rate_limited", "rate_limit": "1/h", "retry_after_seconds": wait_s},
    }


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (
            {"load_shed": {"id": "shed", "max_in_flight": 1, "max_waiting": 0}},
            "pipelines.main.shed: 1 exchanges run and 0 wait (at most 0 of normal priority); try again later",
        ),
        (
            {"concurrency_limit": {"id": "places", "max_in_flight": 1}},
            "pipelines.main.places: max_in_flight is 1 and max_waiting is 0 per all; send less, or raise one",
        ),
    ],
    ids=["load_shed", "concurrency_limit"],
)
async def test_too_much_at_once_over_http(stage: dict[str, Any], message: str) -> None:
    """503 at once, while the first is still under way; the first is answered all the same."""
    sink = Gate()
    first: list[int] = []

    async def call(client: httpx2.AsyncClient) -> None:
        first.append((await client.post("/mcp", json=body(1))).status_code)

    async with gateway(stage, sink) as client, trio.open_nursery() as nursery:
        nursery.start_soon(call, client)
        await sink.entered.wait()
        second = await client.post("/mcp", json=body(2))
        sink.go.set()

    assert (first, second.status_code, second.headers["retry-after"]) == ([200], 503, "1")
    assert second.json()["error"] == {
        "code": 50301,
        "message": message,
        "data": {"origin": "gateway", "reason": "capacity_exceeded", "retry_after_ms": 1000},
    }


@pytest.mark.real
def test_a_rate_limit_over_stdio(tmp_path: Path) -> None:
    """The same error, without headers."""
    config = {
        "version": 1,
        "sources": {"editor": {"stdio": {}}},
        "pipelines": {"main": {"chain": [{"rate_limit": {"rate": "1/h"}}]}},
        "sinks": {"demo": {"embedded": {"server": "demo"}}},
    }
    path = tmp_path / "gateway.yaml"
    path.write_text(json.dumps(config), encoding="utf-8")
    lines = "".join(json.dumps(body(number)) + "\n" for number in (1, 2))
    done = subprocess.run(
        [sys.executable, "-c", MAIN, "run", str(path)],
        input=lines,
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    replies = {reply["id"]: reply for reply in map(json.loads, done.stdout.splitlines())}

    refused = next(reply["error"] for reply in replies.values() if reply.get("error", {}).get("code") == 42900)
    assert len(replies) == 2
    assert refused["data"].pop("retry_after_ms") <= 3_600_000
    assert refused["data"] == {
        "origin": "gateway",
        "reason": "rate_limited",
        "rate_limit": "1/h",
        "retry_after_seconds": 3600,
    }


async def test_the_sample_has_the_seeds_figures(autojump_clock: object) -> None:
    """60 a minute for each client coming in, 100 a minute going out; the 101st of these waits (X-06)."""
    async with PipelineHarness.from_yaml(SAMPLE, sinks={"demo": FakeSink.echo()}) as harness:
        replies = []
        for who in ("ana", "bob"):
            harness.caller = Caller(who, how="bearer")
            replies += [await harness.call("tools/list") for _ in range(61 if who == "ana" else 40)]
        refused = [number for number, reply in enumerate(replies) if isinstance(reply, ErrorReply)]
        start = trio.current_time()
        last = await harness.call("tools/list")

        assert refused == [60]
        assert replies[60].data["reason"] == "rate_limited"
        assert isinstance(last, Result)
        assert trio.current_time() - start == pytest.approx(0.6)


@pytest.mark.parametrize(("per", "calls"), [("caller", 3), ("all", 2)])
async def test_looking_up_a_tool_costs_its_caller_nothing(autojump_clock: Any, per: str, calls: int) -> None:
    """Three of three calls fit behind `validate`; a limit that protects the upstream counts the look-up, too."""
    chain = ["validate", {"rate_limit": {"per": per, "rate": "3/h"}}]
    data = {
        "version": 1,
        "sources": {"in": {"stdio": {}}},
        "pipelines": {"main": {"chain": chain, "sink": "k"}},
        "sinks": {"k": {"embedded": {}}},
    }
    async with PipelineHarness.from_data(data) as gateway:
        gateway.caller = Caller("ana", how="bearer")
        replies = await gateway.call_many("tools/call", name="echo", arguments={"text": "hi"}, times=4)

    assert [isinstance(reply, Result) for reply in replies] == [True] * calls + [False] * (4 - calls)
