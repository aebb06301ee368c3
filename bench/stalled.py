"""
Clients that ask for much and read nothing: what each costs, what others notice, and when the gateway is rid of them.

    python bench/stalled.py --json bench/results/stalled.json

On every face of a gateway (a process of its own), so many clients ask 64 times for 256 KiB and never read. While they
are there, the gateway's private memory is looked at, and another client calls and notes how long it takes. Then they
are counted down until all are cut. At the end 500 of them are there when the gateway is told to stop (goal R3), and a
thousand dribble the head of a request, a byte every two seconds (goal R4). Bounds are those of the configuration:
`max_unread` and the results of `max_in_flight` requests, or one result where there is one at a time.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from big_server import SIZE
from figures import report
from h2.config import H2Configuration
from h2.connection import H2Connection
from idle import COMMAND, private_kib

HERE = Path(__file__).resolve().parent
CLIENTS = 20
REQUESTS = 64
IN_FLIGHT = 8
UNREAD_KIB = 1024
STALL_S = 4.0
DRAIN_S = 2.0
CROWD = 500
SLOW = 1000
DRIBBLE_S = 2.0
ADDED_MS = 5.0
SLACK_KIB = 1024
"""For the connection itself, what a client sent, and the piece that is being written."""
RESULT_KIB = SIZE / 1024
META = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}
CLIENT = f"max_unread: {UNREAD_KIB}KiB, max_in_flight"
HTTP = (
    f"stall_timeout: {STALL_S}s, sse: {{{CLIENT}: {IN_FLIGHT}}}, websocket: {{path: /ws, {CLIENT}_per_connection: "
    f"{IN_FLIGHT}, ping_interval: 2s, ping_timeout: 2s}}"
)
REST = f"""pipelines: {{main: {{chain: [request_id], sink: big, max_in_flight: 20000}}}}
sinks: {{big: {{embedded: {{server: "big_server:server"}}}}}}
run: {{log_level: info, drain_timeout: {DRAIN_S}s}}
"""


class Gateway:
    """`sluiceway run` in a process of its own."""

    def __init__(self, folder: Path, sources: str) -> None:
        config, self._log = folder / "gateway.yaml", folder / "log"
        config.write_text(f"version: 1\nsources:\n{sources}{REST}")
        environment = {**os.environ, "NO_COLOR": "1", "PYTHONPATH": f"{HERE}:{os.environ.get('PYTHONPATH', '')}"}
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [*COMMAND, str(config)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment
            )
        self._ready = self._wait()
        self.base_kib = private_kib(self.process.pid)

    def _wait(self) -> dict[str, list[str]]:
        for _ in range(400):
            for line in self._log.read_text().splitlines():
                if "gateway ready" in line:
                    return json.loads(line)
            time.sleep(0.05)
        raise RuntimeError(f"the gateway did not become ready:\n{self._log.read_text()}")

    def port(self, source: str) -> int:
        """Where one of its sources listens."""
        found = re.search(r":(\d+)", self._ready[source][0].split("//")[-1])
        assert found is not None
        return int(found[1])

    @property
    def grown_kib(self) -> int:
        """Memory it has now, and had not when it began."""
        return private_kib(self.process.pid) - self.base_kib

    @property
    def descriptors(self) -> int:
        """How many are open."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def stop(self) -> float:
        """Tell it to stop; returns the seconds until it has."""
        began = time.monotonic()
        self.process.terminate()
        self.process.wait(120)
        return time.monotonic() - began


@contextmanager
def gateway(sources: str) -> Iterator[Gateway]:
    """One, and its end."""
    with tempfile.TemporaryDirectory() as folder:
        found = Gateway(Path(folder), sources)
        try:
            yield found
        finally:
            if found.process.poll() is None:
                found.stop()


def web(port: int = 0) -> str:
    """The source without TLS."""
    return f'  web: {{http: {{bind: "127.0.0.1:{port}", {HTTP}}}}}\n'


def call(number: int, tool: str = "big") -> bytes:
    """A call of a modern client."""
    params = {"name": tool, "arguments": {}, "_meta": META}
    return json.dumps({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}).encode()


