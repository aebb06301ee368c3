"""
Connections that bring rubbish, and almost-requests, and leave in the middle: does the worker live, and forget them?

    python bench/fuzz.py --connections 1000000 --seed 1     # goal R1: a worker ends for no input
    python bench/fuzz.py --connections 3000                 # what `make fuzz` does

The gateway is a process of its own, in front of another one, and speaks everything an `http` source can: HTTP/1.1 in
the clear and over TLS, HTTP/2, event streams of both kinds, WebSockets. What each connection brings is made of its
number and the seed (fuzz_inputs.py), so that a part can be done again: `--first`. After every round the worker must
answer, no exception may have come out of a connection, and once everybody has left, connections, tasks, descriptors,
sessions and exchanges must be as many as before the first. Exits 1 if they are not, and says after which numbers.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import trio
from fuzz_inputs import CALL, CALLING, HELLO, SESSION, End, Face, Plan, message, plan_of, post
from idle import COMMAND, private_kib
from soak import free_port

ROUND = 2_500
AT_ONCE = 40
WAIT_S = 0.1
"""How long a connection listens for an answer before it leaves."""
KEPT = 100
"""Calls at once on each face before it begins: more than tasks are kept at rest."""
SETTLE_S = 4.0
"""How long until connections to the upstream that nobody uses are gone."""
SESSIONS = 10
"""Of legacy clients, new for every round."""
SESSION_IDLE_S = 3
QUIET_S = 30.0
"""What the gateway gets, at most, to put everything away at the end."""
MEMORY_MIB = 16
"""Private memory that may come between an early round and the last, however many are between them."""
HELD = (
    "mcp_active_connections", "sluiceway_http_sessions", "sluiceway_http_event_streams", "sluiceway_http_websockets",
    "sluiceway_pipeline_in_flight", "sluiceway_pipeline_waiting", "sluiceway_pipeline_listeners",
    "sluiceway_trio_tasks", "process_open_fds",
)  # fmt: skip
"""What must be as it was when everybody has left."""
SPARE = {"process_open_fds": 5.0, "sluiceway_trio_tasks": 2.0}
"""By how much it may be more: connections to the upstream, and what serves them (goal R2)."""
DEMO = "pipelines: {main: {chain: [], sink: demo}}\nsinks: {demo: {embedded: {server: demo}}}\n"


def write_configs(folder: Path) -> tuple[int, int, int]:
    """The two gateways; the ports of the one under test, without TLS and with it, and that of its upstream."""
    plain, safe, back = free_port(), free_port(), free_port()
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "9",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", cert],
        check=True, capture_output=True,
    )  # fmt: skip
    also = f"session_idle: {SESSION_IDLE_S}s, resume_window: 1s, max_sessions: 500, sse: {{}}, websocket: {{path: /ws}}"
    (folder / "back.yaml").write_text(
        f"version: 1\nsources: {{web: {{http: {{bind: '127.0.0.1:{back}'}}}}}}\n{DEMO}run: {{log_level: error}}\n"
    )
    (folder / "front.yaml").write_text(
        f"""version: 1
sources:
  web: {{http: {{bind: '127.0.0.1:{plain}', {also}}}}}
  safe: {{http: {{bind: '127.0.0.1:{safe}', tls: {{cert: {cert}, key: {key}}}, {also}}}}}
