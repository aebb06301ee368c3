"""
Clients that connect, call and vanish, as fast as they can, for as long as they are told: what is left of them?

    python bench/soak.py --seconds 3600
    python bench/soak.py --visits 1500                  # what the suite runs
    python bench/soak.py --visits 50000 --hostile 1     # goal R2

One gateway with a `route` in front of four upstreams: a stdio server (soak_server.py; one child for all modern clients,
one for each legacy session), and the demo server of another gateway over HTTP/1.1, HTTP/2 and a WebSocket. Visitors are
of both eras and come over HTTP/1.1, HTTP/2 and WebSockets (soak_visitors.py); each opens a connection and leaves it in
one of these ways: it waits for its reply, closes before it, resets before it, half-closes, leaves its session, or does
so in the middle of a stream; some bring nothing but rubbish. Every round of visits ends in silence, and then the
gateway's process is looked at: descriptors, children, threads and memory of the last round must be those of an early
one. Exits 1 if they are not.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import trio
from soak_visitors import Visitor

ROUNDS_OF = 500
"""Visits in one round."""
AT_ONCE = 24
SESSION_IDLE_S = 5
QUIET_S = 20.0
"""What the gateway gets to put everything away after a round, at most."""
MEMORY_MIB = 24
"""Resident memory that may come between the third round and the last: arenas of the allocator, not a leak by visit."""
COMMAND = [sys.executable, "-c", "from sluiceway.pipeline.cli import main; main()", "run"]
DEMO = "pipelines: {main: {chain: [], sink: demo}}\nsinks: {demo: {embedded: {server: demo}}}\n"


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write_configs(folder: Path) -> tuple[int, int, tuple[int, int]]:
    """The two gateways; returns the ports of the one under test, without TLS and with it, and those of its upstream."""
    front, safe, back, deep = (free_port() for _ in range(4))
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert],
        check=True, capture_output=True,
    )  # fmt: skip
    tls = f"tls: {{cert: {cert}, key: {key}}}"
    (folder / "back.yaml").write_text(
        f"""version: 1
sources:
  web: {{http: {{bind: '127.0.0.1:{back}', websocket: {{path: /ws}}}}}}
  safe: {{http: {{bind: '127.0.0.1:{deep}', {tls}}}}}
{DEMO}run: {{log_level: error}}
"""
    )
    child = json.dumps([sys.executable, "-S", str(Path(__file__).with_name("soak_server.py"))])
    (folder / "front.yaml").write_text(
        f"""version: 1
sources:
  web: {{http: {{bind: '127.0.0.1:{front}', session_idle: {SESSION_IDLE_S}s, websocket: {{path: /ws}}}}}}
  safe: {{http: {{bind: '127.0.0.1:{safe}', {tls}}}}}
pipelines: {{main: {{chain: [request_id, timeout, concurrency_limit], sink: all, max_in_flight: 200}}}}
sinks:
  all: {{route: {{to: [near, far, fast, wire]}}}}
  near: {{stdio: {{command: {child}, max_children: 100}}}}
  far: {{http: {{url: 'http://127.0.0.1:{back}/mcp', keep_idle: 1s}}}}
  fast: {{http: {{url: 'https://127.0.0.1:{deep}/mcp', keep_idle: 1s, tls: {{ca: {cert}}}}}}}
  wire: {{websocket: {{url: 'ws://127.0.0.1:{back}/ws', era: modern}}}}
run: {{log_level: error}}
"""
    )
    return front, safe, (back, deep)


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


async def soak(pid: int, port: int, safe: int, options: argparse.Namespace) -> list[str]:
    """Visit until time or visits are used up; returns what is wrong."""
    process = psutil.Process(pid)
    visitors = [Visitor(port, safe, random.Random(seed), options.hostile) for seed in range(AT_ONCE)]
    looks: list[Look] = []
    began = time.monotonic()
    for number in range(1, 10**9):
        await one_round(visitors)
        base = looks[0] if looks else Look(process)
        looks.append(await quiet(process, base) if looks else await settled(process))
        if number <= 3 or number % 20 == 0:
            print(f"round {number}, {time.monotonic() - began:.0f} s: {looks[-1]}", flush=True)
        done = sum(sum(visitor.visits.values()) for visitor in visitors)
        spent = time.monotonic() - began
        if (options.visits and done >= options.visits) or (options.seconds and spent >= options.seconds):
            break
    early, late = looks[min(2, len(looks) - 1)], looks[-1]
    faces = ", ".join(f"{face} {sum(v.visits[face] for v in visitors)}" for face in visitors[0].visits)
    print(f"{done} visits ({faces}), {sum(v.answered for v in visitors)} answered; at the end {late}")
    wrong = [] if late.is_quiet(looks[0]) else [f"the first round left {looks[0]}, the last one {late}"]
    threads = max(look.threads for look in looks[:3])  # an idle worker of Trio's stays for ten seconds, or is gone
    if late.threads > threads:
        wrong.append(f"threads grew from {threads} to {late.threads}")
    if late.memory_mib > early.memory_mib + MEMORY_MIB:
        wrong.append(f"memory grew from {early.memory_mib:.0f} to {late.memory_mib:.0f} MiB")
    return wrong


async def settled(process: psutil.Process) -> Look:
    """After the first round: what stays (pools, the shared child) is there, forgotten sessions have idled out."""
    await trio.sleep(SESSION_IDLE_S * 2)
    return Look(process)


def serve(config: Path, *ports: int) -> subprocess.Popen[bytes]:
    """A gateway in a process of its own, once it accepts connections."""
    process = subprocess.Popen([*COMMAND, str(config)], env={**os.environ, "NO_COLOR": "1"})
    for _ in range(600):
        probes = [socket.socket() for _ in ports]
        up = [probe.connect_ex(("127.0.0.1", port)) == 0 for probe, port in zip(probes, ports, strict=True)]
        for probe in probes:
            probe.close()
        if all(up):
            return process
        time.sleep(0.05)
    process.kill()
    raise RuntimeError(f"{config.name} did not come up")


def main() -> int:
    """Run it, and say what is left."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--seconds", type=float, default=0)
    parser.add_argument("--visits", type=int, default=0)
    parser.add_argument("--hostile", type=float, default=0.15, help="share of visits that bring nothing but rubbish")
    options = parser.parse_args()
    if not (options.seconds or options.visits):
        parser.error("say how long: --seconds or --visits")
    with tempfile.TemporaryDirectory() as name:
        front, safe, back = write_configs(Path(name))
        gateways = [serve(Path(name) / "back.yaml", *back)]
        try:
            gateways.append(serve(Path(name) / "front.yaml", front, safe))
            wrong = trio.run(soak, gateways[1].pid, front, safe, options)
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
