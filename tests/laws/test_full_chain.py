"""
A chain of all stages in the recommended order, with thousands of interleavings, on the mock clock.

One example is a gateway and its life: many episodes, one after the other, so that what is kept, joined, open or used up
after one is there in the next. Hypothesis chooses the number that all chance of a life comes from.

The upstream says in every answer, and in every error, for whom it is. So whatever the stages keep, share, repeat, limit
and refuse in between: nobody may ever see what is another one's.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import cache
from itertools import count
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest
import structlog
import trio
from attrs import evolve, frozen
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from sluiceway.middlewares.auth.api_keys import ApiKey, digest_of, render_keys
from sluiceway.pipeline.config import from_data
from sluiceway.pipeline.model.component import ComponentKind, Middleware
from sluiceway.pipeline.model.document import Document
from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.registry import BUILT_IN
from sluiceway.pipeline.model.session import Client, Session
from sluiceway.pipeline.protocol.errors import ConnectFailed, UpstreamClosed
from sluiceway.pipeline.protocol.mcp import LATEST, LATEST_LEGACY, Era, MetaKey
from sluiceway.pipeline.protocol.messages import ErrorReply, Json, Notification, Reply, Result
from sluiceway.pipeline.testing import FakeSink, InFlight, PipelineHarness, cancel_everywhere, run_clean
from sluiceway.pipeline.testing.census import take_census

pytestmark = pytest.mark.timeout(300)
"""They hang, or they end in half a minute; on a machine that others use, that is several."""

PEPPER: Final = "a pepper of the laws, which is no secret"
PEOPLE: Final = {"ana": "acme", "bob": "acme", "cyn": "globex", "ana2": "acme"}
"""Who holds a key; `ana2` is another key of ana, with other rights."""
SCHEMA: Final = {"type": "object", "properties": {"text": {"type": "string"}}}
TOOLS: Final = [{"name": name, "inputSchema": SCHEMA} for name in ("read_file", "search", "pay")]
JWKS: Final = Path(__file__).parents[1] / "data" / "auth" / "jwks.json"


def wide_open(folder: Path, **changes: Mapping[str, Json]) -> list[dict[str, Any]]:
    """
    All stages with limits that nothing here reaches, and nothing kept that does not say so itself.

    Args:
        folder: Where the keys are.
        changes: Other options, by stage.
    """
    options: dict[str, dict[str, Any]] = {
        "trace": {"stages": True}, "request_id": {}, "metrics": {}, "log": {}, "audit": {"to": "log"},
        "headers": {"hide": []},
        "auth_api_key": {"pepper": {"from_file": str(folder / "pepper")}, "file": str(folder / "keys.json"),
                         "optional": True},
        "auth_mtls": {"holders": [{"name": ["*"]}], "optional": True},
        "auth_bearer": {"issuer": "https://id.example.com", "resource": "https://gateway.example.com/mcp",
                        "jwks": {"from_file": str(JWKS)}},
        "tenant": {"tenants": {"acme": {}, "globex": {}}},
        "access": {"rules": [{"allow": "*"}]},
        "pin": {"lock": str(folder / "tools.lock.json"), "unknown": "allow"},
        "validate": {}, "redact": {"keys": ["password"]}, "rate_limit": {"rate": "10000/s", "per": "caller"},
        "concurrency_limit": {"max_in_flight": 1000}, "load_shed": {"max_in_flight": 1000}, "dedup": {}, "cache": {},
        "fallback": {}, "retry": {}, "hedge": {"after": "60s"},
        "circuit_breaker": {"failures": 1000, "min_calls": 1000}, "timeout": {"after": "60s"},
        "fault": {"faults": [{"effect": "refuse", "skip": 1_000_000}]},
    }  # fmt: skip
    assert options.keys() | {"auth_anonymous"} == BUILT_IN[ComponentKind.MIDDLEWARE].keys()
    return [{name: {**own, **changes.get(name, {})}} for name, own in options.items()]


BUSY: Final[dict[str, dict[str, Json]]] = {
    "rate_limit": {"rate": "5/s", "burst": 8},
    "concurrency_limit": {"max_in_flight": 6, "max_waiting": 4, "wait_at_most": "1s"},
    "load_shed": {"max_in_flight": 5, "max_waiting": 4, "wait_at_most": "1s"},
    "dedup": {"repeat": ["search"]},
    "cache": {
        "rules": [{"method": ["tools/list", "tools/call", "resources/read"], "name": ["search", "r:*"], "ttl": "3s"},
                  {"method": ["tools/list"], "ttl": "3s", "scope": "public"}],
        "negative_ttl": "2s", "stale_while_revalidate": "2s", "stale_if_error": "20s", "max_entries": 20,
    },
    "fallback": {"keep": "1h", "store": "kept"},
    "retry": {"base_delay": "200ms", "repeat": ["search"], "budget": "100%", "reserve": "10/s"},
    "hedge": {"after": "500ms", "repeat": ["search"], "budget": "100%", "reserve": "10/s"},
    "circuit_breaker": {"failures": 3, "open_for": "2s"},
    "timeout": {"after": "2s"},
}  # fmt: skip
"""Everything that can keep, share, repeat or refuse does."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys of all people, and a lock file without tools."""
    place = tmp_path_factory.mktemp("laws")
    keys = [
        ApiKey(id=name, digest=digest_of(PEPPER.encode(), key_of(name)), subject=name[:3], tenant=tenant,
               scopes=("more",) if name == "ana2" else ())
        for name, tenant in PEOPLE.items()
    ]  # fmt: skip
    (place / "pepper").write_text(PEPPER, encoding="utf-8")
    (place / "keys.json").write_bytes(render_keys(keys))
    (place / "tools.lock.json").write_text(json.dumps({"version": 1, "tools": {}}), encoding="utf-8")
    return place


