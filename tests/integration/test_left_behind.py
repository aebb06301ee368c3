"""
What calls leave behind: nothing.

A call ends without a cycle: what it was made of goes with its last user, and the collector has nothing to do for it.
(Garbage of some sixty objects a call, as it once was, is a fifth of the CPU and most of the 99th percentile.) And after
some thousand calls, half of them given up at any moment, everything is as it was before the first.
"""

from __future__ import annotations

import gc
import json
import random
import socket
import struct
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import pytest
import trio
from attrs import evolve

from sluiceway.pipeline.config import load
from sluiceway.pipeline.runtime.engine import Engine
from sluiceway.pipeline.runtime.serve import addresses
from sluiceway.pipeline.testing.leaks import Snapshot

CALLS: Final = 40
SPARE: Final = CALLS // 4
"""Things in cycles that have other reasons: connections that end meanwhile. Calls leave `CALLS` of a kind, if any."""
VISITORS: Final = 40
VISITS: Final = 16
CALLS_UNDER_LOAD: Final = 3_000
"""About as many: 2.5 on average are answered on each visit, and 2 are not waited for."""
KEPT: Final = "KeptTasks._work"
"""What a task is called that waits for the next request: as many stay as there once were at a time, up to 64."""
QUIET_S: Final = 20.0
"""What gateways get to put everything away, at most."""
FORGOTTEN_S: Final = 3.0
"""What sessions and idle connections to upstreams live, with something to spare."""
META: Final = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}
KEY: Final = "slw_the-key-of-the-sample-change-it"
ROOT: Final = Path(__file__).resolve().parents[2]
CHILD: Final = json.dumps([sys.executable, "-S", str(ROOT / "bench" / "soak_server.py")])
BACK: Final = """version: 1
sources: {web: {http: {bind: "127.0.0.1:0", session_idle: 1s, resume_window: 500ms}}}
pipelines: {main: {chain: [], sink: demo}}
sinks: {demo: {embedded: {server: demo}}}
"""
FRONT: Final = f"""version: 1
sources:
  bare: {{http: {{bind: "127.0.0.1:0", session_idle: 1s, resume_window: 500ms}}, pipeline: bare}}
  full: {{http: {{bind: "127.0.0.1:0", session_idle: 1s, resume_window: 500ms}}, pipeline: full}}
  child: {{http: {{bind: "127.0.0.1:0", session_idle: 1s, resume_window: 500ms}}, pipeline: child}}
pipelines:
  bare: {{chain: [], sink: up}}
  child: {{chain: [], sink: near}}
  full:
    timeout: 30s
    chain:
      - request_id
      - trace: {{sample: 0%}}
      - metrics
      - auth_api_key: {{pepper: {{from_file: "{ROOT}/configs/auth/pepper"}}, file: "{ROOT}/configs/auth/keys.json"}}
      - rate_limit: {{rate: 1000000/s}}
      - dedup
      - cache
    sink: guarded
sinks:
  up: {{http: {{url: "URL", keep_idle: 500ms}}}}
  guarded: {{chain: [retry, circuit_breaker], http: {{url: "URL", keep_idle: 500ms}}}}
  near: {{stdio: {{command: {CHILD}}}}}
"""


class Visitor:
    """A client on one connection, made of next to nothing: what is found is not its own."""

    def __init__(self, stream: trio.SocketStream, head: str) -> None:
        self.stream = stream
        self.head = head

    def request(self, message: dict[str, Any], *lines: str) -> bytes:
        """A message, as it is sent."""
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        head = "".join(f"{line}\r\n" for line in lines)
        return f"POST /mcp HTTP/1.1\r\n{self.head}{head}content-length: {len(body)}\r\n\r\n".encode() + body

    async def post(self, message: dict[str, Any], *lines: str) -> str:
        """Send a message and read until the end of its answer; the answer."""
        await self.stream.send_all(self.request(message, *lines))
        got = b""
        while not _is_whole(got):
            more = await self.stream.receive_some(65536)
            if not more:
                raise trio.BrokenResourceError(f"the gateway closed after {got!r}")
            got += more
        return got.decode()


def _is_whole(got: bytes) -> bool:
    """Whether that is a response from its first byte to its last."""
    head, found, body = got.partition(b"\r\n\r\n")
    if b"chunked" in head.lower():
        return body.endswith(b"0\r\n\r\n")
    length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
    return bool(found) and len(body) >= int(length or b"0")


@asynccontextmanager
async def gateways(folder: Path) -> AsyncIterator[tuple[Engine, dict[str, int]]]:
    """One gateway in front of another and of a child; yields it, and the ports of its sources."""
    (folder / "back.yaml").write_text(BACK)
    async with Engine(load(folder / "back.yaml")).running() as back:
        (folder / "front.yaml").write_text(FRONT.replace("URL", f"http://{addresses(back)['web'][0]}/mcp"))
        async with Engine(load(folder / "front.yaml")).running() as front:
            yield (
                front,
                {
                    source: int(where[0].rpartition(":")[2].partition("/")[0])
                    for source, where in addresses(front).items()
                },
            )


