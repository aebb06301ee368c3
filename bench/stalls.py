"""
How long one input within all limits holds up everybody else (goal R9): CPU between two answers to others.

    python bench/stalls.py

Each input is what costs most of its kind: the longest body, the most keys, the smallest chunks. While it is read,
another client asks `/healthz` again and again, and the CPU that the gateway used meanwhile is the longest time it was
not there for others, whatever else the machine does. The best of three is taken, for the rest is the machine.
"""

from __future__ import annotations

import argparse
import json
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from figures import report
from fuzz import Worker, gateways
from fuzz_inputs import CALLING, META, UPGRADE, post

GOAL_MS = 50.0
ROUNDS = 3
PROBE = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
TAIL = b',"_meta":%b}}' % json.dumps(META).encode()
HEAD = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":'
ROOM = 4 * 2**20 - len(HEAD) - len(TAIL) - 20
"""Bytes that are left of the longest body."""


def arguments(data: bytes) -> bytes:
    """A call with these."""
    return HEAD + data + TAIL


def text(unit: bytes) -> bytes:
    """A call with as much of that as fits."""
    return arguments(b'{"text":"' + unit * (ROOM // len(unit)) + b'"}')


def chunked(body: bytes) -> bytes:
    """A call in chunks of one byte."""
    head = post(b"", CALLING).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    return head + b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"


def inputs() -> Mapping[str, bytes]:
    """By name, what costs most."""
    keys = [f"\ufb01\xe9{number}" for number in range(49_000)]
    odd = "\ufdfa" * (ROOM // 3)
    marks = "a" + "\u0315\u0300" * (ROOM // 8)
    bodies = {
        "text": text(b"x"),
        "escapes": text(b"\\u0001"),
        "surrogates": text(b"\\ud83d\\ude00"),
        "floats": arguments(b"[" + b"1.2345678901234567e300," * 180_000 + b"1]"),
        "arrays": arguments(b"[" + b"[]," * 99_000 + b"[]]"),
        "depth": arguments(b"[" + b",".join(b"[" * 58 + b"]" * 58 for _ in range(3_000)) + b"]"),
        "keys": arguments(json.dumps(dict.fromkeys((f"k{n}" for n in range(49_000)), 1)).encode()),
        "odd keys": arguments(json.dumps(dict.fromkeys(keys, 1), ensure_ascii=False).encode()),
        "a long odd key": arguments(json.dumps({odd: 1, "b": 2}, ensure_ascii=False).encode()),
        "a key of marks": arguments(json.dumps({marks: 1, "b": 2}, ensure_ascii=False).encode()),
    }
    return {
        **{name: post(body, CALLING) for name, body in bodies.items()},
        "chunks": chunked(arguments(b'{"text":"%b"}' % (b"x" * 500_000))),
        "requests behind each other": PROBE * 1_000,
        "pings": UPGRADE + b"\x89\x80\0\0\0\0" * 20_000,
        "frames of one byte": UPGRADE + b"\x01\x81\0\0\0\0{" + b"\x00\x81\0\0\0\0 " * 20_000,
    }


def cpu_ms(pid: int) -> float:
    """CPU that a process has used."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e6


@contextmanager
def asking(worker: Worker) -> Iterator[list[float]]:
    """Ask again and again; yields the CPU in ms that was used before each answer."""
    pid, over, used = worker.process.pid, threading.Event(), list[float]()

    def ask() -> None:
        with socket.create_connection(("127.0.0.1", worker.plain)) as peer:
            while not over.is_set():
                before = cpu_ms(pid)
                peer.sendall(PROBE)
                peer.recv(4096)
                used.append(cpu_ms(pid) - before)
                time.sleep(0.001)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield used
    finally:
        over.set()
        thread.join()


def bring(port: int, data: bytes) -> None:
    """Send an input, and read what comes of it."""
    with socket.create_connection(("127.0.0.1", port), timeout=2.0) as peer:
        sending = threading.Thread(target=_send, args=(peer, data))
        sending.start()
        with suppress(OSError):
            while peer.recv(2**20):
                if not sending.is_alive():
                    peer.settimeout(0.3)
        with suppress(OSError):
            peer.shutdown(socket.SHUT_RDWR)
        sending.join()


def _send(peer: socket.socket, data: bytes) -> None:
    with suppress(OSError):  # it has its answer before it is whole
        peer.sendall(data)


def stall_ms(worker: Worker, data: bytes) -> float:
    """The longest stall of the best round."""
    best = float("inf")
    for _ in range(ROUNDS):
        with asking(worker) as used:
            bring(worker.plain, data)
            count = len(used)
            while len(used) < count + 2:
                time.sleep(0.01)
            best = min(best, max(used))
    return best


def main() -> int:
    """Measure each; 1 if one takes too long."""
    parser = argparse.ArgumentParser(description="How long one input holds up everybody else.")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    with gateways() as worker:
        figures = {f"{name}: ms of CPU": stall_ms(worker, data) for name, data in inputs().items()}
    return report(figures, dict.fromkeys(figures, GOAL_MS), options.json)


if __name__ == "__main__":
    sys.exit(main())
