"""
An open loop: so many clients ask at the same instant, again and again, whether or not they were answered.

    python burst.py HOST:PORT REQUEST RATE SECONDS

Latency counts from when a request was due, so that a gateway which falls behind cannot hide it. Prints JSON.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from collections import deque
from pathlib import Path

import httptools

CLIENTS = 16


class Client:
    """One connection, and when its requests were due."""

    def __init__(self, address: tuple[str, int], request: bytes, least: int) -> None:
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.due: deque[float] = deque()
        self.taken: list[float] = []
        self.failed = 0
        self._request, self._least = request, least
        self._body: list[bytes] = []
        self._busy = False
        self._parser = httptools.HttpResponseParser(self)

    def ask(self, due: float) -> None:
        """It is time for a request; it waits behind the one before."""
        self.due.append(due)
        if not self._busy:
            self._send()

    def _send(self) -> None:
        self._busy = True
        self.socket.sendall(self._request)

    def on_body(self, piece: bytes) -> None:
        """For the parser."""
        self._body.append(piece)

    def on_message_complete(self) -> None:
        """For the parser: an answer is looked at like those that wrk gets (call.lua)."""
        body = b"".join(self._body)
        self._body.clear()
        right = self._parser.get_status_code() == 200 and len(body) >= self._least
        self.failed += not right or b'"result"' not in body or b'"isError":true' in body
        self.taken.append(time.perf_counter() - self.due.popleft())
        self._parser = httptools.HttpResponseParser(self)
        self._busy = False

    def read(self) -> None:
        """Take what came."""
        self._parser.feed_data(self.socket.recv(1 << 20))
        if not self._busy and self.due:
            self._send()


def main(where: str, request: str, rate: float, seconds: float) -> dict[str, float]:
    """Fire, and tell how long answers took, in microseconds."""
    host, _, port = where.partition(":")
    head, _, body = Path(request).read_text().partition("\n\n")
    first, *lines = head.strip().split("\n")
    method, path, least = first.split()
    wire = [f"{method} {path} HTTP/1.1", f"host: {where}", *lines]
    data = "\r\n".join([*wire, f"content-length: {len(body)}", "", ""]).encode() + body.encode()
    clients = {}
    for number in range(CLIENTS):
        unique = data.replace(b'"id":1,', b'"id":%d,' % (number + 1), 1).replace(
            b"content-length: %d" % len(body), b"content-length: %d" % (len(body) + len(str(number + 1)) - 1)
        )
        client = Client((host, int(port)), unique, int(least))
        clients[client.socket.fileno()] = client
    poll = select.epoll()
    for number in clients:
        poll.register(number, select.EPOLLIN)
    start, fired, every = time.perf_counter(), 0, CLIENTS / rate
    end = start + seconds
    while (now := time.perf_counter()) < end + 1 and (now < end or any(c.due for c in clients.values())):
        due = start + fired * every
        if now >= due and due < end:
            fired += 1
            for client in clients.values():
                client.ask(due)
            continue
        for number, _ in poll.poll(max(0.0, min(due, end + 1) - now) if due < end else 0.05):
            clients[number].read()
    taken = sorted(each for client in clients.values() for each in client.taken)
    asked = fired * CLIENTS
    return {
        "asked": asked, "answered": len(taken), "failed": sum(client.failed for client in clients.values()),
        "p50": taken[len(taken) // 2] * 1e6, "p95": taken[len(taken) * 95 // 100] * 1e6,
        "p99": taken[len(taken) * 99 // 100] * 1e6,
    }  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4]))))
