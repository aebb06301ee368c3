"""
What each stage costs: microseconds of CPU per request, as the difference between a chain with it and one without.

Run it with `make bench`. Options are such as an operator would write; whatever is kept is kept in memory. Every request
is decoded and an exchange of its own, of one of 64 callers, and every answer comes as bytes, as from a wire. Rounds
with the stage and without it alternate, and each figure is the difference of the cheapest round of either: a busy
neighbour takes caches and clock away, and only ever adds. Bounds are those of the project; a figure over its bound is
marked, and the exit code says so. `--instructions` has valgrind count machine instructions instead.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import trio
from attrs import frozen
from counters import Callgrind, under_valgrind
from figures import report

from sluiceway.middlewares.auth.api_keys import ApiKey, check_pepper, digest_of, render_keys
from sluiceway.middlewares.rate_limit.stage import RateLimit
from sluiceway.pipeline.model.component import ComponentKind, Context, Middleware
from sluiceway.pipeline.model.exchange import Exchange, Link, Service
from sluiceway.pipeline.model.pins import write_lock
from sluiceway.pipeline.model.registry import BUILT_IN, Registry
from sluiceway.pipeline.model.session import ANONYMOUS, Caller, Client
from sluiceway.pipeline.model.tools import tools_in
from sluiceway.pipeline.protocol.codec import decode_message
from sluiceway.pipeline.protocol.mcp import Era, Kind
from sluiceway.pipeline.protocol.messages import Notification, Reply, Request, Result
from sluiceway.pipeline.runtime.chain import Stage, compile_chain, count_attempts
from sluiceway.pipeline.stores.memory import MemoryStore
from sluiceway.pipeline.telemetry.log import configure_logging
from sluiceway.pipeline.testing.configs import make_config

CALLERS = 64
BEHIND_S = 0.02
"""Time for what stages do behind the requests, which counts, too."""
PEPPER = "a pepper for measuring only, that opens nothing"
ISSUER, GATEWAY = "https://id.example.com", "https://gateway.example.com/mcp"
LIMITER_KEYS = "100,000 limiter keys, MiB"

TOOL = {
    "name": "echo",
    "description": "Says what it was told.",
    "inputSchema": {
        "type": "object",
        "properties": {"text": {"type": "string", "maxLength": 1000}, "times": {"type": "integer", "minimum": 1}},
        "required": ["text"],
        "additionalProperties": False,
    },
    "annotations": {"readOnlyHint": False},
}
TOOLS = json.dumps({"tools": [TOOL]}).encode()
ANSWER = b'{"content":[{"type":"text","text":"hello, gateway"}]}'
DOCUMENT = (
    b'{"contents":[{"uri":"file:///srv/readme.md","text":"hello, gateway"}],"ttlMs":60000,"cacheScope":"private"}'
)
META = {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}
HEADERS = {
    "host": "gateway.example.com",
    "user-agent": "client/1.0",
    "content-type": "application/json",
    "accept": "application/json, text/event-stream",
    "content-length": "198",
    "mcp-protocol-version": "2026-07-28",
    "mcp-method": "tools/call",
}

RATE = {"rate": "100/s", "burst": 1_000_000}
"""Nobody is refused, and everybody has used some of it."""
READS = {"rules": [{"method": ["resources/read"], "ttl": "1m"}]}
RULES = [
    *({"allow": f"team_{number}.*", "role": f"team-{number}"} for number in range(9)),
    *({"deny": f"tools:admin_{number}_*"} for number in range(9)),
    {"allow": ["tools:echo*", "resources:file:///srv/*"], "subject": "user-*"},
    {"allow": "prompts:*"},
]
TESTED = [{"allow": "echo", "arguments": {"text": {"max_length": 100}, "times": {"ge": 1, "le": 9, "optional": True}}}]

Options = Mapping[str, Any]


def _message(method: str, params: Options) -> bytes:
    message = {"jsonrpc": "2.0", "id": 17, "method": method, "params": {**params, "_meta": META}}
    return json.dumps(message, separators=(",", ":")).encode()


CALL = _message("tools/call", {"name": "echo", "arguments": {"text": "hello, gateway", "times": 3}})
READ = _message("resources/read", {"uri": "file:///srv/readme.md"})


def call(_number: int) -> bytes:
    """A call of a tool."""
    return CALL


def read(_number: int) -> bytes:
    """A read of what everybody reads."""
    return READ


def read_another(number: int) -> bytes:
    """A read of something that nobody has read lately."""
    return READ.replace(b"readme", b"%d" % number)


@frozen
class Row:
    """One figure: a chain, and what passes through it."""

    title: str
    chain: Sequence[tuple[str, Options]]
    bound: float | None = None
    request: Callable[[int], bytes] = call
    known: bool = True
    """Whether the callers are established already."""


def rows(place: Path) -> list[Row]:
    """All that is measured; `place` has the files."""
    key = ("auth_api_key", {"pepper": {"from_file": str(place / "pepper")}, "file": str(place / "keys.json")})
    own = {"issuer": ISSUER, "resource": GATEWAY, "algorithms": ["HS256"]}
    bearer = ("auth_bearer", {**own, "jwks": {"from_file": str(place / "jwks.json")}})
    limit, dedup, cache = ("rate_limit", RATE), ("dedup", {}), ("cache", READS)
    unsampled, retry, breaker = ("trace", {"sample": 0}), ("retry", {}), ("circuit_breaker", {})
    seven = (unsampled, key, limit, dedup, cache, retry, breaker)
    access = ("access", {"rules": RULES})
    # one request at a time would pay alone for each batch that replies wait for
    trail = {"path": str(place / "audit.jsonl"), "params": "digest", "sync": "never"}
    every = [
        Row("rate_limit", [limit], 2),
        Row("access, 20 rules", [access], 3),
        Row("access, arguments tested", [("access", {"rules": TESTED})], 3),
        Row("auth_api_key", [key], 5, known=False),
        Row("dedup, miss", [dedup], 12, read),
        Row("cache, hit", [cache], 15, read),
        Row("circuit_breaker", [breaker], 1),
        Row("retry, pass", [retry], 1),
        Row("metrics", [("metrics", {})], 3),
        Row("audit", [("audit", trail)], 10),
        Row("trace, unsampled", [unsampled], 8),
        Row("all seven, a tool", seven, 60, known=False),
        Row("all seven, a read that hits", seven, 60, read, known=False),
        Row("all seven, a read that is kept", seven, None, read_another, known=False),
        Row("cache, an answer that is kept", [cache], None, read_another),
        Row("trace, sampled", [("trace", {})]),
        Row("auth_bearer, token seen before", [bearer], known=False),
        Row("auth_bearer and access, 20 rules", [bearer, access], known=False),
        Row("tenant", [("tenant", {"default": "acme"})]),
        Row("validate", [("validate", {})]),
        Row("pin", [("pin", {"lock": str(place / "tools.lock.json")})]),
        Row("redact, one path", [("redact", {"paths": ["params.arguments.card"]})]),
        Row("redact, keys", [("redact", {"keys": ["*password*", "card"]})]),
        Row("log", [("log", {})]),
        Row("load_shed", [("load_shed", {})]),
        Row("concurrency_limit", [("concurrency_limit", {})]),
        Row("hedge", [("hedge", {"after": "10s"})], None, read),
        Row("hedge, nothing to repeat", [("hedge", {})]),
        Row("fallback", [("fallback", {"empty_lists": True})]),
        Row("fault", [("fault", {"faults": [{"effect": "refuse", "skip": 1_000_000_000}]})]),
        Row("timeout", [("timeout", {"after": "20s"})]),
        Row("headers", [("headers", {})]),
        Row("request_id", [("request_id", {})]),
    ]
    return [row for row in every if all(name in BUILT_IN[ComponentKind.MIDDLEWARE] for name, _ in row.chain)]


def files(place: Path) -> list[dict[str, str]]:
    """Write keys, tokens' keys and lock file; the credentials of each caller, as headers."""
    from joserfc import jwt
    from joserfc.jwk import OctKey

    shared = OctKey.generate_key(256, {"kid": "shared"})
    keys = [f"slw_{number:043}" for number in range(CALLERS)]
    entries = [
        ApiKey(id=f"k{number}", digest=digest_of(check_pepper(PEPPER), key), subject=f"user-{number}", tenant="acme")
        for number, key in enumerate(keys)
    ]
    (place / "pepper").write_text(PEPPER)
    (place / "keys.json").write_bytes(render_keys(entries))
    (place / "jwks.json").write_text(json.dumps({"keys": [shared.as_dict(private=True)]}))
    (place / "tools.lock.json").write_bytes(write_lock(tools_in(Result(raw=TOOLS))))
    credentials = []
    for number, key in enumerate(keys):
        claims = {"iss": ISSUER, "aud": GATEWAY, "sub": f"user-{number}", "exp": int(time.time()) + 86_400}
        token = jwt.encode({"alg": "HS256", "kid": "shared", "typ": "at+jwt"}, claims, shared)
        credentials.append({"x-api-key": key, "authorization": f"Bearer {token}"})
    return credentials


