"""
What clients cost that are there and do nothing: memory of a gateway, for each open stream and each idle connection.

    python bench/idle.py --json bench/results/idle.json

The gateway is a process of its own, and its memory is what belongs to it alone (private pages). Event streams are of
three kinds: `subscriptions/listen` of modern clients, GET streams of legacy sessions, and the streams of HTTP+SSE
(2024-11-05). Afterwards everybody leaves, and what stays is looked at, too.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from figures import report

STREAMS = 1_000
CONNECTIONS = 10_000
SETTLE_S = 1.5
"""Longer than a LISTEN exchange may take to be refused with a status of its own: streams have begun then."""
COMMAND = [sys.executable, "-c", "from sluiceway.pipeline.cli import main; main()", "run"]
CONFIG = """version: 1
sources: {web: {http: {bind: "127.0.0.1:0", max_connections: 20000, idle_timeout: 300s, keep_alive: 60s, sse: {}}}}
pipelines: {main: {chain: [request_id, log], sink: demo, max_listeners: 20000}}
sinks: {demo: {embedded: {server: demo}}}
run: {log_level: warning}
"""
BOUNDS = {
    "modern streams: KiB each": 25.0,
    "legacy GET streams: KiB each": 25.0,
    "HTTP+SSE streams: KiB each": 25.0,
    "idle connections: KiB each": 10.0,
}
"""What a stream costs on hypercorn alone is 33.9 KiB, and an idle connection 18.9."""


@contextmanager
def gateway() -> Iterator[tuple[int, int]]:
    """`sluiceway run`; yields its process id and its port."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "gateway.yaml"
        config.write_text(CONFIG.replace("log_level: warning", "log_level: info"))
        log = Path(folder) / "log"
        with log.open("wb") as output:
            process = subprocess.Popen([*COMMAND, str(config)], stderr=output, env={**os.environ, "NO_COLOR": "1"})
        try:
            yield process.pid, port_in(log)
        finally:
            process.terminate()
            process.wait(60)


def port_in(log: Path, process: subprocess.Popen[bytes] | None = None, patience_s: float = 20) -> int:
    """The port of a gateway, once its log says that it is ready; not waited for once its process has ended."""
    for _ in range(int(patience_s * 20)):
        if process is not None and process.poll() is not None:
            break
        for line in log.read_text().splitlines():
            if "gateway ready" in line:
                return int(json.loads(line)["web"][0].split("//")[-1].partition("/")[0].rpartition(":")[2])
        time.sleep(0.05)
    raise RuntimeError(f"the gateway did not become ready:\n{log.read_text()}")


def private_kib(pid: int) -> int:
    """Memory that belongs to this process alone, in KiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


class Peers:
    """Clients of one gateway: plain sockets, all held by this process."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.open: list[socket.socket] = []

    def connect(self) -> socket.socket:
        """One more."""
        peer = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        self.open.append(peer)
        return peer

    def post(self, peer: socket.socket, message: dict[str, object], *lines: str) -> None:
        """Send a message, without waiting for what comes of it."""
        body = json.dumps({"jsonrpc": "2.0", **message})
        head = [
            "POST /mcp HTTP/1.1", f"Host: 127.0.0.1:{self.port}", "Content-Type: application/json",
            "Accept: application/json, text/event-stream", f"Content-Length: {len(body)}", *lines,
        ]  # fmt: skip
        peer.sendall(("\r\n".join(head) + "\r\n\r\n" + body).encode())

    def get(self, peer: socket.socket, path: str, *lines: str) -> None:
        """Ask for a stream."""
        head = [f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{self.port}", "Accept: text/event-stream", *lines]
        peer.sendall(("\r\n".join(head) + "\r\n\r\n").encode())

    def expect(self, peer: socket.socket, what: bytes) -> bytes:
        """
        Read until that came.

        Raises:
            RuntimeError: Something else did.
        """
        got = b""
        while what not in got:
            piece = peer.recv(65536)
            if not piece:
                raise RuntimeError(f"{what!r} did not come, but {got!r}")
            got += piece
        return got

    def leave(self) -> None:
        """All of them."""
        for peer in self.open:
            peer.close()
        self.open.clear()


def modern_stream(peers: Peers) -> Callable[[], object]:
    """A subscription; returns what waits for its beginning."""
    peer = peers.connect()
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    params = {"notifications": {"toolsListChanged": True}, "_meta": meta}
    peers.post(
        peer, {"id": 1, "method": "subscriptions/listen", "params": params},
        "MCP-Protocol-Version: 2026-07-28", "Mcp-Method: subscriptions/listen",
    )  # fmt: skip
    return lambda: peers.expect(peer, b"text/event-stream")


def legacy_stream(peers: Peers) -> Callable[[], object]:
    """A session and its GET stream, on one connection."""
    peer = peers.connect()
    client = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "idle", "version": "1"}}
    peers.post(peer, {"id": 1, "method": "initialize", "params": client})
    answer = peers.expect(peer, b"serverInfo").decode().lower()
    session = answer.partition("mcp-session-id: ")[2].partition("\r\n")[0]
    head = (f"Mcp-Session-Id: {session}", "MCP-Protocol-Version: 2025-11-25")
    peers.post(peer, {"method": "notifications/initialized"}, *head)
    peers.expect(peer, b"202")
    peers.get(peer, "/mcp", *head)
    return lambda: peers.expect(peer, b"text/event-stream")


def sse_stream(peers: Peers) -> Callable[[], object]:
    """The stream of 2024-11-05."""
    peer = peers.connect()
    peers.get(peer, "/sse")
    return lambda: peers.expect(peer, b"endpoint")


def idle_connection(peers: Peers) -> Callable[[], object]:
    """A connection that was asked something once."""
    peer = peers.connect()
    peers.get(peer, "/healthz")
    return lambda: peers.expect(peer, b"\r\n\r\n")


def measure(open_one: Callable[[Peers], Callable[[], object]], count: int) -> tuple[float, float]:
    """KiB for each of so many, and MiB that stay when they have left."""
    with gateway() as (pid, port):
        peers = Peers(port)
        for _ in range(20):  # what is loaded on the first request is not a stream's
            open_one(peers)()
        peers.leave()
        time.sleep(SETTLE_S)
        before = private_kib(pid)
        for _ in range(0, count, 100):
            for wait in [open_one(peers) for _ in range(min(100, count))]:
                wait()
        time.sleep(SETTLE_S)
        each = (private_kib(pid) - before) / count
        peers.leave()
        time.sleep(SETTLE_S)
        return each, (private_kib(pid) - before) / 1024


def main() -> int:
    """Measure each kind in a gateway of its own; 1 if one costs too much."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--streams", type=int, default=STREAMS)
    parser.add_argument("--connections", type=int, default=CONNECTIONS)
    options = parser.parse_args()
    kinds = {
        "modern streams": (modern_stream, options.streams),
        "legacy GET streams": (legacy_stream, options.streams),
        "HTTP+SSE streams": (sse_stream, options.streams),
        "idle connections": (idle_connection, options.connections),
    }
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    figures = {}
    for name, (open_one, count) in kinds.items():
        each, stays = measure(open_one, min(count, most - 200))
        figures |= {f"{name}: KiB each": each, f"{name}: MiB that stay of {count}": stays}
    return report(figures, BOUNDS, options.json)


if __name__ == "__main__":
    sys.exit(main())
