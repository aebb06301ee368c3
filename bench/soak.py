"""
Clients that connect, call and vanish, as fast as they can, for as long as they are told: what is left of them?

    python bench/soak.py --seconds 3600
    python bench/soak.py --visits 4000        # what the suite runs

One gateway with a `route` in front of two upstreams: a stdio server (soak_server.py; one child for all modern clients,
one for each legacy session), and the demo server of another gateway over Streamable HTTP. Visitors are of both eras;
each opens a connection and leaves it in one of these ways: it waits for its reply, closes before it, resets before it,
half-closes, leaves its session, or leaves in the middle of a stream. Every round of visits ends in silence, and then
the gateway's process is looked at: descriptors, children, threads and memory of the last round must be those of an
early one. Exits 1 if they are not.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import trio

ROUNDS_OF = 500
"""Visits in one round."""
AT_ONCE = 24
SESSION_IDLE_S = 5
QUIET_S = 20.0
"""What the gateway gets to put everything away after a round, at most."""
MEMORY_MIB = 24
"""Resident memory that may come between the third round and the last: arenas of the allocator, not a leak by visit."""
MODERN = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}
COMMAND = [sys.executable, "-c", "from sluiceway.pipeline.cli import main; main()", "run"]
DEMO = "pipelines: {main: {chain: [], sink: demo}}\nsinks: {demo: {embedded: {server: demo}}}\n"


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write_configs(folder: Path) -> tuple[int, int]:
    """The two gateways; returns the ports of the one under test and of its upstream."""
    front, back = free_port(), free_port()
    (folder / "back.yaml").write_text(
        f"version: 1\nsources: {{web: {{http: {{bind: '127.0.0.1:{back}'}}}}}}\n{DEMO}run: {{log_level: error}}\n"
    )
    child = json.dumps([sys.executable, "-S", str(Path(__file__).with_name("soak_server.py"))])
    (folder / "front.yaml").write_text(
        f"""version: 1
sources: {{web: {{http: {{bind: '127.0.0.1:{front}', session_idle: {SESSION_IDLE_S}s}}}}}}
pipelines: {{main: {{chain: [request_id, timeout, concurrency_limit], sink: all, max_in_flight: 200}}}}
sinks:
  all: {{route: {{to: [near, far]}}}}
  near: {{stdio: {{command: {child}, max_children: 100}}}}
  far: {{http: {{url: 'http://127.0.0.1:{back}/mcp', keep_idle: 1s}}}}