async def _sink(exchange: Exchange) -> Reply:
    match exchange.request.method:
        case "tools/call":
            return Result(raw=ANSWER)
        case "tools/list":
            return Result(raw=TOOLS)
    return Result(raw=DOCUMENT)


async def _emit(_notification: Notification) -> None:
    """Nothing is relayed."""


@asynccontextmanager
async def opened(chain: Sequence[tuple[str, Options]]):
    """A chain whose stages are open, as a service."""
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(_opened(MemoryStore(MemoryStore.Config(), Context(id="stores.state"))))
        stages = []
        for number, (name, options) in enumerate(chain):
            cls = Registry().find(ComponentKind.MIDDLEWARE, name)
            assert issubclass(cls, Middleware)
            context = Context(id=f"pipelines.main.chain[{number}]", stores=lambda _: store)
            stages.append(Stage(name, cls(make_config(cls, options), context)))
        compiled = compile_chain(stages, count_attempts("up", _sink))
        for stage in reversed(stages):
            await stack.enter_async_context(stage.middleware.open())
        yield compiled.service


@asynccontextmanager
async def _opened(component):
    async with component.open():
        yield component


class CpuTime:
    """Counts microseconds of CPU of this process."""

    def begin(self) -> None:
        """From here on."""
        self._start = time.process_time()

    def end(self) -> float:
        """What it came to since `begin`."""
        return (time.process_time() - self._start) * 1e6