pipelines: {{main: {{chain: [request_id, timeout, concurrency_limit], sink: up, max_in_flight: 500}}}}
sinks: {{up: {{http: {{url: 'http://127.0.0.1:{back}/mcp', keep_idle: 2s}}}}}}
run: {{log_level: error, admin: {{bind: 'unix:{folder}/admin'}}}}
"""
    )
    return plain, safe, back


class Worker:
    """The gateway under test, and what it says of itself."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path, plain: int, safe: int) -> None:
        self.process = process
        self.plain = plain
        self.safe = safe
        self.log = folder / "front.log"
        self.sessions = [b""]
        """Sessions of legacy clients that are there, or were."""
        self.verdicts: Counter[str] = Counter()
        """What those heard who listened: the status of the first answer."""
        self._admin = str(folder / "admin")

    def figures(self) -> Counter[str]:
        """Its metrics, summed over their labels."""
        with socket.socket(socket.AF_UNIX) as admin:
            admin.connect(self._admin)
            admin.sendall(b"GET /-/metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            text = b"".join(iter(lambda: admin.recv(65536), b"")).decode()
        found: Counter[str] = Counter()
        for line in text.splitlines():
            name, _, value = line.partition("{")[0].partition(" ")[0], *line.rpartition(" ")[1:]
            if name in HELD or name == "sluiceway_http_contained_total":
                found[name] += float(value)  # type: ignore[assignment]  # counters count in floats, too
        return found

    def more_than(self, base: Counter[str]) -> list[str]:
        """What it holds that it did not hold before."""
        now = self.figures()
        return [
            f"{name}: {base[name]:g} before, {now[name]:g} now"
            for name in HELD
            if now[name] > base[name] + SPARE.get(name, 0)
        ]

    def answers(self) -> bool:
        """Whether a call is answered, through everything."""
        return b'"hello"' in self._ask(post(CALL, f"{CALLING}Connection: close\r\n"))

    def open_sessions(self) -> None:
        """Have some new ones for a round."""
        hello = post(message("initialize", HELLO), "Connection: close\r\n")
        answers = [self._ask(hello).lower() for _ in range(SESSIONS)]
        self.sessions = [each.partition(b"mcp-session-id: ")[2].partition(b"\r\n")[0] for each in answers]

    def _ask(self, data: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self.plain), timeout=30) as peer:
            peer.sendall(data)
            return b"".join(iter(lambda: peer.recv(65536), b""))


async def fuzz(worker: Worker, plan: Plan, session: bytes, context: ssl.SSLContext) -> None:
    """One connection, from its beginning to its end."""
    clear = plan.face is Face.PLAIN
    tcp = await trio.open_tcp_stream("127.0.0.1", worker.plain if clear else worker.safe)
    stream: trio.abc.Stream = tcp
    try:
        if plan.face not in (Face.PLAIN, Face.RUBBISH):
            context.set_alpn_protocols(["h2" if plan.face is Face.HTTP2 else "http/1.1"])
            stream = secured = trio.SSLStream(tcp, context, server_hostname="localhost", https_compatible=True)
            await secured.do_handshake()
        for piece in plan.pieces:
            await stream.send_all(piece.replace(SESSION.encode(), session))
            await trio.lowlevel.checkpoint()
        if plan.face is Face.TORN:
            await tcp.send_all(plan.pieces[-1])
        if answer := await leave(tcp, stream, plan.end):
            worker.verdicts[answer[9:12].decode("latin-1") if answer.startswith(b"HTTP/1.1 ") else "other"] += 1
    except (trio.BrokenResourceError, ssl.SSLError):
        pass  # the gateway has had enough of it, as it may
    finally:
        tcp.socket.close()


async def leave(tcp: trio.SocketStream, stream: trio.abc.Stream, end: End) -> bytes:
    """Do what a connection does last, but for closing; what it heard."""
    if end is End.RESET:
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if end is End.HALF:
        await tcp.send_eof()
    if end in (End.HALF, End.READ):
        with trio.move_on_after(WAIT_S):
            return bytes(await stream.receive_some(65536))
    return b""


async def warm_up(worker: Worker) -> None:
    """Calls at the same time, on both faces: what is kept for those who come later (tasks at rest) is there then."""
    context, everybody = any_server(), trio.Event()

    async def call(face: Face) -> None:
        tcp = await trio.open_tcp_stream("127.0.0.1", worker.plain if face is Face.PLAIN else worker.safe)
        stream: trio.abc.Stream = tcp
        if face is not Face.PLAIN:
            stream = trio.SSLStream(tcp, context, server_hostname="localhost", https_compatible=True)
            await stream.do_handshake()
        waiting.append(face)
        if len(waiting) == 2 * KEPT:
            everybody.set()
        await everybody.wait()
        await stream.send_all(post(CALL, CALLING))
        await stream.receive_some(65536)
        tcp.socket.close()

    waiting: list[Face] = []
    async with trio.open_nursery() as nursery:
        for _ in range(KEPT):
            nursery.start_soon(call, Face.PLAIN)
            nursery.start_soon(call, Face.TLS)