def dial(port: int) -> socket.socket:
    """A connection with as small a buffer for what comes as there is."""
    peer = socket.socket()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    peer.settimeout(30)
    peer.connect(("127.0.0.1", port))
    return peer


def post(body: bytes, path: str = "/mcp", tool: str = "big") -> bytes:
    """A message as a request of HTTP/1.1."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nAccept: application/json, "
        f"text/event-stream\r\nMCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\nMcp-Name: {tool}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def push(peer: socket.socket, data: bytes) -> None:
    """Send what the other side takes; one that takes no more has pushed back, which is its right."""
    peer.settimeout(0.2)
    with suppress(OSError):
        peer.sendall(data)


def stall_http1(port: int) -> list[socket.socket]:
    """All requests behind each other."""
    peer = dial(port)
    push(peer, b"".join(post(call(number)) for number in range(REQUESTS)))
    return [peer]


def stall_sse(port: int) -> list[socket.socket]:
    """The stream of 2024-11-05; what is said goes over another connection."""
    stream, other = dial(port), dial(port)
    stream.sendall(b"GET /sse HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n")
    got = b""
    while b"\n\n" not in got.partition(b"endpoint")[2]:
        got += stream.recv(1)
    where = got.partition(b"data: ")[2].split()[0].decode()
    push(other, b"".join(post(call(number), urlsplit(where)._replace(scheme="", netloc="").geturl())
                         for number in range(REQUESTS)))  # fmt: skip
    other.close()
    return [stream]


def stall_websocket(port: int) -> list[socket.socket]:
    """All requests as messages of one WebSocket."""
    peer = dial(port)
    peer.sendall(
        b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13"
        b"\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mcp\r\n\r\n"
    )
    got = b""
    while b"\r\n\r\n" not in got:
        got += peer.recv(1)
    if b" 101 " not in got:
        raise RuntimeError(f"no WebSocket: {got!r}")
    for number in range(REQUESTS):
        body = call(number)
        push(peer, bytes((0x81, 0xFE)) + len(body).to_bytes(2, "big") + bytes(4) + body)  # masked with zeros
    return [peer]


def stall_http2(port: int) -> list[socket.socket]:
    """As many streams as are allowed, with windows as wide as there are."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    peer = context.wrap_socket(dial(port), server_hostname="localhost")
    h2 = H2Connection(H2Configuration(client_side=True))
    h2.initiate_connection()
    h2.update_settings({4: 2**31 - 1})
    h2.increment_flow_control_window(2**31 - 1 - 65535)
    for number in range(IN_FLIGHT):
        body, stream = call(number), h2.get_next_available_stream_id()
        fields = {
            ":method": "POST", ":path": "/mcp", ":scheme": "https", ":authority": "localhost",
            "content-type": "application/json", "accept": "application/json, text/event-stream",
            "mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": "big",
        }  # fmt: skip
        h2.send_headers(stream, list(fields.items()))
        h2.send_data(stream, body, end_stream=True)
    push(peer, h2.data_to_send())
    return [peer]


def answered_in_ms(port: int, calls: int = 300) -> list[float]:
    """What a client that reads waits for its answers, sorted; on one connection."""
    peer, took = socket.create_connection(("127.0.0.1", port), timeout=30), []
    with peer:
        for number in range(calls):
            began = time.perf_counter()
            peer.sendall(post(call(number, "small"), tool="small"))
            got = b""
            while b'"content"' not in got:
                got += peer.recv(65536)
            took.append((time.perf_counter() - began) * 1e3)
            time.sleep(0.002)
    return sorted(took)


def measure(name: str, sources: str, stall: Callable[[int], list[socket.socket]], source: str) -> dict[str, float]:
    """What clients cost on one face."""
    with gateway(sources) as found:
        good, face = found.port("web"), found.port(source)
        stall(face)[0].close()  # what is loaded on the first request is nobody's
        alone = answered_in_ms(good)
        time.sleep(STALL_S)
        found.base_kib, descriptors = private_kib(found.process.pid), found.descriptors
        peers = [peer for _ in range(CLIENTS) for peer in stall(face)]
        began, most = time.monotonic(), found.grown_kib
        crowded = answered_in_ms(good)
        while found.descriptors > descriptors and time.monotonic() - began < 60:
            most = max(most, found.grown_kib)
            time.sleep(0.05)
        cut = time.monotonic() - began
        del peers
    return {
        f"{name}: KiB each, at most": most / CLIENTS,
        f"{name}: s until all are cut": cut,
        f"{name}: p99 of others, ms": crowded[int(len(crowded) * 0.99)],
        f"{name}: p99 without them, ms": alone[int(len(alone) * 0.99)],
    }