@pytest.fixture(autouse=True)
def _quiet() -> None:
    """Nobody reads some ten thousand lines of log, and writing them takes longer than all the rest."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def key_of(name: str) -> str:
    """The key of somebody."""
    return f"slw_the-key-of-{name}-in-these-laws"


def whose(exchange: Exchange) -> str:
    """Who asks, and with which rights."""
    caller = exchange.caller
    return f"<{caller.tenant}/{caller.subject}/{'+'.join(sorted(caller.scopes))}>"


def client_of(name: str | None, era: Era) -> Client:
    """A client that shows somebody's key, or none; of the legacy era with a session that is not open yet."""
    headers = {"x-api-key": key_of(name)} if name else {}
    if era is Era.MODERN:
        return Client(era=era, version=LATEST, transport="http", headers=headers)
    session = Session(id=f"session-{name}", source="s")
    return Client(era=era, version=LATEST_LEGACY, transport="http", headers=headers, session=session)


@frozen
class Call:
    """What somebody does, and when."""

    who: str | None
    era: Era
    method: str
    target: str
    wait_s: float
    """Since the call before."""
    cancel_after_s: float | None
    keyed: bool
    """With an idempotency key, which everybody chooses equally badly."""


@frozen
class Act:
    """What the upstream does at one call."""

    relayed: int
    takes_s: float
    end: str


def some_calls(rng: Random, most: int) -> list[Call]:
    """What several people do, some at the same time."""
    choose = rng.choice
    return [
        Call(
            who=choose([*PEOPLE, *PEOPLE, None]),
            era=choose(list(Era)),
            method=choose(["tools/list", "resources/read", "tools/call", "tools/call"]),
            target=choose(["search", "pay"]),
            wait_s=choose([0.0, 0.0, 0.0, 0.1, 1.0, 5.0]),
            cancel_after_s=choose([None, None, None, 0.0, 0.3, 1.5]),
            keyed=choose([True, False]),
        )
        for _ in range(rng.randint(1, most))
    ]


def some_acts(rng: Random) -> list[Act]:
    """What the upstream does at that."""
    choose = rng.choice
    ends = ["result", "result", "result", "failed", "error", "unknown", "closed", "unreachable"]
    return [
        Act(choose([0, 0, 1, 3]), choose([0.0, 0.2, 0.8, 5.0]), choose(ends)) for _ in range(rng.randint(1, 8))
    ]  # fmt: skip


NO_SHRINKING: Final = (Phase.explicit, Phase.reuse, Phase.generate)
"""A number is not made clearer by making it smaller."""
LIVES: Final = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow], phases=NO_SHRINKING
)
EPISODES: Final = 60
"""Of one life: 1,200 in all, with some 8,000 calls."""
SEEDS: Final = st.integers(0, 2**64)