async def visit(port: int, era: str) -> Visitor:
    """A client of one era that has been greeted, if its era greets."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    head = (
        f"host: 127.0.0.1:{port}\r\nx-api-key: {KEY}\r\ncontent-type: application/json\r\n"
        "accept: application/json, text/event-stream\r\n"
    )
    if era == "modern":
        return Visitor(stream, f"{head}mcp-protocol-version: 2026-07-28\r\n")
    hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "v", "version": "1"}}
    visitor = Visitor(stream, head)
    answer = await visitor.post({"id": 0, "method": "initialize", "params": hello})
    session = answer.lower().partition("mcp-session-id: ")[2].partition("\r\n")[0]
    visitor.head += f"mcp-protocol-version: 2025-11-25\r\nmcp-session-id: {session}\r\n"
    await visitor.post({"method": "notifications/initialized"})
    return visitor


def asking(era: str, what: str, number: int) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A message of a client, and the headers that go with it."""
    method = "tools/list" if what == "list" else "tools/call"
    params: dict[str, Any] = {} if what == "list" else {"name": what, "arguments": {"text": "hello", "seconds": 30}}
    lines: tuple[str, ...] = ()
    if era == "modern":
        params["_meta"] = META
        lines = (f"mcp-method: {method}", *((f"mcp-name: {params['name']}",) if "name" in params else ()))
    return {"id": number, "method": method, "params": params}, lines


@pytest.mark.parametrize("era", ["modern", "legacy"])
@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("bare", "echo"),
        ("bare", "list"),
        ("bare", "no-such-tool"),
        ("full", "echo"),
        ("full", "list"),
        ("child", "echo"),
    ],
)
async def test_a_call_leaves_no_garbage(tmp_path: Path, source: str, what: str, era: str) -> None:
    """Nothing that was made for a call is left to the collector of cycles."""
    async with gateways(tmp_path) as (_, ports):
        visitor = await visit(ports[source], era)
        asked = [asking(era, what, number) for number in range(1, CALLS + 1)]
        for message, lines in asked[:10]:
            await visitor.post(message, *lines)
        gc.collect()
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            answers = [await visitor.post(message, *lines) for message, lines in asked]
            gc.collect()
            kinds = Counter(f"{type(thing).__module__}.{type(thing).__qualname__}" for thing in gc.garbage)
        finally:
            gc.set_debug(0)
            gc.enable()
            gc.garbage.clear()
        await visitor.stream.aclose()

        assert len(answers) == CALLS
        assert all('"content"' in answer or '"tools"' in answer or '"error"' in answer for answer in answers), answers[
            0
        ]
        assert {kind: count for kind, count in kinds.items() if count > SPARE} == {}


@pytest.mark.timeout(120)
async def test_load_leaves_nothing(tmp_path: Path) -> None:
    """
    Tasks, descriptors, children, timers, sessions and exchanges are as many as before the load.

    Both ways lead through both eras: to a server over HTTP, bare and with the chain of seven, and to a child.
    """
    async with gateways(tmp_path) as (engine, ports):
        await load_of(ports, range(12), 2)
        before = await quiet(engine, None)
        tally: Counter[str] = Counter()
        await load_of(ports, range(12, 12 + VISITORS), VISITS, tally)
        after = await quiet(engine, before)
        status = engine.status()["pipelines"]

    assert tally["answered"] > CALLS_UNDER_LOAD / 4, tally
    assert tally["given up"] > CALLS_UNDER_LOAD / 4, tally
    assert before.left_in(after) == []
    assert [(each["in_flight"], each["waiting"], each["listeners"]) for each in status] == [(0, 0, 0)] * 3


async def load_of(ports: dict[str, int], seeds: range, visits: int, tally: Counter[str] | None = None) -> None:
    """So many visitors at once, each coming and going so many times."""
    counted = Counter() if tally is None else tally

    async def one(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(visits):
            await come_and_go(ports, rng, counted)

    async with trio.open_nursery() as nursery:
        for seed in seeds:
            nursery.start_soon(one, seed)


async def come_and_go(ports: dict[str, int], rng: random.Random, tally: Counter[str]) -> None:
    """One connection: some calls that are answered, and then one that is not waited for, or is not even whole."""
    era, source = rng.choice(("modern", "legacy")), rng.choice(("bare", "full", "child"))
    visitor = await visit(ports[source], era)
    try:
        for number in range(rng.randrange(6)):
            message, lines = asking(era, rng.choice(("echo", "echo", "list")), number)
            await visitor.post(message, *lines)
            tally["answered"] += 1
        for number in range(rng.randrange(1, 4)):
            message, lines = asking(era, rng.choice(("echo", "countdown")), number)
            data = visitor.request(message, *lines)
            await visitor.stream.send_all(data[: rng.choice((len(data), len(data), rng.randrange(len(data))))])
            tally["given up"] += 1
        with suppress(trio.BrokenResourceError), trio.move_on_after(rng.choice((0, 0.002, 0.02))):
            await visitor.stream.receive_some(rng.choice((1, 100, 65536)))
        if rng.random() < 0.3:
            with suppress(trio.BrokenResourceError):
                await visitor.stream.send_eof()
        elif rng.random() < 0.5:
            visitor.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    finally:
        await trio.aclose_forcefully(visitor.stream)


async def quiet(engine: Engine, before: Snapshot | None) -> Snapshot:
    """What there is once everything has been put away; what sessions and pools keep goes within seconds."""
    tables = {
        "deadlines": lambda: len(engine.deadlines),
        "timeouts": lambda: sum(len(pipeline.lane.times) for pipeline in engine.pipelines.values()),
        "sessions": lambda: len(engine._sessions),
    }
    began = trio.current_time()
    while True:
        await trio.sleep(0.1)
        now = Snapshot.take(tables)
        now = evolve(now, tasks=frozenset(task for task in now.tasks if not task.name.endswith(KEPT)))
        waited_s = trio.current_time() - began
        if waited_s > QUIET_S or (waited_s > FORGOTTEN_S if before is None else not before.left_in(now)):
            return now