def any_server() -> ssl.SSLContext:
    """Trusts whoever is there."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def one_round(worker: Worker, seed: int, numbers: Iterator[int]) -> None:
    """Connections by number, `AT_ONCE` at a time."""
    context = any_server()

    async def some() -> None:
        for number in numbers:
            with trio.fail_after(60):
                session = worker.sessions[number % len(worker.sessions)]
                await fuzz(worker, plan_of(seed, number), session, context)

    async with trio.open_nursery() as nursery:
        for _ in range(AT_ONCE):
            nursery.start_soon(some)


def run(worker: Worker, first: int, count: int, seed: int) -> list[str]:
    """All rounds; what is wrong."""
    began, early = time.monotonic(), 0
    base = worker.figures()
    for start in range(first, first + count, ROUND):
        numbers = range(start, min(start + ROUND, first + count))
        worker.open_sessions()
        trio.run(partial(one_round, worker, seed, iter(numbers)))
        if worker.process.poll() is not None:
            return [f"the worker ended with {worker.process.returncode} in {numbers}"]
        if not worker.answers():
            return [f"the worker does not answer after {numbers}"]
        contained = worker.figures()["sluiceway_http_contained_total"]
        if contained:
            return [f"{contained:g} exceptions came out of connections in {numbers}:\n{worker.log.read_text()[-4000:]}"]
        done = start - first + len(numbers)
        if done <= 4 * ROUND or done == count:
            early = private_kib(worker.process.pid)
        if done % (20 * ROUND) == 0 or done == count:
            print(f"{done} connections, {time.monotonic() - began:.0f} s: {describe(worker)}", flush=True)
    return afterwards(worker, base, early)


def describe(worker: Worker) -> str:
    """What it holds."""
    figures = worker.figures()
    held = ", ".join(f"{name.removeprefix('sluiceway_')} {figures[name]:g}" for name in HELD)
    return f"{private_kib(worker.process.pid) / 1024:.1f} MiB, {held}"


def afterwards(worker: Worker, base: Counter[str], early_kib: int) -> list[str]:
    """What is left when everybody has gone, and has been given up."""
    until = time.monotonic() + QUIET_S
    while worker.more_than(base) and time.monotonic() < until:
        time.sleep(0.2)
    wrong = worker.more_than(base)
    grown = (private_kib(worker.process.pid) - early_kib) / 1024
    print(f"heard: {', '.join(f'{what} {times}' for what, times in sorted(worker.verdicts.items()))}")
    print(f"at the end: {describe(worker)}")
    if grown > MEMORY_MIB:
        wrong.append(f"memory grew by {grown:.1f} MiB after the first {4 * ROUND} connections")
    return wrong


@contextmanager
def gateways() -> Iterator[Worker]:
    """Both, in a folder of their own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plain, safe, back = write_configs(folder)
        processes = []
        try:
            for config, ports in (("back", (back,)), ("front", (plain, safe))):
                with (folder / f"{config}.log").open("wb") as log:
                    command, environment = [*COMMAND, str(folder / f"{config}.yaml")], {**os.environ, "NO_COLOR": "1"}
                    processes.append(subprocess.Popen(command, env=environment, stderr=log))
                for port in ports:
                    wait_for(port)
            worker = Worker(processes[1], folder, plain, safe)
            assert worker.answers()
            trio.run(warm_up, worker)  # whatever is loaded, opened or kept when many call is there now
            time.sleep(SETTLE_S)
            yield worker
        finally:
            for process in reversed(processes):
                process.send_signal(signal.SIGTERM)
                process.wait(60)


def wait_for(port: int) -> None:
    """Until somebody listens there."""
    for _ in range(400):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"nobody listens on port {port}")


def main() -> int:
    """Run it, and say what is left."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--connections", type=int, default=3_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first connection")
    options = parser.parse_args()
    with gateways() as worker:
        wrong = run(worker, options.first, options.connections, options.seed)
    print("\n".join(wrong) or "the worker lives, and nothing is left")
    print(json.dumps({"connections": options.connections, "seed": options.seed, "wrong": len(wrong)}))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
