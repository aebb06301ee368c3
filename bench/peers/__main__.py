"""
Gateways compared: ours, its peers, the usual design and nginx, in front of the same upstream, in one run.

    python bench/peers --json bench/results/peers.json --html peers.html [--compare EARLIER.json]

Each gateway has CPU 0; load and upstream have CPU 1. All are up at once and are visited in turn, round by round, so
that a busy neighbour spoils rounds and not figures; figures are medians. CPU is what the gateway's processes used per
call, children included, an upstream over stdio left out. Compare ratios of one run, not numbers of two machines.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import psutil
from attrs import define, evolve, field
from gateways import GATEWAYS, Gateway, Place, forge_token
from load import HERE, Case, Target, fire, prepare
from report import compare, page, table
from setup import debian, install, python_of

CASES = (
    Case("legacy, 200 bytes", "legacy", text=96),
    Case("modern, 200 bytes", "modern", text=96),
    Case("modern, 10 KB", "modern", text=10_000),
    Case("modern, 1 MB result", "modern", blob=1_000_000),
    Case("modern, tools/list", "modern", method="tools/list"),
)
CONNECTIONS = (1, 16, 64)
RATES = (160, 1600, 4800)


@define(eq=False)
class Running:
    """A gateway that is up."""

    gateway: Gateway
    process: subprocess.Popen[bytes]
    target: Target
    folder: Path
    samples: dict[tuple[str, str], list[dict[str, float]]] = field(factory=dict)

    def _processes(self) -> list[psutil.Process]:
        root = psutil.Process(self.process.pid)
        return [each for each in [root, *root.children(recursive=True)] if not _is_upstream(each)]

    def cpu(self) -> float:
        """Seconds used so far."""
        return sum(sum(each.cpu_times()[:2]) for each in self._processes())

    def memory(self) -> float:
        """MiB that are private to it."""
        return sum(each.memory_full_info().uss for each in self._processes()) / 2**20

    def request(self, case: Case) -> Path:
        """Where the request of a case stands."""
        return self.folder / (case.name.replace(" ", "-").replace("/", "-").replace(",", "") + ".txt")


def _is_upstream(process: psutil.Process) -> bool:
    return process.cmdline()[1:2] == [str(HERE / "stdio_server.py")]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await_port(port: int, process: subprocess.Popen[bytes], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError("it did not come up")


def _start(
    stack: ExitStack, command: Sequence[str], *, cpu: str, log: Path, **environment: str
) -> subprocess.Popen[bytes]:
    pinned = ["taskset", "-c", cpu, *command]
    output = stack.enter_context(log.open("ab"))
    process = subprocess.Popen(
        pinned, stdout=output, stderr=output, start_new_session=True, env={**os.environ, **environment}
    )
    stack.callback(_stop, process)
    return process


def _stop(process: subprocess.Popen[bytes]) -> None:
    for number, patience in ((signal.SIGTERM, 5), (signal.SIGKILL, 5)):
        try:
            os.killpg(process.pid, number)
            process.wait(patience)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


def _bring_up(stack: ExitStack, gateway: Gateway, upstream: str, folder: Path) -> Running:
    mine = folder / gateway.name.replace(" ", "-").replace(",", "")
    mine.mkdir()
    port = _free_port()
    command = gateway.command(Place(port, upstream, mine))
    process = _start(stack, command, cpu="0", log=mine / "log", **gateway.environment)
    _await_port(port, process)
    target = Target(f"http://127.0.0.1:{port}{gateway.path}", gateway.headers)
    if gateway.name == "ContextForge":
        target = _register(target, port, upstream)
    running = Running(gateway, process, target, mine)
    _prepare(running, CASES[0])
    return running


def _register(target: Target, port: int, upstream: str) -> Target:
    """ContextForge learns of its upstream by an API of its own."""
    headers = {"authorization": f"Bearer {forge_token()}", "content-type": "application/json"}
    known = {"name": "up", "url": upstream, "transport": "STREAMABLEHTTP", "description": "bench"}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/gateways", json.dumps(known), headers)
    response = connection.getresponse()
    if response.status >= 300:
        raise RuntimeError(f"ContextForge answers {response.status}: {response.read()[:200]!r}")
    return evolve(target, headers={"authorization": headers["authorization"]}, tool="up-echo")


def _prepare(running: Running, case: Case) -> None:
    """Its sessions may need a moment after the port is open."""
    for attempt in range(10):
        try:
            prepare(running.target, case, running.request(case))
        except (OSError, RuntimeError, http.client.HTTPException):
            if attempt == 9:
                raise
            time.sleep(1)
        else:
            return


def _concerns(case: Case, gateway: Gateway, connections: int) -> bool:
    if case.era not in gateway.eras or (case.blob and gateway.stdio):
        return False
    plain = case.text == 96
    return (plain or connections == 16) and not (gateway.slow and connections > 16)


def _measure(running: Running, case: Case, connections: int, seconds: int, wrk: list[str]) -> None:
    before = running.cpu()
    sample = fire(wrk, running.target, running.request(case), connections=connections, seconds=seconds, cpu="1")
    cpu = (running.cpu() - before) / max(sample.count, 1) * 1e6
    figures = {"rate": sample.rate, "p50": sample.p50, "p99": sample.p99, "failed": sample.failed, "cpu": cpu}
    key = (case.name, f"{connections} connections")
    running.samples.setdefault(key, []).append({**figures, "memory": running.memory()})


def _burst(running: Running, case: Case, rate: int, seconds: int) -> None:
    where, _, path = running.target.url.removeprefix("http://").partition("/")
    command = ["taskset", "-c", "1", sys.executable, str(HERE / "burst.py"), where, str(running.request(case))]
    before = running.cpu()
    done = subprocess.run([*command, str(rate), str(seconds), f"/{path}"], capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    cpu = (running.cpu() - before) / max(told["answered"], 1) * 1e6
    figures = {"rate": told["answered"] / seconds, "p50": told["p50"], "p99": told["p99"], "cpu": cpu}
    failed = told["failed"] + told["asked"] - told["answered"]
    key = (f"{case.name}, bursts of 16", f"{rate} a second")
    running.samples.setdefault(key, []).append({**figures, "failed": failed, "memory": running.memory()})


def _rows(up: Sequence[Running]) -> list[dict[str, float | str]]:
    rows = []
    for case, load in dict.fromkeys(key for running in up for key in running.samples):
        for running in up:
            samples = running.samples.get((case, load))
            if samples:
                figures = {name: round(statistics.median(each[name] for each in samples), 2) for name in samples[0]}
                figures["failed"] = sum(each["failed"] for each in samples)
                rows.append({"gateway": running.gateway.name, "case": case, "load": load, **figures})
    return rows


def _run(stack: ExitStack, options: argparse.Namespace) -> list[dict[str, float | str]]:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
    port = _free_port()
    upstream = _start(
        stack, [str(python_of("naive")), str(HERE / "upstream.py"), str(port)], cpu="1", log=folder / "upstream.log"
    )
    _await_port(port, upstream)
    up = []
    for gateway in GATEWAYS:
        if not gateway.installed or (options.only and not any(word in gateway.name for word in options.only)):
            continue
        try:
            up.append(_bring_up(stack, gateway, f"http://127.0.0.1:{port}/mcp", folder))
        except (RuntimeError, OSError, http.client.HTTPException, subprocess.CalledProcessError) as error:
            print(f"left out: {gateway.name}: {error}", file=sys.stderr)
    library = debian("usr/lib/x86_64-linux-gnu")
    wrk = ["env", f"LD_LIBRARY_PATH={library}", str(debian("usr/bin/wrk"))]
    cases = [case for case in CASES if not options.case or any(word in case.name for word in options.case)]
    for running in up:
        for case in cases:
            if _concerns(case, running.gateway, 16):
                _prepare(running, case)
                fire(wrk, running.target, running.request(case), connections=16, seconds=1, cpu="1")  # warm-up
    for _ in range(options.rounds):
        for case in cases:
            for connections in CONNECTIONS:
                for running in up:
                    if _concerns(case, running.gateway, connections):
                        _measure(running, case, connections, options.seconds, wrk)
        for rate in RATES:
            for running in up:
                if not running.gateway.slow and cases[0].era in running.gateway.eras:
                    _burst(running, cases[0], rate, options.seconds)
    return _rows(up)


def main() -> int:
    """Set up, measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--html", type=Path, help="write the report with plots here")
    parser.add_argument("--compare", type=Path, metavar="BASE", help="fail if CPU per call grew since this JSON")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=1, help="of each measurement")
    parser.add_argument("--only", action="append", metavar="WORD", help="gateways with this in their name")
    parser.add_argument("--case", action="append", metavar="WORD", help="cases with this in their name")
    options = parser.parse_args()
    for missing in install():
        print(f"left out: {missing}", file=sys.stderr)
    with ExitStack() as stack:
        rows = _run(stack, options)
    machine = {"python": platform.python_version(), "system": platform.platform(), "cores": os.cpu_count()}
    print(table(rows))
    if options.json is not None:
        options.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")
    if options.html is not None:
        page(rows, machine, options.html)
    grown = compare(rows, options.compare) if options.compare is not None else []
    print("\n".join(grown))
    return 1 if grown else 0


if __name__ == "__main__":
    sys.exit(main())
