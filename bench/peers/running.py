"""Gateways that are up: how they are started and stopped, what they have used, and what load on them came to."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import psutil
from attrs import define, evolve, field
from gateways import Gateway, Place, forge_token
from load import HERE, Case, Target, fire, prepare
from setup import debian

GATEWAY_CPU, LOAD_CPU = "0", "1"
WRK = ["env", f"LD_LIBRARY_PATH={debian('usr/lib/x86_64-linux-gnu')}", str(debian("usr/bin/wrk"))]
_CPU_TIME = 2
"""In the id of a process's clock: what it was on a processor for, in nanoseconds (clock_getcpuclockid(3))."""


def cpu_seconds(pid: int) -> float:
    """What a process has used so far, all its threads included; 0 once it is gone."""
    try:
        return time.clock_gettime((~pid << 3) | _CPU_TIME)
    except OSError:
        return 0.0


@define(eq=False)
class Running:
    """A gateway that is up."""

    gateway: Gateway
    process: subprocess.Popen[bytes] | None
    """None for the upstream itself, asked directly."""
    target: Target
    folder: Path
    samples: dict[tuple[str, str], list[dict[str, float]]] = field(factory=dict)

    def _processes(self) -> list[psutil.Process]:
        if self.process is None:
            return []
        root = psutil.Process(self.process.pid)
        return [each for each in [root, *root.children(recursive=True)] if not _is_upstream(each)]

    def request(self, case: Case) -> Path:
        """Where the request of a case stands."""
        return self.folder / case.file

    def prepare(self, case: Case) -> None:
        """Make the request of a case; sessions may need a moment after the port is open."""
        for attempt in range(10):
            try:
                prepare(self.target, case, self.request(case))
            except (OSError, RuntimeError, http.client.HTTPException):
                if attempt == 9:
                    raise
                time.sleep(1)
            else:
                return

    def look(self, load: str) -> None:
        """Note the memory that is private to it."""
        processes = self._processes()
        if processes:
            mib = sum(each.memory_full_info().uss for each in processes) / 2**20
            self._keep("private memory", load, {"memory": mib, "processes": len(processes)})

    def measure(self, case: Case, connections: int, seconds: int) -> None:
        """A closed loop: each connection asks again when it was answered."""
        processes = self._processes()
        before = sum(cpu_seconds(each.pid) for each in processes)
        sample = fire(
            WRK, self.target, self.request(case), connections=connections, seconds=seconds, cpu=LOAD_CPU
        )  # fmt: skip
        used = sum(cpu_seconds(each.pid) for each in processes) - before
        figures = {"rate": sample.rate, "p50": sample.p50, "p95": sample.p95, "p99": sample.p99}
        if processes and sample.count:
            figures["cpu"] = used / sample.count * 1e6
        self._keep(case.name, f"{connections} connections", {**figures, "failed": sample.failed})

    def burst(self, case: Case, rate: int, seconds: int) -> None:
        """An open loop: 16 ask at the same instant, whether or not they were answered."""
        command = ["taskset", "-c", LOAD_CPU, sys.executable, str(HERE / "burst.py"), self.target.host]
        command += [str(self.request(case)), str(rate), str(seconds)]
        processes = self._processes()
        before = sum(cpu_seconds(each.pid) for each in processes)
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        used = sum(cpu_seconds(each.pid) for each in processes) - before
        told = json.loads(done.stdout)
        right = told["answered"] - told["failed"]
        figures = {"rate": right / seconds, "p50": told["p50"], "p95": told["p95"], "p99": told["p99"]}
        if processes and told["answered"]:
            figures["cpu"] = used / told["answered"] * 1e6
        self._keep("bursts of 16", f"{rate} a second", {**figures, "failed": told["asked"] - right})

    def keeps_up(self, case: Case, rate: int) -> bool:
        """Whether it was seen to answer so many a second."""
        seen = self.samples.get((case.name, "16 connections"), [])
        return any(sample["rate"] >= rate for sample in seen)

    def _keep(self, case: str, load: str, figures: dict[str, float]) -> None:
        self.samples.setdefault((case, load), []).append(figures)


def _is_upstream(process: psutil.Process) -> bool:
    return process.cmdline()[1:2] == [str(HERE / "stdio_server.py")]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def await_port(port: int, process: subprocess.Popen[bytes], seconds: float = 60) -> None:
    """
    Wait until somebody listens.

    Raises:
        RuntimeError: Nobody does, or the process has ended.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError("it did not come up")


def start(
    stack: ExitStack, command: Sequence[str], *, cpu: str, log: Path, **environment: str
) -> subprocess.Popen[bytes]:
    """A process on one processor, which ends with `stack`."""
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


def bring_up(stack: ExitStack, gateway: Gateway, upstream: str, folder: Path, first: Case) -> Running:
    """
    Start a gateway, and wait until it answers `first`.

    Raises:
        RuntimeError: It does not.
    """
    mine = folder / gateway.name.replace(" ", "-").replace(",", "")
    mine.mkdir()
    if gateway.command is None:
        running = Running(gateway, None, Target(upstream, {}), mine)
    else:
        port = free_port()
        command = gateway.command(Place(port, upstream, mine))
        process = start(stack, command, cpu=GATEWAY_CPU, log=mine / "log", **gateway.environment)
        await_port(port, process)
        target = Target(f"http://127.0.0.1:{port}{gateway.path}", gateway.headers, static=gateway.static)
        running = Running(gateway, process, target, mine)
        if gateway.name == "ContextForge":
            running.target = _register(target, port, upstream)
    running.prepare(first)
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