class Senders:
    """Sends requests of many callers through a chain."""

    def __init__(self, credentials: list[dict[str, str]]) -> None:
        modern = partial(Client, era=Era.MODERN, version="2026-07-28", transport="http", address="192.0.2.7")
        self._clients = [modern(headers={**HEADERS, **own}) for own in credentials]
        self._callers = [Caller(f"user-{n}", "acme", how="api_key", credential=f"k{n}") for n in range(CALLERS)]
        self._sent = 0

    async def spent(self, service: Service, row: Row, count: int, meter: CpuTime | Callgrind) -> float:
        """Of what the meter counts, per request."""
        clients, callers = self._clients, self._callers
        first = self._sent
        self._sent = last = first + count
        known, deadline = row.known, trio.current_time() + 30
        draining = trio.Event()
        messages = [row.request(number) for number in range(first, last)]
        gc.collect()
        meter.begin()
        for number, message in enumerate(messages):
            who = number % CALLERS
            request = decode_message(message)
            assert isinstance(request, Request)
            exchange = Exchange(
                request=request,
                kind=Kind.CALL,
                client=clients[who],
                source="public",
                draining=draining,
                caller=callers[who] if known else ANONYMOUS,
                link=Link(_emit, deadline=deadline),
            )
            await service(exchange)
        await trio.sleep(BEHIND_S)
        return meter.end() / count


