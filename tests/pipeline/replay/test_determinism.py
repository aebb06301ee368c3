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
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import msgspec
import pytest
import structlog
import trio
from msgspec.structs import replace
from trio.testing import MockClock, wait_all_tasks_blocked

from sluiceway.pipeline.config import ConfigError, from_data
from sluiceway.pipeline.model.document import Document, Record
from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.options import ConfigPath
from sluiceway.pipeline.model.pins import write_lock
from sluiceway.pipeline.model.session import ANONYMOUS, Caller, Client
from sluiceway.pipeline.model.tools import Tool
from sluiceway.pipeline.protocol.errors import ConnectFailed, UpstreamClosed, UpstreamUnavailable
from sluiceway.pipeline.protocol.mcp import Kind
from sluiceway.pipeline.protocol.messages import ErrorReply, Json, Notification, Reply, Result
from sluiceway.pipeline.replay.assembly import exchange_of
from sluiceway.pipeline.replay.entries import Begun, CancelAsked, Ended, Entry, StateChanged
from sluiceway.pipeline.replay.playing import play
from sluiceway.pipeline.replay.reading import Tape
from sluiceway.pipeline.replay.recording import open_recorder
from sluiceway.pipeline.replay.stand_ins import is_identity, stages_of
from sluiceway.pipeline.replay.turns import taking_turns
from sluiceway.pipeline.telemetry.metrics import Snapshot
from sluiceway.pipeline.testing import FakeSink, PipelineHarness
from sluiceway.pipeline.testing.exchanges import MODERN_CLIENT, legacy_client
from sluiceway.pipeline.testing.in_flight import InFlight

CASES = 2050
BLOCK = 50
TRACE = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-")
"""A `traceparent`: calls that are made at the same instant draw theirs in any order."""

Data = dict[str, Any]

TOOLS: Sequence[str] = ("find", "save", "slow")
CALLERS = (ANONYMOUS, Caller("ana", tenant="acme"), Caller("bo", tenant="acme"), Caller("cy", tenant="globex"))
NOT_COMPARED = (
    "process_",
    "trio_tasks",
    "recording_",
    "component_state",
    "fake_",
    "auth_",
    "tenant_",
    "audit_",
    "security_",
)
"""Figures of the process, the recorder, and of what stands in for the outside, reads or writes there."""
TEAM = Path(__file__).resolve().parents[3] / "configs" / "team"
KEYS = [f"slw_the-key-of-{name}-in-the-sample-change-it" for name in ("ana", "bob")]


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


def identity_of(r: random.Random, folder: Path) -> list[Data]:
    """Some stages that find out who calls, and one that writes down who did; in front of all others."""
    key = {"file": str(TEAM / "keys.json"), "pepper": {"from_file": str(TEAM / "pepper")}}
    auth: Sequence[list[Data]] = (
        [],
        [{"auth_anonymous": {"subject": "guest", "tenant": r.choice(["acme", "globex"])}}],
        [{"auth_api_key": key}],
        [{"auth_api_key": {**key, "optional": True}}, {"auth_anonymous": {}}],
    )
    tenant: Data = {"tenant": {"tenants": {"acme": {}}, **({"default": "acme"} if r.random() < 0.5 else {})}}
    audit: Data = {"audit": {"to": "log", "params": r.choice(["none", "digest", "redacted"])}}
    chosen = r.choice(auth)
    return [
        *([audit] if r.random() < 0.4 else []),
        *chosen,
        *([tenant] if chosen and r.random() < 0.5 else []),
    ]


def pins_of(r: random.Random, folder: Path) -> list[Data]:
    """Perhaps a lock file, in which one tool is another one than the upstreams have."""
    if r.random() < 0.7:
        return []
    tools = [tool_named(name) for name in TOOLS]
    changed = {**tools[0], "description": "another"} if r.random() < 0.5 else tools[0]
    lock = folder / "tools.lock.json"
    lock.write_bytes(write_lock([Tool(each) for each in (changed, *tools[1:2])]))
    return [{"pin": {"lock": str(lock), "unknown": r.choice(["hide", "allow"])}}]


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


def document_of(r: random.Random, more: random.Random, folder: Path) -> Document:
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
    chain, front_stages, pins = chain_of(r), identity_of(more, folder), pins_of(more, folder)
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
            "pipelines": {"main": {**pipeline, "chain": [*front_stages, *stages, *pins]}},
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
        if exchange.kind is Kind.LISTEN:
            return await self._listened(exchange, r)
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
    async def _listened(exchange: Exchange, r: random.Random) -> Reply:
        """Acknowledge, tell this and that, and end; or refuse."""
        await trio.sleep(0.01 + r.random() * 0.2)
        if r.random() < 0.2:
            return ErrorReply(-32601, "nobody listens here")
        granted = {"notifications": {"toolsListChanged": True}}
        await exchange.relay(Notification("notifications/subscriptions/acknowledged", granted))
        for _ in range(r.randint(0, 3)):
            await trio.sleep(0.1 + r.random())
            await exchange.relay(Notification("notifications/tools/list_changed"))
        await trio.sleep(0.1 + r.random())
        return Result({"resultType": "complete"})

    @staticmethod
    def _result(exchange: Exchange, r: random.Random) -> Reply:
        if exchange.method == "tools/list":
            tools = [tool_named(name) for name in TOOLS]
            return Result({"tools": tools, "ttlMs": 3000, "cacheScope": r.choice(["private", "public"])})
        if exchange.method == "ping":
            return Result({})
        if exchange.method == "server/discover":
            return Result(
                {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, "serverInfo": {"name": "u"}}
            )
        text = {"type": "text", "text": f"{r.random()}"}
        return Result({"content": [text], "structuredContent": {"mask_me": "x", "n": r.randint(0, 3)}})