class World:
    """A gateway with all stages, an upstream that says for whom each of its words is, and what everybody heard."""

    def __init__(self, acts: list[Act]) -> None:
        self.acts = acts
        """Changed from one episode to the next."""
        self.attempts: Counter[int] = Counter()
        self.clients: dict[tuple[str | None, Era], Client] = {}
        self.heard: list[tuple[Call, InFlight, int]] = []

    async def upstream(self, exchange: Exchange) -> Reply:
        """Answer a call."""
        if exchange.method == "initialize":
            return Result({"protocolVersion": LATEST_LEGACY, "capabilities": {}})
        text, token = whose(exchange), exchange.request.params.get("_meta", {}).get("progressToken")
        act = Act(0, 0.0, "result")  # of a stage that looks tools up
        if token is not None:
            act = self.acts[(token + self.attempts[token]) % len(self.acts)]
            self.attempts[token] += 1
        for step in range(act.relayed if token is not None else 0):
            await trio.sleep(act.takes_s / 4)
            params = {"progressToken": token, "progress": step, "message": text}
            await exchange.relay(Notification("notifications/progress", params))
        await trio.sleep(act.takes_s)
        match act.end:
            case "error":
                return ErrorReply(-32000, text)
            case "unknown":
                return ErrorReply(-32602, text)
            case "closed":
                raise UpstreamClosed(f"gone, says {text}")
            case "unreachable":
                raise ConnectFailed(f"away, says {text}")
        if exchange.method == "tools/list":  # shared within a tenant, so it says for whom it is by tenant
            return Result({"tools": [{**tool, "title": f"<{exchange.caller.tenant}/"} for tool in TOOLS]})
        if exchange.method == "resources/read":
            return Result({"contents": [{"uri": "r:1", "text": text}]})
        return Result({"content": [{"type": "text", "text": text}], "isError": act.end == "failed"})

    def start(self, gateway: PipelineHarness, call: Call) -> None:
        """Make a call."""
        gateway.client = self.clients[call.who, call.era]
        number = len(self.heard)
        meta: dict[str, Json] = {"progressToken": number}
        if call.keyed and call.target == "pay":
            meta[MetaKey.IDEMPOTENCY_KEY] = "1"
        params: dict[str, Json] = {"_meta": meta}
        if call.method == "tools/call":
            params |= {"name": call.target, "arguments": {"text": "x"}}
        elif call.method == "resources/read":
            params["uri"] = "r:1"
        self.heard.append((call, gateway.start(call.method, params), number))

    async def arrive(self, gateway: PipelineHarness) -> None:
        """Everybody opens a session, if their era has them."""
        for who in (*PEOPLE, None):
            for era in Era:
                client = gateway.client = self.clients[who, era] = client_of(who, era)
                if client.session is not None:
                    await gateway.call("initialize", {"protocolVersion": LATEST_LEGACY})
                    client.session.version = LATEST_LEGACY

    async def live(self, gateway: PipelineHarness, calls: list[Call]) -> None:
        """Make all calls; come back when each has ended."""
        before = len(self.heard)
        async with trio.open_nursery() as nursery:
            for call in calls:
                await trio.sleep(call.wait_s)
                self.start(gateway, call)
                if call.cancel_after_s is not None:
                    nursery.start_soon(self._cancel, self.heard[-1][1], call.cancel_after_s)
        for _, flight, _ in self.heard[before:]:
            await flight.wait()

    async def _cancel(self, flight: InFlight, after_s: float) -> None:
        await trio.sleep(after_s)
        flight.cancel()

    def check(self) -> None:
        """Everybody heard one reply, in order, and nothing of anybody else."""
        marks = {name: f"<{tenant}/{name[:3]}/{'more' if name == 'ana2' else ''}>" for name, tenant in PEOPLE.items()}
        assert self.attempts or all(call.who is None or call.cancel_after_s is not None for call, *_ in self.heard)
        for call, flight, number in self.heard:
            said = json.dumps([_plain(flight.reply), [note.params for note in flight.interim]])
            own = {call.who}
            if call.keyed and call.target == "pay" and call.who in ("ana", "ana2"):
                own = {"ana", "ana2"}  # what a key came to is the principal's: other rights must not run it twice
            for name, mark in marks.items():
                assert name in own or mark not in said
            for tenant in set(PEOPLE.values()) - {PEOPLE.get(call.who or "")}:
                assert f"<{tenant}/" not in said
            assert (flight.reply is None) <= (call.cancel_after_s is not None)
            steps = [note.params["progress"] for note in flight.interim]
            joined = any(each.outcome == "join" for each in flight.exchange.link.decisions)
            first = steps[0] if joined and steps else 0  # who joins late hears what is said from then on
            assert steps == list(range(first, first + len(steps)))
            assert {note.params["progressToken"] for note in flight.interim} <= {number}
            if call.who is None:
                assert flight.reply is None or _plain(flight.reply)[0] == 40100
                assert flight.interim == []


def _plain(reply: Reply | None) -> Any:
    if isinstance(reply, ErrorReply):
        return [reply.code, reply.message, reply.data]
    return dict(reply.value) if reply is not None else None


