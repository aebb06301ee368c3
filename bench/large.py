"""
What long results and long requests cost: CPU of a gateway beyond that of a small call, and the memory it takes at most.

    python bench/large.py --json bench/results/large.json

The gateway is a process of its own, without stages, between a client and an upstream over HTTP/1.1 that are threads of
this one. CPU per byte is told as a share of a full decoding of the same JSON in this process, by msgspec, which is as
fast as decoders get here, and by the standard library, which most gateways use: one that decoded and encoded what it
passes on would be above 1. System calls are part of it. Memory is the resident peak of calls one after the other, above
what small calls had left. Bodies are of two kinds: records, which are all brackets and quotes, and text.
"""

from __future__ import annotations

import argparse
import http.client
import json
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec
from figures import report
from idle import COMMAND, port_in

from sluiceway.pipeline.protocol.codec import decode_message

READ_KIB = 64
"""What the gateway reads at once."""
CONSTANT_KIB = 1536
"""For what is held until it is known to be long (256 KiB), and for the allocator's arenas."""
SIZES = {"1 MB": 1_000_000, "10 MB": 10_000_000}
VERSION = "2026-07-28"
META = {"io.modelcontextprotocol/protocolVersion": VERSION, "io.modelcontextprotocol/clientCapabilities": {}}
CONFIG = """version: 1
sources: {web: {http: {bind: "127.0.0.1:0"}}}
pipelines: {main: {chain: [], sink: up}}
sinks: {up: {http: {url: "http://127.0.0.1:%d/mcp"}}}
run: {log_level: info}
"""
DECODERS = {"msgspec": msgspec.json.decode, "json": json.loads}
ID = re.compile(rb'"id":\s*([^,}]+)')
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
RECORD = {"id": 7, "title": "a line of a table", "tags": ["a", "b"], "score": 0.25}
LINE = "a line of a text that somebody wrote, with 'words' in it\n"


