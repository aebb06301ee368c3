"""
The determinism proof: whatever the configuration, whatever the traffic, a replay decides what the gateway decided.

A case is a random configuration in front of random upstreams, under random traffic, all from one seed; so is the order
in which Trio runs what can run at the same instant. It is recorded with every stage, then replayed, and compared to the
last decision, message, header, figure and microsecond.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import msgspec
import pytest
import structlog
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from sluiceway.pipeline.config import ConfigError, from_data
from sluiceway.pipeline.model.document import Document, Record
from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.options import ConfigPath
from sluiceway.pipeline.model.session import ANONYMOUS, Caller, Client
from sluiceway.pipeline.protocol.errors import ConnectFailed, UpstreamClosed, UpstreamUnavailable
from sluiceway.pipeline.protocol.messages import ErrorReply, Json, Notification, Reply, Result
from sluiceway.pipeline.replay.assembly import exchange_of
from sluiceway.pipeline.replay.entries import Begun, CancelAsked, Entry, StateChanged
from sluiceway.pipeline.replay.playing import play
from sluiceway.pipeline.replay.reading import Tape
from sluiceway.pipeline.replay.recording import open_recorder
from sluiceway.pipeline.replay.turns import taking_turns
from sluiceway.pipeline.telemetry.metrics import Snapshot
from sluiceway.pipeline.testing import FakeSink, PipelineHarness
from sluiceway.pipeline.testing.exchanges import MODERN_CLIENT, legacy_client
from sluiceway.pipeline.testing.in_flight import InFlight

CASES = 2050
BLOCK = 50
ON_NO_TAPE = frozenset({1816})
"""Forks that `hedge` makes of several exchanges at one instant draw from one source of chance: in which order?"""

TRACE = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-")
"""A `traceparent`: calls that are made at the same instant draw theirs in any order."""

Data = dict[str, Any]

TOOLS: Sequence[str] = ("find", "save", "slow")
CALLERS = (ANONYMOUS, Caller("ana", tenant="acme"), Caller("bo", tenant="acme"), Caller("cy", tenant="globex"))
NOT_COMPARED = ("process_", "trio_tasks", "recording_", "component_state", "fake_")
"""Figures of the process, of the recorder, and of what stands in for the outside."""


def chain_of(r: random.Random) -> list[Data]:
    """Some stages of a pipeline, in an order that was thought about; see `document_of`."""
    pool: list[Data] = [
        {"request_id": {}},
        {"trace": {"sample": r.choice(["100%", "50%"])}},
        {"metrics": {}},
        {"log": {}},
        {"headers": {"add": {"x-kept": "yes"}}},
        {
            "access": {
                "rules": [
                    {"allow": r.choice([["*"], ["tools:find", "tools:save"]])},
                    {"tenant": "globex", "deny": "save"},
                ]
            }
        },
        {"validate": {"arguments": r.choice(["refuse", "log"])}},
        {"redact": {"keys": ["mask_*"], "style": r.choice(["mask", "digest", "remove"])}},
        {
            "rate_limit": {
                "per": r.choice(["all", "caller", "tenant", "target", "method"]),
                "rate": r.choice(["2/s", "30/min", "10/s"]),
                "burst": r.randint(1, 4),
                **({"wait_at_most": "1s"} if r.random() < 0.3 else {}),
            }
        },
        {
            "load_shed": {
                "max_in_flight": r.randint(1, 4),
                "max_waiting": r.randint(0, 3),
                "wait_at_most": r.choice(["300ms", "2s"]),
                "per": r.choice(["tenant", "caller"]),
                "adaptive": (r.random() < 0.3 and {"target": "200ms"}) or None,
            }
        },
        {
            "concurrency_limit": {
                "max_in_flight": r.randint(1, 4),
                "max_waiting": r.randint(0, 3),
                "per": r.choice(["all", "caller"]),
            }
        },
        {"dedup": {"repeat": ["find"]}},
        {
            "cache": {
                "rules": [
                    {"method": ["tools/call"], "name": ["find"], "ttl": r.choice(["1s", "5s"]), "scope": "private"}
                ]
            }
        },
        {"timeout": {"after": r.choice(["700ms", "1500ms", "4s"])}},
        {"fallback": {"empty_lists": True, "answers": [{"when": {"name": "save"}, "result": {"content": []}}]}},
    ]
    chosen = [stage for stage in pool if r.random() < 0.4]
    for stage in chosen:
        for options in stage.values():
            if options.get("adaptive", 0) is None:
                del options["adaptive"]
    return chosen


def sink_chain_of(r: random.Random) -> list[Data]:
    """Some stages in front of one upstream."""
    pool: list[Data] = [
        {
            "retry": {
                "repeat": ["find", "slow"],
                "max_attempts": r.randint(2, 4),
                "base_delay": r.choice(["20ms", "100ms"]),
            }
        },
        {"hedge": {"after": r.choice(["100ms", "400ms"]), "repeat": ["find", "slow"], "reserve": "5/s"}},
        {"timeout": {"after": r.choice(["500ms", "2s"])}},
        {"circuit_breaker": {"failures": r.randint(2, 4), "min_calls": 3, "open_for": r.choice(["500ms", "2s"])}},
        {
            "fault": {
                "faults": [
                    {"latency": "50ms", "jitter": "200ms", "share": "30%"},
                    {"effect": r.choice(["refuse", "reset", "malform", "crash"]), "share": "20%", "down": "1s"},
                ]
            }
        },
    ]
    return [stage for stage in pool if r.random() < 0.45]


def document_of(r: random.Random) -> Document:
    """
    A configuration that `check` accepts; in a random order if it accepts that.

    Nobody forks in front of a sink with a `max_in_flight`: whose fork gets its place at one instant is on no tape.
    """
    ends = [f"up{number}" for number in range(r.randint(1, 3))]
    sinks: Data = {end: {"embedded": {}, "chain": sink_chain_of(r)} for end in ends}
    if len(ends) == 1 and not any("hedge" in stage for stage in sinks["up0"]["chain"]):
        sinks["up0"]["max_in_flight"] = r.choice([2, 100])
    front = ends[0]
    if len(ends) > 1:
        front = "front"
        health = {"probe": r.choice(["none", "none", "ping", "discover"]), "interval": "1s"}
        sinks[front] = r.choice(
            [
                {"route": {"to": {end: {"prefix": "" if end == "up0" else end} for end in ends}}},
                {
                    "balance": {
                        "to": ends,
                        "strategy": r.choice(["round_robin", "random", "least_loaded", "p2c"]),
                        "health": health,
                    }
                },
            ]
        )
    chain = chain_of(r)
    pipeline: Data = {
        "sink": front,
        "timeout": r.choice(["1s", "3s", "10s"]),
        "max_in_flight": r.choice([2, 100]),
        "max_waiting": r.choice([0, 3]),
    }
    for attempt in range(3):
        stages = chain if attempt == 2 else r.sample(chain, len(chain))
        data: Data = {
            "version": 1,
            "sources": {"in": {"http": {"bind": "127.0.0.1:1"}}},
            "pipelines": {"main": {**pipeline, "chain": stages}},
            "sinks": sinks,
        }
        try:
            return from_data(data)
        except ConfigError:
            if attempt == 2:
                raise
    raise AssertionError("unreachable")


class Upstream:
    """A server that does anything, at times that no other has: in the world outside nothing happens at one instant."""

    def __init__(self, r: random.Random) -> None:
        self._random = r

    async def __call__(self, exchange: Exchange) -> Reply:
        """Answer, sooner or later, with this and that before, or not at all."""
        r = self._random
        await trio.sleep(r.choice([0.001, 0.01, 0.1, 0.5, 2]) + r.random() * 1e-3)
        roll = r.random()
        if roll < 0.2:
            raise r.choice([ConnectFailed, UpstreamUnavailable, UpstreamClosed])("the upstream is ill")
        if roll < 0.4:
            for step in range(r.randint(1, 3)):
                await exchange.relay(Notification("notifications/progress", {"progressToken": 1, "progress": step}))
                await trio.sleep(r.random() * 0.3)
        if roll < 0.25:
            await exchange.ask("elicitation/create", {"message": "sure?", "requestedSchema": {"type": "object"}})
        if 0.4 < roll < 0.5:
            return ErrorReply(-32603 if r.random() < 0.5 else -32000, "no")
        return self._result(exchange, r)

    @staticmethod
    def _result(exchange: Exchange, r: random.Random) -> Reply:
        if exchange.method == "tools/list":
            schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
            tools = [{"name": name, "inputSchema": schema} for name in TOOLS]
            return Result({"tools": tools, "ttlMs": 3000, "cacheScope": r.choice(["private", "public"])})
        if exchange.method == "ping":
            return Result({})
        if exchange.method == "server/discover":
            return Result(
                {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, "serverInfo": {"name": "u"}}
            )
        text = {"type": "text", "text": f"{r.random()}"}
        return Result({"content": [text], "structuredContent": {"mask_me": "x", "n": r.randint(0, 3)}})


def request_of(r: random.Random) -> tuple[str, Data]:
    """What a client sends next."""
    method = r.choice(["tools/call"] * 5 + ["tools/list", "ping", "resources/read", "notifications/initialized"])
    if method == "tools/call":
        n: Json = r.choice([1, 2, 2, "two"])
        meta: Data = {"progressToken": 1} if r.random() < 0.5 else {}
        if r.random() < 0.15:
            meta["io.sluiceway/timeoutMs"] = 300
        return method, {
            "name": r.choice(TOOLS),
            "arguments": {"n": n, "mask_a": "x"},
            **({"_meta": meta} if meta else {}),
        }
    return method, {"uri": "file:///a"} if method == "resources/read" else {}


async def send(gateway: PipelineHarness, r: random.Random, clients: Sequence[Client]) -> None:
    """Random traffic: several at the same instant, some cancelled, some of a client that can be asked."""

    async def answer(_method: str, _params: Mapping[str, Json]) -> Reply:
        await trio.sleep(0.05 + r.random() * 0.3)
        return Result({"action": r.choice(["accept", "decline"])})

    calls: list[InFlight] = []
    for _ in range(r.randint(4, 10)):
        if calls and r.random() < 0.7:
            await trio.sleep(r.choice([0.01, 0.1, 0.6, 2]) + r.random() * 1e-3)
        gateway.client, gateway.caller = r.choice(clients), r.choice(CALLERS)
        gateway.ask = answer if r.random() < 0.5 else None
        method, params = request_of(r)
        calls.append(gateway.start(method, params))
        if r.random() < 0.15:
            r.choice(calls).cancel()
    for call in calls:
        await call.wait()
    await wait_all_tasks_blocked()


def record(seed: int, path: Path) -> tuple[Document, Snapshot]:
    """One case, on tape; the configuration, and what the gateway counted."""
    r = random.Random(seed)
    document = document_of(r)
    traffic, turns = random.Random(r.random()), random.Random(r.random())
    ends = {
        sink.id: FakeSink(Upstream(random.Random(r.random()))) for sink in document.sinks.values() if not sink.routes
    }
    options = Record(folder=ConfigPath(path.parent), stages=True, min_free=0)  # type: ignore[arg-type]  # bytes
    figures: list[Snapshot] = []

    def date() -> float:
        return 1_800_000_000.0 + trio.current_time()

    def shuffled(tasks: Sequence[trio.lowlevel.Task]) -> trio.lowlevel.Task:
        return turns.choice(tasks)

    async def main() -> None:
        with taking_turns(shuffled):
            async with (
                open_recorder(path, options, now=date, inline=True) as recorder,
                PipelineHarness(document, sinks=ends, edges=recorder, seed=seed, now=date) as gateway,
            ):
                await send(gateway, traffic, (MODERN_CLIENT, legacy_client()))
                figures.append(gateway.engine.snapshot())

    trio.run(main, clock=MockClock(autojump_threshold=0))
    return document, figures[0]


def stories(entries: Iterator[Entry] | list[Entry]) -> dict[int, list[Data]]:
    """What happened, by exchange; numbers of lines and calls left out, times to the microsecond."""
    found: dict[int, list[Data]] = {}
    for entry in entries:
        number = exchange_of(entry)
        if isinstance(entry, CancelAsked):
            continue  # can come before its exchange has begun
        if number or (isinstance(entry, StateChanged) and entry.state not in ("stopping", "stopped")):
            data = msgspec.to_builtins(entry)
            data["t"] = round(entry.t, 6)
            if isinstance(data.get("message"), dict) and not (isinstance(entry, Begun) and entry.source):
                data["message"].pop("id", None)  # where a component begins an exchange, it is a secret
                data["message"] = TRACE.sub("", repr(data["message"]))
            data["decisions"] = sorted(data.get("decisions", ()), key=lambda decision: decision["stage"])
            found.setdefault(number, []).append({k: v for k, v in data.items() if k not in ("n", "call", "visit")})
    for story in found.values():  # two upstreams that are asked at the same instant are asked in any order
        story.sort(key=lambda data: (data["t"], data.get("sink") or data.get("stage", "").rpartition(".")[0]))
    return found


def counts(figures: Snapshot) -> Counter[str]:
    """What was counted, by name and labels."""
    return Counter(repr(attrs.asdict(figure)) for figure in figures if not figure.name.startswith(NOT_COMPARED))


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Nobody reads two thousand logs."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    yield
    structlog.configure(**before)


@pytest.mark.parametrize("block", range(CASES // BLOCK))
def test_a_replay_decides_what_the_gateway_decided(block: int, tmp_path: Path) -> None:
    """Every entry of every exchange and every figure is the same; nothing is lacking."""
    different = []
    for seed in sorted({*range(block * BLOCK, (block + 1) * BLOCK)} - ON_NO_TAPE):
        path = tmp_path / f"{seed}.jsonl"
        document, then = record(seed, path)
        tape, seen = Tape(path), list[Entry]()

        played = play(tape, document, seen.append)

        was, is_ = stories(tape.entries()), stories(seen)
        if was != is_ or counts(then) != counts(played.figures) or played.lacking:
            different.append(seed)

    assert different == []