@cache
def document(folder: Path, busy: bool, bare: bool) -> Document:
    """The configuration; read once."""
    chain = wide_open(folder, **(BUSY if busy else {}))
    if bare:
        chain = [stage for stage in chain if stage.keys() & {"auth_api_key", "tenant"}]
        chain[0]["auth_api_key"]["optional"] = False
    return from_data(
        {
            "version": 1,
            "sources": {"s": {"stdio": {}}},
            "stores": {"kept": {"memory": {"max_entries": 100}}},
            "pipelines": {"main": {"chain": chain, "sink": "up", "timeout": "30s"}},
            "sinks": {"up": {"embedded": {}}},
        }
    )


@asynccontextmanager
async def gateway_of(folder: Path, sink: FakeSink, *, busy: bool, bare: bool = False) -> AsyncIterator[PipelineHarness]:
    """A gateway with all stages, or with those only that say who calls; when everybody is gone, none holds anything."""
    async with PipelineHarness(document(folder, busy, bare), sinks={"up": sink}) as gateway:
        stages = [each for each in gateway.engine.components() if isinstance(each, Middleware)]
        before = [take_census(stage) for stage in stages]
        yield gateway
        await wait_all_tasks_blocked()
        left = [
            f"{stage.context.id}: {line}"
            for stage, was in zip(stages, before, strict=True)
            for line in take_census(stage).taken_since(was)
        ]
        assert left == []


@LIVES
@given(SEEDS)
def test_nobody_hears_what_is_for_another_one(folder: Path, seed: int) -> None:
    """
    Cache, joined calls, idempotency keys, kept answers, retries, hedges, breaker and limits, in both eras, with
    cancellations and failures: everybody gets one reply, notifications in order, and only what is meant for them.
    """
    rng = Random(seed)

    async def main() -> None:
        world = World([])
        async with gateway_of(folder, FakeSink(world.upstream), busy=True) as gateway:
            await world.arrive(gateway)
            for _ in range(EPISODES):
                world.acts = some_acts(rng)
                await world.live(gateway, some_calls(rng, most=12))
                await trio.sleep(rng.choice([0.0, 0.0, 1.0, 600.0]))
        world.check()

    run_clean(main, clock=MockClock(autojump_threshold=0))


@settings(LIVES, max_examples=10)
@given(SEEDS)
def test_wide_open_the_chain_is_as_good_as_none(folder: Path, seed: int) -> None:
    """With limits that are not reached, nothing kept and no failures worth repeating, it equals the bare sink."""

    async def heard(*, bare: bool) -> list[Json]:
        rng, world = Random(seed), World([])
        async with gateway_of(folder, FakeSink(world.upstream), busy=False, bare=bare) as gateway:
            await world.arrive(gateway)
            for _ in range(EPISODES):
                calm = some_acts(rng)
                world.acts = [evolve(a, end=a.end if a.end in {"result", "failed"} else "error") for a in calm]
                calls = some_calls(rng, most=4)
                one_by_one = [
                    evolve(c, who=c.who or "ana", wait_s=20.0, cancel_after_s=None, keyed=False) for c in calls
                ]  # fmt: skip
                await world.live(gateway, one_by_one)
        return [[_plain(flight.reply), [note.params for note in flight.interim]] for _, flight, _ in world.heard]

    async def main() -> None:
        assert await heard(bare=False) == await heard(bare=True)

    run_clean(main, clock=MockClock(autojump_threshold=0))


@pytest.mark.parametrize("busy", [False, True], ids=["wide open", "busy"])
@pytest.mark.parametrize(
    "acts",
    [[Act(2, 0.2, "result")], [Act(0, 0.2, "closed"), Act(0, 0.2, "result")], [Act(0, 0.7, "unreachable")]],
    ids=["answered", "repeated", "in vain"],
)
async def test_cancelled_anywhere_nothing_stays(
    folder: Path, acts: list[Act], busy: bool, autojump_clock: MockClock
) -> None:
    """At every checkpoint of the whole chain: passed, repeated, hedged, kept, refused, answered from what is kept."""
    world, numbers = World(acts), count()
    async with gateway_of(folder, FakeSink(world.upstream), busy=busy) as gateway:
        gateway.client = client_of("ana", Era.MODERN)

        async def twice() -> None:
            await trio.sleep(600)  # limits and breaker forget the trial before
            params = {"name": "search", "arguments": {"text": str(next(numbers))}, "_meta": {"progressToken": 1}}
            await gateway.call("tools/call", params)
            await gateway.call("tools/call", params)

        assert await cancel_everywhere(twice) > 6