def measure_stdio() -> dict[str, float]:
    """What the one client costs that started the gateway."""
    with gateway(f"  web: {{stdio: {{{CLIENT}: {IN_FLIGHT}}}}}\n") as found:
        assert found.process.stdin is not None
        for number in range(IN_FLIGHT):
            found.process.stdin.write(call(number) + b"\n")
        found.process.stdin.flush()
        time.sleep(1.0)
        return {"stdio: KiB each, at most": float(found.grown_kib)}


@contextmanager
def dribbling(port: int) -> Iterator[None]:
    """A thousand connections that send a byte of a head now and then."""
    slow, over = [dial(port) for _ in range(SLOW)], threading.Event()

    def dribble() -> None:
        while not over.is_set():
            for peer in slow:
                with suppress(OSError):  # cut, for it takes too long
                    peer.sendall(b"x")
                over.wait(DRIBBLE_S / SLOW)

    for peer in slow:
        peer.sendall(b"POST /mcp HTTP/1.1\r\nX: ")
    thread = threading.Thread(target=dribble)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        for peer in slow:
            peer.close()


def measure_crowd() -> dict[str, float]:
    """500 that read nothing while the gateway stops, and 1,000 that dribble their heads while others call."""
    with gateway(web()) as found:
        port = found.port("web")
        alone, crowded = list[float](), list[float]()
        for _ in range(3):  # in turns: the machine may be busier with one than with the other
            alone += answered_in_ms(port)
            with dribbling(port):
                crowded += answered_in_ms(port)
        alone.sort()
        crowded.sort()
    with gateway(web()) as found:
        peers = [peer for _ in range(CROWD) for peer in stall_http1(found.port("web"))]
        stopped = found.stop()
        del peers
    with_them, without = crowded[int(len(crowded) * 0.99)], alone[int(len(alone) * 0.99)]
    return {
        "1,000 slow heads: p99 of others, ms": with_them,
        "1,000 slow heads: p99 without them, ms": without,
        "1,000 slow heads: added to p99, ms": with_them - without,
        "500 stalled: s from SIGTERM to exit": stopped,
    }


def main() -> int:
    """Measure each face; 1 if a client costs more than it may, or stays."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with tempfile.TemporaryDirectory() as folder:
        cert, key = Path(folder) / "cert.pem", Path(folder) / "key.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
             "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", cert],
            check=True, capture_output=True,
        )  # fmt: skip
        tls = f'  safe: {{http: {{bind: "127.0.0.1:0", path: /mcp, tls: {{cert: {cert}, key: {key}}}, '
        tls += f"max_streams: {IN_FLIGHT}, stall_timeout: {STALL_S}s}}}}\n"
        figures = {
            **measure("http/1.1", web(), stall_http1, "web"),
            **measure("http/2", web() + tls, stall_http2, "safe"),
            **measure("sse", web(), stall_sse, "web"),
            **measure("websocket", web(), stall_websocket, "web"),
            **measure_stdio(),
            **measure_crowd(),
        }
    held = 3 * RESULT_KIB  # as it was made, and in its message twice: as text, and structured
    shared = UNREAD_KIB + IN_FLIGHT * held + SLACK_KIB
    bounds = {f"{name}: KiB each, at most": shared for name in ("http/2", "sse", "websocket", "stdio")}
    bounds |= {f"{name}: s until all are cut": 15.0 for name in ("http/1.1", "http/2", "sse", "websocket")}
    bounds["http/1.1: KiB each, at most"] = held + SLACK_KIB
    bounds["1,000 slow heads: added to p99, ms"] = ADDED_MS
    bounds["500 stalled: s from SIGTERM to exit"] = DRAIN_S + 2
    return report(figures, bounds, options.json)


if __name__ == "__main__":
    sys.exit(main())