def body(kind: str, size: int, record: Mapping[str, object] = RECORD) -> dict[str, object]:
    """About so many bytes of JSON."""
    if kind == "records":
        return {"rows": [record] * max(1, size // len(msgspec.json.encode(record)))}
    return {"text": LINE * max(1, size // (len(LINE) + 1))}


class Upstream:
    """Answers every POST with the same result, and keeps the connection."""

    def __init__(self) -> None:
        self._result = b""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def result(self, value: dict[str, object]) -> bytes:
        """Answer with this from now on; returns the JSON of it."""
        result = {"content": [], "structuredContent": value, "resultType": "complete"}
        self._result = msgspec.json.encode(result)
        return self._message(b"1")

    def _message(self, number: bytes) -> bytes:
        return b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (number, self._result)

    def _accept(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as lines:
            while lines.readline():
                length = 0
                while (line := lines.readline()) != b"\r\n":
                    name, _, value = line.partition(b":")
                    length = int(value) if name.lower() == b"content-length" else length
                asked = ID.search(lines.read(length))
                assert asked is not None
                answer = self._message(asked[1])
                connection.sendall(HEAD % len(answer) + answer)


class Gateway:
    """A gateway that is up, and one connection to it."""

    def __init__(self, pid: int, port: int) -> None:
        self.pid = pid
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def call(self, arguments: dict[str, object]) -> int:
        """
        Call a tool; returns the bytes of the answer.

        Raises:
            RuntimeError: It is not a result.
        """
        params = {"name": "echo", "arguments": arguments, "_meta": META}
        message = msgspec.json.encode({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
        headers = {
            "content-type": "application/json", "accept": "application/json, text/event-stream",
            "mcp-protocol-version": VERSION, "mcp-method": "tools/call", "mcp-name": "echo",
        }  # fmt: skip
        self._connection.request("POST", "/mcp", message, headers)
        answer = self._connection.getresponse().read()
        if b'"result"' not in answer[:100]:
            raise RuntimeError(f"no result: {answer[:300]!r}")
        return len(answer)

    def cpu_us(self, calls: int, arguments: dict[str, object]) -> float:
        """Of the gateway, for each of so many calls; the cheapest of five lots."""
        self.call(arguments)
        return min(self._lot(max(1, calls // 5), arguments) for _ in range(5))

    def _lot(self, calls: int, arguments: dict[str, object]) -> float:
        clock = (~self.pid << 3) | 2  # what the process was on a processor for (clock_getcpuclockid(3))
        before = time.clock_gettime(clock)
        for _ in range(calls):
            self.call(arguments)
        return (time.clock_gettime(clock) - before) / calls * 1e6

    def peak_kib(self, calls: int, arguments: dict[str, object]) -> float:
        """By how much the resident memory was larger than for small calls, at most, while so many were made."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")  # the peak is what there is now
        for _ in range(calls):
            self.call(arguments)
        return self._status("VmHWM") - self._small

    def note_memory(self) -> None:
        """What it takes now is what small calls need; peaks are told above that."""
        self._small = self._status("VmRSS")

    def _status(self, name: str) -> float:
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(name + ":"))


@contextmanager
def gateway(upstream: int) -> Iterator[Gateway]:
    """`sluiceway run` in front of a port."""
    with tempfile.TemporaryDirectory() as folder:
        config, log = Path(folder) / "gateway.yaml", Path(folder) / "log"
        config.write_text(CONFIG % upstream)
        with log.open("wb") as output:
            process = subprocess.Popen([*COMMAND, str(config)], stderr=output)
        try:
            yield Gateway(process.pid, port_in(log))
        finally:
            process.terminate()
            process.wait(60)


def spent_us(work: Callable[[], object]) -> float:
    """CPU of this process; the cheapest of five."""
    costs = []
    for _ in range(5):
        start = time.process_time()
        work()
        costs.append(time.process_time() - start)
    return min(costs) * 1e6


def results(found: Gateway, upstream: Upstream, small: float) -> Iterator[tuple[str, float]]:
    """Results of each size and kind."""
    for kind in ("records", "text"):
        for name, size in SIZES.items():
            encoded = upstream.result(body(kind, size))
            cost = found.cpu_us(20_000_000 // size, {}) - small
            yield f"result, {name} of {kind}: ms", cost / 1000
            for decoder, decode in DECODERS.items():
                decoding = spent_us(lambda encoded=encoded, decode=decode: decode(encoded))
                yield f"result, {name} of {kind}: {decoder} ms", decoding / 1000
                yield f"result, {name} of {kind}: share of {decoder}", cost / decoding
            yield f"result, {name} of {kind}: KiB of memory at most", found.peak_kib(3, {})


def requests(found: Gateway, upstream: Upstream, small: float) -> Iterator[tuple[str, float]]:
    """Requests of 1 MB; the gate is what each pays, and what is above it is told as a share of a decoding."""
    upstream.result({})
    for kind in ("records", "text"):
        arguments = body(kind, SIZES["1 MB"], {**RECORD, "title": LINE})  # more keys than these are refused
        message = msgspec.json.encode(
            {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "echo", "arguments": arguments}}
        )
        gate = spent_us(lambda message=message: decode_message(message))
        decoding = spent_us(lambda message=message: msgspec.json.decode(message))
        cost = found.cpu_us(20, arguments) - small
        yield f"request, 1 MB of {kind}: ms", cost / 1000
        yield f"request, 1 MB of {kind}: the gate alone, ms", gate / 1000
        if kind == "records":
            yield f"request, 1 MB of {kind}: above the gate, share of msgspec", (cost - gate) / decoding


def bounds() -> dict[str, float]:
    """What is asserted: memory as it is promised, and CPU as it was reached (docs/performance.md has the aims)."""
    found = {f"result, {name} of {kind}: KiB of memory at most": 4.0 * READ_KIB + CONSTANT_KIB
             for name in SIZES for kind in ("records", "text")}  # fmt: skip
    return {**found, **SHARES}


SHARES = {
    "result, 1 MB of records: share of msgspec": 0.8,
    "result, 10 MB of records: share of msgspec": 0.3,
    "result, 1 MB of text: ms": 4.0,
    "request, 1 MB of records: above the gate, share of msgspec": 1.0,
}


def main() -> int:
    """Measure, and say what is over its bound."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    upstream = Upstream()
    with gateway(upstream.port) as found:
        upstream.result({})
        small = found.cpu_us(400, {})
        found.note_memory()
        figures = {"small call, us": small, **dict(results(found, upstream, small))}
        figures |= dict(requests(found, upstream, small))
    return report(figures, bounds(), options.json)


if __name__ == "__main__":
    sys.exit(main())