def tool_named(name: str) -> Data:
    """A tool as the upstreams list it."""
    return {"name": name, "inputSchema": {"type": "object", "properties": {"n": {"type": "integer"}}}}


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


def clients_of(more: random.Random) -> list[Client]:
    """A modern and a legacy client, with the credentials that they have."""
    keys = [{}, {"x-api-key": "slw_of-nobody"}, *({"x-api-key": key} for key in KEYS)]
    return [replace(each, headers=more.choice(keys)) for each in (MODERN_CLIENT, legacy_client())]


async def send(
    gateway: PipelineHarness, r: random.Random, more: random.Random, clients: Sequence[Client], *, finds_out: bool
) -> None:
    """Random traffic: several at the same instant, some cancelled, some of a client that can be asked, or listens."""

    async def answer(_method: str, _params: Mapping[str, Json]) -> Reply:
        await trio.sleep(0.05 + r.random() * 0.3)
        return Result({"action": r.choice(["accept", "decline"])})

    calls: list[InFlight] = []
    listeners: list[InFlight] = []
    for _ in range(r.randint(4, 10)):
        if calls and r.random() < 0.7:
            await trio.sleep(r.choice([0.01, 0.1, 0.6, 2]) + r.random() * 1e-3)
        gateway.client, caller = r.choice(clients), r.choice(CALLERS)
        gateway.caller = ANONYMOUS if finds_out else caller
        gateway.ask = answer if r.random() < 0.5 else None
        if more.random() < 0.15:
            wanted = {"toolsListChanged": True, "promptsListChanged": more.random() < 0.5}
            listeners.append(gateway.start("subscriptions/listen", notifications=wanted))
        method, params = request_of(r)
        calls.append(gateway.start(method, params))
        if r.random() < 0.15:
            r.choice(calls).cancel()
    for call in calls:
        await call.wait()
    for listener in listeners:
        listener.cancel()
        await listener.wait()
    await wait_all_tasks_blocked()


def record(seed: int, path: Path) -> tuple[Document, Snapshot]:
    """One case, on tape; the configuration, and what the gateway counted."""
    r, more = random.Random(seed), random.Random(f"more {seed}")
    document = document_of(r, more, path.parent)
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
                finds_out = any(is_identity(stage) for _, stage in stages_of(document))
                await send(gateway, traffic, more, clients_of(more), finds_out=finds_out)
                figures.append(gateway.engine.snapshot())

    trio.run(main, clock=MockClock(autojump_threshold=0))
    return document, figures[0]


def stories(entries: Iterator[Entry] | list[Entry], apart: Collection[str]) -> dict[int, list[Data]]:
    """
    What happened, by exchange; numbers of lines and calls left out, times to the microsecond.

    Args:
        entries: Of a tape.
        apart: Ids of stages that read what is on no tape: how they come to what they find is not told.
    """
    found: dict[int, list[Data]] = {}
    silent: set[int] = set()
    for entry in entries:
        number = exchange_of(entry)
        if isinstance(entry, Ended) and entry.reply is None:
            silent.add(number)
        if isinstance(entry, CancelAsked):
            continue  # can come before its exchange has begun
        if number or (isinstance(entry, StateChanged) and entry.state not in ("stopping", "stopped")):
            data = msgspec.to_builtins(entry)
            if data.get("stage") in apart:
                continue
            data["t"] = round(entry.t, 6)
            if isinstance(data.get("message"), dict) and not (isinstance(entry, Begun) and entry.source):
                data["message"].pop("id", None)  # where a component begins an exchange, it is a secret
                data["message"] = TRACE.sub("", repr(data["message"]))
            decisions = (each for each in data.get("decisions", ()) if each["stage"] not in apart)
            data["decisions"] = sorted(decisions, key=lambda decision: decision["stage"])
            found.setdefault(number, []).append({k: v for k, v in data.items() if k not in ("n", "call", "visit")})
    for number in silent & found.keys():  # why somebody was turned away who was not told is on no tape
        for data in found[number]:
            data.pop("failure", None)
    for story in found.values():  # two upstreams that are asked, or cut off, at the same instant are so in any order
        story.sort(
            key=lambda data: (data["t"], data.get("sink") or data.get("stage", "").rpartition(".")[0], cut(data))
        )
    return found


def cut(data: Data) -> str:
    """What was cut off without an answer; empty for everything else."""
    is_end = data["event"] in ("call_ended", "answered", "call_answered")
    return data["event"] if is_end and "reply" not in data and "failure" not in data else ""


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
    for seed in range(block * BLOCK, (block + 1) * BLOCK):
        path = tmp_path / f"{seed}.jsonl"
        document, then = record(seed, path)
        tape, seen = Tape(path), list[Entry]()

        played = play(tape, document, seen.append)

        apart = {component_id for component_id, stage in stages_of(document) if is_identity(stage)}
        was, is_ = stories(tape.entries(), apart), stories(seen, apart)
        if was != is_ or counts(then) != counts(played.figures) or played.lacking:
            different.append(seed)

    assert different == []