async def measure(
    chosen: list[Row], senders: Senders, rounds: int, count: int, meter: CpuTime | Callgrind
) -> dict[str, float]:
    """The figure of each row."""
    without: dict[str, list[float]] = {row.title: [] for row in chosen}
    with_it: dict[str, list[float]] = {row.title: [] for row in chosen}
    async with AsyncExitStack() as stack:
        bare = await stack.enter_async_context(opened(()))
        services = {row.title: await stack.enter_async_context(opened(row.chain)) for row in chosen}
        for row in chosen:
            await senders.spent(services[row.title], row, 2 * CALLERS, meter)
        for _ in range(rounds):
            for row in chosen:
                without[row.title].append(await senders.spent(bare, row, count, meter))
                with_it[row.title].append(await senders.spent(services[row.title], row, count, meter))
    return {row.title: min(with_it[row.title]) - min(without[row.title]) for row in chosen}


async def limiter_mib() -> float:
    """Memory of a limiter that has seen 100,000 callers, all in debt."""
    stage = RateLimit(make_config(RateLimit, {"rate": "1/h", "burst": 5}), Context(id="rate_limit"))
    service = compile_chain([Stage("rate_limit", stage)], _sink).service
    client, request = Client(era=Era.MODERN, version="2026-07-28"), Request(17, "tools/call", {"name": "echo"})
    gc.collect()
    tracemalloc.start()
    for number in range(100_000):
        caller = Caller(f"user-{number}", "acme", how="api_key")
        await service(Exchange(request=request, kind=Kind.CALL, client=client, caller=caller, link=Link(_emit)))
    gc.collect()
    held = tracemalloc.get_traced_memory()[0] / 2**20
    tracemalloc.stop()
    return held


def costs(options: argparse.Namespace, meter: CpuTime | Callgrind) -> tuple[list[Row], dict[str, float]]:
    """What was chosen, and the figure of each."""
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as nowhere:
        configure_logging("info", "json", nowhere)
        senders = Senders(files(Path(folder)))
        chosen = [row for row in rows(Path(folder)) if row.title.startswith(tuple(options.only or [""]))]
        return chosen, trio.run(measure, chosen, senders, options.rounds, options.count, meter)


def instructions(only: Sequence[str]) -> int:
    """Have valgrind run this, and count; a minute and a half for all rows."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "callgrind"
        command = [sys.executable, __file__, "--rounds", "2", "--count", "128", "--valgrind", str(out), *only]
        return subprocess.run(under_valgrind(out, command), env={**os.environ, "PYTHONHASHSEED": "0"}).returncode


def main() -> int:
    """Measure, print a table, and write it as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--instructions", action="store_true", help="have valgrind count instructions instead")
    parser.add_argument(
        "--valgrind", type=Path, metavar="OUT", help="what --instructions passes on: valgrind runs this"
    )
    parser.add_argument("only", nargs="*", help="beginnings of the rows to measure; all without")
    options = parser.parse_args()
    if options.instructions:
        return instructions(options.only)
    if options.valgrind is not None:
        gc.disable()  # a collection that falls into one round and not into another is no cost of a stage
        with Callgrind(options.valgrind) as counter:
            _, counted = costs(options, counter)
        return report({f"{title}, instructions": value for title, value in counted.items()}, {})
    chosen, spent = costs(options, CpuTime())
    figures = {f"{title}, us": cost for title, cost in spent.items()}
    bounds = {f"{row.title}, us": row.bound for row in chosen if row.bound is not None}
    if not options.only:
        figures[LIMITER_KEYS], bounds[LIMITER_KEYS] = trio.run(limiter_mib), 20
    return report(figures, bounds, options.json)


if __name__ == "__main__":
    sys.exit(main())
