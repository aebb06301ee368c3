"""
The claims that others make for gateways (and that ours might have been tempted by), each measured.

    python bench/claims.py --json bench/results/claims.json

Claims of calls a second and of latency are measured by `bench/peers`, long bodies by `bench/large.py`. Here are the
rest: what a pool of read buffers brings, what a fast JSON parser brings, how evenly two random choices spread and what
they cost, whether a reload loses a request, and what becomes of 5,000 requests at the same instant.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec
import trio
from figures import report
from idle import COMMAND, port_in

from sluiceway.pipeline.model.document import Limits
from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.session import Client
from sluiceway.pipeline.protocol.mcp import Era
from sluiceway.pipeline.protocol.messages import Notification, Reply, Request, Result
from sluiceway.pipeline.runtime.chain import compile_chain
from sluiceway.pipeline.runtime.deadlines import Deadlines
from sluiceway.pipeline.runtime.pipeline import Pipeline
from sluiceway.transports.balance.member import Member, Vitals
from sluiceway.transports.balance.strategies import PLAIN

READ = 64 * 1024
MESSAGE = b"x" * 600
BURST, PLACES, IN_FLIGHT = 5_000, 4_900, 100
RELOADS = 20
SPREAD = "p2c: busiest of 100 upstreams that have 100 requests each (HC-06)"
LOST = "reloads under load: requests that failed (HC-07)"
UNANSWERED = "burst of 5,000: not answered exactly once (HC-09)"
OVER = "burst of 5,000: waiting at once above the 4,900 allowed (HC-09)"
BOUNDS = {SPREAD: 105.0, LOST: 0.0, UNANSWERED: 0.0, OVER: 0.0}
CONFIG = """version: 1
sources: {web: {http: {bind: "127.0.0.1:0"}}}
pipelines: {main: {chain: [request_id], sink: demo, timeout: %ds}}
sinks: {demo: {embedded: {server: demo}}}
run: {log_level: info}
"""
VERSION = "2026-07-28"
META = {"io.modelcontextprotocol/protocolVersion": VERSION, "io.modelcontextprotocol/clientCapabilities": {}}


def cpu_us(work: Callable[[], object], count: int, rounds: int = 7) -> float:
    """Of one call; the cheapest of some rounds."""
    costs = []
    for _ in range(rounds):
        start = time.process_time()
        for _ in range(count):
            work()
        costs.append((time.process_time() - start) / count * 1e6)
    return min(costs)


def allocated(work: Callable[[], object], count: int = 1000) -> float:
    """Bytes that one call asks for at most, beyond what it gives back."""
    work()
    tracemalloc.start()
    highest = 0
    for _ in range(count):
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        work()
        highest = max(highest, tracemalloc.get_traced_memory()[1] - before)
    tracemalloc.stop()
    return highest


def pool() -> dict[str, float]:
    """HC-01: reading 600 bytes with a fresh buffer of 64 KiB each time, and with one that is kept."""
    ours, theirs = socket.socketpair()
    number, kept = ours.fileno(), bytearray(READ)
    view = memoryview(kept)

    def fresh() -> bytes:
        theirs.send(MESSAGE)
        return os.read(number, READ)

    def pooled() -> bytes:
        theirs.send(MESSAGE)
        return bytes(view[: ours.recv_into(view)])

    with ours, theirs:
        without, with_it = cpu_us(fresh, 5000), cpu_us(pooled, 5000)
        bytes_without, bytes_with = allocated(fresh), allocated(pooled)
    return {
        "read without a pool of buffers, us (HC-01)": without,
        "read with one, us (HC-01)": with_it,
        "bytes asked for without a pool (HC-01)": bytes_without,
        "bytes asked for with one (HC-01)": bytes_with,
    }


def parsers() -> dict[str, float]:
    """HC-05: what we decode with, by the standard library's."""
    small = {"jsonrpc": "2.0", "id": 17, "result": {"content": [{"type": "text", "text": "x" * 200}]}}
    record = {"id": 7, "title": "a line of a table", "tags": ["a", "b"], "score": 0.25}
    found = {}
    for name, value, count in (("300 bytes", small, 5000), ("1 MiB of records", [record] * 15_000, 3)):
        data = json.dumps(value, separators=(",", ":")).encode()
        times = cpu_us(lambda data=data: json.loads(data), count) / cpu_us(
            lambda data=data: msgspec.json.decode(data), count
        )
        found[f"decoding {name}: json by msgspec (HC-05)"] = times
    return found


async def _answer(_: Exchange) -> Reply:
    await trio.sleep(0.001)
    return Result({"content": []})


