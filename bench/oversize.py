"""
What a body over the limit costs, from a client and from an upstream, in memory of a gateway.

    python bench/oversize.py --json bench/results/oversize.json

A body of one byte more than `max_body` (4 MiB) comes with its length, in chunks, and with a length of 10^20; an answer
of 32 MiB comes from an upstream, where the pipeline holds results, with its length and as an event. Each comes a few
times; the gateway's resident peak above what it had before is told, and whether it refused. Of a client's body that is
to be below 16 MiB (case 7), of an upstream's answer one `max_message` (16 MiB) and some room (case 45).
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from figures import report
from idle import COMMAND, port_in

LIMIT = 4 * 1024 * 1024
ANSWER = 32 * 1024 * 1024
PIECE = b"x" * 65536
TIMES = 5
BOUND_MIB = 16.0
UPSTREAM_MIB = 24.0
META = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}
CONFIG = """version: 1
sources: {web: {http: {bind: "127.0.0.1:0"}}}
pipelines: {main: {chain: [redact: {keys: [secret]}], sink: up}}
sinks: {up: {http: {url: "http://127.0.0.1:%d/mcp"}}}
run: {log_level: info}
"""
HEAD = (
    b"POST /mcp HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    b"accept: application/json, text/event-stream\r\n"
)
FORMS: dict[str, bytes] = {
    "json": b"content-type: application/json\r\n",
    "event": b"content-type: text/event-stream\r\n",
}
BEGIN = b'{"jsonrpc":"2.0","id":1,"result":{"resultType":"complete","content":[{"type":"text","text":"'
END = b'"}]}}'


class Upstream:
    """Answers every request with more than anybody takes."""

    def __init__(self) -> None:
        self.form = "json"
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            peer, _ = self._listener.accept()
            threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        before, after = (b"data: ", b"\n\n") if self.form == "event" else (b"", b"")
        length = len(before) + len(BEGIN) + ANSWER + len(END) + len(after)
        with peer, suppress(OSError):
            peer.recv(65536)
            peer.sendall(b"HTTP/1.1 200 OK\r\n%bcontent-length: %d\r\n\r\n" % (FORMS[self.form], length))
            peer.sendall(before + BEGIN)
            for _ in range(ANSWER // len(PIECE)):
                peer.sendall(PIECE)
            peer.sendall(END + after)


def with_length() -> Iterator[bytes]:
    """It says how long it is."""
    yield HEAD + b"content-length: %d\r\n\r\n" % (LIMIT + 1)
    yield from pieces()


def in_chunks() -> Iterator[bytes]:
    """It does not."""
    yield HEAD + b"transfer-encoding: chunked\r\n\r\n"
    for piece in pieces():
        yield b"%x\r\n%b\r\n" % (len(piece), piece)
    yield b"0\r\n\r\n"


def astronomical() -> Iterator[bytes]:
    """It says that it is longer than anything."""
    yield HEAD + b"content-length: 100000000000000000000\r\n\r\n"
    yield from pieces()


def pieces() -> Iterator[bytes]:
    """One byte more than the limit."""
    yield from [PIECE] * (LIMIT // len(PIECE))
    yield b"x"


def call() -> Iterator[bytes]:
    """A small request."""
    message = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": "t", "arguments": {}, "_meta": META},
    }
    body = json.dumps(message).encode()
    named = b"mcp-protocol-version: 2026-07-28\r\nmcp-method: tools/call\r\nmcp-name: t\r\n"
    yield HEAD + named + b"content-length: %d\r\n\r\n%b" % (len(body), body)


def status_of(port: int, parts: Callable[[], Iterator[bytes]]) -> int:
    """Send, as far as it is taken; the status that comes back, 0 if none does."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as peer:
        with suppress(OSError):
            for part in parts():
                peer.sendall(part)
        answer = b""
        with suppress(OSError):
            while b"\r\n" not in answer and (more := peer.recv(65536)):
                answer += more
    return int(answer[9:12] or b"0")


def grown_mib(pid: int, do: Callable[[], None]) -> float:
    """The resident peak meanwhile, above what there was before."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak is what there is now
    before = in_status(pid, "VmRSS")
    do()
    return (in_status(pid, "VmHWM") - before) / 1024


def in_status(pid: int, name: str) -> int:
    """A figure of a process, in KiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def main() -> int:
    """Measure; 1 if something costs more than its bound, or is not refused."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    upstream, figures, statuses = Upstream(), dict[str, float](), dict[str, set[int]]()
    with tempfile.TemporaryDirectory() as folder:
        config, log = Path(folder) / "gateway.yaml", Path(folder) / "log"
        config.write_text(CONFIG % upstream.port)
        with log.open("wb") as output:
            process = subprocess.Popen([*COMMAND, str(config)], stderr=output)
        try:
            port = port_in(log)

            def measure(name: str, parts: Callable[[], Iterator[bytes]]) -> None:
                found: set[int] = set()
                grown = grown_mib(process.pid, lambda: found.update(status_of(port, parts) for _ in range(TIMES)))
                figures[f"{name}: MiB at most"], statuses[name] = grown, found

            for name, parts in (("with its length", with_length), ("in chunks", in_chunks), ("10^20", astronomical)):
                measure(f"4 MiB + 1, {name}" if name != "10^20" else "a length of 10^20", parts)
            for upstream.form in FORMS:
                measure(f"an upstream's 32 MiB, {upstream.form}", call)
        finally:
            process.terminate()
            process.wait(30)
    for name, found in statuses.items():
        print(f"{name}: {sorted(found)}")
    bounds = {name: UPSTREAM_MIB if "upstream" in name else BOUND_MIB for name in figures}
    code = report(figures, bounds, options.json)
    return code or int(any(200 in found or 0 in found for found in statuses.values()))


if __name__ == "__main__":
    sys.exit(main())