run: {{log_level: error}}
"""
    )
    return front, back


class Visitor:
    """One visit at a time: a connection, a few messages, and a way to leave."""

    def __init__(self, port: int, rng: random.Random) -> None:
        self.port = port
        self.rng = rng
        self.answered = self.left = 0

    async def visit(self) -> None:
        """Connect, call and vanish."""
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        try:
            await (self._modern(stream) if self.rng.random() < 0.7 else self._legacy(stream))
        except trio.BrokenResourceError:
            self.left += 1
        finally:
            if self.rng.random() < 0.3:
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await trio.aclose_forcefully(stream)

    async def _modern(self, stream: trio.SocketStream) -> None:
        upstream, slow = self.rng.choice(("near", "far")), self.rng.random() < 0.5
        name = f"{upstream}.countdown" if slow else f"{upstream}.echo"
        arguments = {"seconds": 30} if slow else {"text": "hello"}
        meta = {**MODERN, "progressToken": "t"}
        message = {"name": name, "arguments": arguments, "_meta": meta}
        head = {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": name}
        await self._post(stream, "tools/call", message, head)
        await self._leave(stream, wait=not slow)

    async def _legacy(self, stream: trio.SocketStream) -> None:
        client = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "soak", "version": "1"}}
        await self._post(stream, "initialize", client, {})
        if self.rng.random() < 0.2:
            self.left += 1
            return
        answer = await self._receive(stream)
        session = next(
            (line.split(": ")[1] for line in answer.split("\r\n") if line.lower().startswith("mcp-session-id")), ""
        )
        head = {"mcp-protocol-version": "2025-11-25", "mcp-session-id": session}
        call = {"name": "near.echo", "arguments": {"text": "hello"}}
        await self._post(stream, "tools/call", call, head)
        await self._leave(stream, wait=self.rng.random() < 0.5)
        if session:  # politeness varies; those who do not say goodbye are found by their session's own limits
            await self._goodbye(session)

    async def _goodbye(self, session: str) -> None:
        async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
            await stream.send_all(
                f"DELETE /mcp HTTP/1.1\r\nhost: 127.0.0.1:{self.port}\r\nmcp-session-id: {session}\r\n"
                "mcp-protocol-version: 2025-11-25\r\n\r\n".encode()
            )
            await self._receive(stream)

    async def _leave(self, stream: trio.SocketStream, *, wait: bool) -> None:
        if wait:
            reply = await self._receive(stream)
            if '"content"' not in reply and "session_not_found" not in reply:  # a slow machine lets sessions idle out
                raise RuntimeError(f"this is no result: {reply}")
            self.answered += 1
            return
        self.left += 1
        match self.rng.randrange(4):
            case 0:
                return
            case 1:
                await trio.sleep(self.rng.random() * 0.02)
            case 2:
                await stream.send_eof()
            case _:
                with trio.move_on_after(0.2):
                    await stream.receive_some(256)

    async def _post(self, stream: trio.SocketStream, method: str, params: Any, head: dict[str, str]) -> None:
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
        lines = {
            "host": f"127.0.0.1:{self.port}", "content-type": "application/json",
            "accept": "application/json, text/event-stream", "content-length": str(len(body)), **head,
        }  # fmt: skip
        text = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        await stream.send_all(f"POST /mcp HTTP/1.1\r\n{text}\r\n".encode() + body)

    async def _receive(self, stream: trio.SocketStream) -> str:
        with trio.fail_after(30):
            return bytes(await stream.receive_some(65536)).decode("utf-8", "replace")


class Look:
    """What one process holds."""

    def __init__(self, process: psutil.Process) -> None:
        self.descriptors = process.num_fds()
        self.threads = process.num_threads()
        self.children = len(process.children(recursive=True))
        self.memory_mib = process.memory_info().rss / 2**20

    def __str__(self) -> str:
        return (
            f"{self.descriptors} descriptors, {self.threads} threads, {self.children} descendants, "
            f"{self.memory_mib:.1f} MiB"
        )

    def is_quiet(self, base: Look) -> bool:
        """Whether no more is held than before."""
        return self.descriptors <= base.descriptors and self.children <= base.children


async def one_round(visitors: list[Visitor]) -> None:
    """`ROUNDS_OF` visits, `AT_ONCE` at a time."""
    async with trio.open_nursery() as nursery:
        for visitor in visitors:

            async def visits(visitor: Visitor = visitor) -> None:
                for _ in range(ROUNDS_OF // AT_ONCE):
                    await visitor.visit()

            nursery.start_soon(visits)


async def quiet(process: psutil.Process, base: Look) -> Look:
    """How things are once everything is put away, or at the latest after `QUIET_S`."""
    look = Look(process)
    for _ in range(int(QUIET_S / 0.1)):
        if look.is_quiet(base):
            break
        await trio.sleep(0.1)
        look = Look(process)
    return look


async def soak(pid: int, port: int, seconds: float, visits: int) -> list[str]:
    """Visit until time or visits are used up; returns what is wrong."""
    process = psutil.Process(pid)
    visitors = [Visitor(port, random.Random(seed)) for seed in range(AT_ONCE)]
    looks: list[Look] = []
    began = time.monotonic()
    for number in range(1, 10**9):
        await one_round(visitors)
        base = looks[0] if looks else Look(process)
        looks.append(await quiet(process, base) if looks else await settled(process))
        if number <= 3 or number % 20 == 0:
            print(f"round {number}, {time.monotonic() - began:.0f} s: {looks[-1]}", flush=True)
        done = sum(visitor.answered + visitor.left for visitor in visitors)
        if (visits and done >= visits) or (seconds and time.monotonic() - began >= seconds):
            break
    early, late = looks[min(2, len(looks) - 1)], looks[-1]
    print(f"{done} visits, {sum(v.answered for v in visitors)} answered; at the end {late}")
    wrong = [] if late.is_quiet(looks[0]) else [f"the first round left {looks[0]}, the last one {late}"]
    if late.threads > early.threads:
        wrong.append(f"threads grew from {early.threads} to {late.threads}")
    if late.memory_mib > early.memory_mib + MEMORY_MIB:
        wrong.append(f"memory grew from {early.memory_mib:.0f} to {late.memory_mib:.0f} MiB")
    return wrong


async def settled(process: psutil.Process) -> Look:
    """After the first round: what stays (pools, the shared child) is there, forgotten sessions have idled out."""
    await trio.sleep(SESSION_IDLE_S * 2)
    return Look(process)


def serve(config: Path, port: int) -> subprocess.Popen[bytes]:
    """A gateway in a process of its own, once it accepts connections."""
    process = subprocess.Popen([*COMMAND, str(config)], env={**os.environ, "NO_COLOR": "1"})
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return process
        time.sleep(0.05)
    process.kill()
    raise RuntimeError(f"{config.name} did not come up")


def main() -> int:
    """Run it, and say what is left."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--seconds", type=float, default=0)
    parser.add_argument("--visits", type=int, default=0)
    options = parser.parse_args()
    if not (options.seconds or options.visits):
        parser.error("say how long: --seconds or --visits")
    with tempfile.TemporaryDirectory() as name:
        front, back = write_configs(Path(name))
        gateways = [serve(Path(name) / "back.yaml", back), serve(Path(name) / "front.yaml", front)]
        try:
            wrong = trio.run(soak, gateways[1].pid, front, options.seconds, options.visits)
            family = psutil.Process(gateways[1].pid).children(recursive=True)
        finally:
            for gateway in reversed(gateways):
                gateway.send_signal(signal.SIGTERM)
                gateway.wait(60)
    orphans = [process for process in family if process.is_running()]
    if orphans:
        wrong.append(f"left behind: {orphans}")
    print("\n".join(wrong) or "nothing is left")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