def spread() -> dict[str, float]:
    """HC-06: two random choices, against one, and what a choice costs among few and many."""
    found = {}
    for name, title in (("p2c", SPREAD), ("random", "the same with one random choice (HC-06)"),
                        ("least_loaded", "the same when all are looked at (HC-06)")):  # fmt: skip
        group = _group(100)
        strategy = PLAIN[name](random.Random(1))
        for _ in range(10_000):
            strategy.choose(group, None, 0.0).vitals.in_flight += 1
        found[title] = max(member.load for member in group)
    for count in (3, 100):
        group, strategy = _group(count), PLAIN["p2c"](random.Random(1))
        found[f"p2c: a choice among {count}, us (HC-06)"] = cpu_us(
            lambda g=group, s=strategy: s.choose(g, None, 0.0), 5000
        )
    return found


def _group(count: int) -> tuple[Member, ...]:
    group = tuple(Member(f"u{number}", number, _answer, 1, Vitals()) for number in range(count))
    for member in group:
        member.vitals.latency.observe(0.01, 0.0)
    return group


class _Callers:
    """Clients of a gateway, one call after the other each, until told to stop."""

    def __init__(self, port: int, count: int) -> None:
        self._port, self._stop = port, threading.Event()
        self.outcomes: Counter[bool] = Counter()
        self._threads = [threading.Thread(target=self._call) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _call(self) -> None:
        params = {"name": "echo", "arguments": {"text": "hello"}, "_meta": META}
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
        headers = {"content-type": "application/json", "accept": "application/json, text/event-stream",
                   "mcp-protocol-version": VERSION, "mcp-method": "tools/call", "mcp-name": "echo"}  # fmt: skip
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        while not self._stop.is_set():
            try:
                connection.request("POST", "/mcp", body, headers)
                right = b'"result"' in connection.getresponse().read()
            except (OSError, http.client.HTTPException):
                connection.close()
                right = False
            self.outcomes[right] += 1
        connection.close()

    def leave(self) -> None:
        """Stop calling."""
        self._stop.set()
        for thread in self._threads:
            thread.join()


def reloads() -> dict[str, float]:
    """HC-07: a changed configuration, again and again, while clients call without a pause."""
    with tempfile.TemporaryDirectory() as folder:
        config, log = Path(folder) / "gateway.yaml", Path(folder) / "log"
        config.write_text(CONFIG % 20)
        with log.open("wb") as output:
            process = subprocess.Popen([*COMMAND, str(config)], stderr=output)
        try:
            callers = _Callers(port_in(log), 4)
            for number in range(RELOADS):
                config.write_text(CONFIG % (30 + number))
                process.send_signal(signal.SIGHUP)
                time.sleep(0.2)
            callers.leave()
        finally:
            process.terminate()
            process.wait(60)
        done = log.read_text().count('"reloaded"')
    return {
        LOST: float(callers.outcomes[False]),
        "reloads under load: requests answered (HC-07)": float(callers.outcomes[True]),
        f"reloads under load: done of {RELOADS} (HC-07)": float(done),
    }


async def burst() -> dict[str, float]:
    """HC-09: as many requests as that at the same instant, through a pipeline with bounds."""
    deadlines, answers = Deadlines(), Counter[int]()
    limits = Limits(max_in_flight=IN_FLIGHT, max_waiting=PLACES, wait_at_most=60.0)
    pipeline = Pipeline("main", compile_chain([], _answer), limits, deadlines)
    client, waiting = Client(era=Era.MODERN, version=VERSION), 0

    async def emit(_: Notification) -> None:
        """Nothing is relayed."""

    async def ask(number: int) -> None:
        nonlocal waiting
        request = Request(number, "tools/call", {"name": "echo"})
        ticket = pipeline.handle(request, client=client, emit=emit)
        reply = await ticket.run()
        waiting = max(waiting, pipeline.admission.waiting)
        answers[number] += isinstance(reply, Result)

    start = time.perf_counter()
    async with trio.open_nursery() as background:
        background.start_soon(deadlines.serve)
        async with trio.open_nursery() as nursery:
            for number in range(BURST):
                nursery.start_soon(ask, number)
        background.cancel_scope.cancel()
    return {
        UNANSWERED: float(sum(answers[number] != 1 for number in range(BURST))),
        OVER: float(max(0, waiting - PLACES)),
        "burst of 5,000: seconds until all are answered, 1 ms each, 100 at once (HC-09)": time.perf_counter() - start,
    }


def main() -> int:
    """Measure, print a table, and write it as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    figures = {**pool(), **parsers(), **spread(), **reloads(), **trio.run(burst)}
    return report(figures, BOUNDS, options.json)


if __name__ == "__main__":
    sys.exit(main())
