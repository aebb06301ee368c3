"""
What becomes of a gateway that is asked for three times what it can do (reliability.md, goal R8).

    python bench/overload.py --json bench/results/overload.json

A real gateway with `load_shed` over real loopback sockets; its upstream takes 50 ms for a call, so that its capacity is
known: places by 50 ms. Calls arrive by the clock, whatever became of those before (an open loop): at half the capacity,
at all of it, and at three times as much. Then: is as much done as before, do those who get in wait within bounds, and
are the others told so at once, with 503 and `Retry-After`? Shares and ratios, for the machine is shared; times are of
the client's wall clock.
"""

from __future__ import annotations

import argparse
import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httptools
import trio
from attrs import define, field
from figures import report
from soak import COMMAND, MODERN, free_port

PLACES, TAKES_S = 4, 0.05
CAPACITY = PLACES / TAKES_S
"""Calls a second."""
CONFIG = """version: 1
sources: {{web: {{http: {{bind: '127.0.0.1:{port}'}}}}}}
pipelines:
  main:
    chain:
      - load_shed: {{max_in_flight: {places}, max_waiting: {places}, shed_above: 100%, wait_at_most: 45ms}}
    sink: demo
sinks: {{demo: {{embedded: {{server: demo}}, chain: [{{fault: {{faults: [{{latency: 50ms}}]}}}}]}}}}
run: {{log_level: error}}
"""
BODY = json.dumps(
    {
        "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": "echo", "arguments": {"text": "hello"}, "_meta": MODERN},
    }
).encode()  # fmt: skip
BOUNDS = {
    "goodput at three times the capacity, share of the peak": -0.8,
    "p99 of those who get in, times that at half the capacity": 2.0,
    "p50 of a refusal, ms": 5.0,
    "refusals without 503 or Retry-After": 0.0,
}
"""A bound below zero is a least value."""


@define
class Answer:
    """One response, as it is read."""

    status: int = 0
    headers: dict[bytes, bytes] = field(factory=dict)
    done: bool = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """For the parser."""
        self.headers[name.lower()] = value

    def on_message_complete(self) -> None:
        """For the parser."""
        self.done = True


@define
class Phase:
    """What came of the calls at one rate."""

    took_s: dict[int, list[float]] = field(factory=dict)
    """By status."""
    untold: int = 0
    """Refusals that are no 503, or do not say when to come back."""
    seconds: float = 0.0

    def quantile(self, status: int, share: float) -> float:
        """Of how long answers took, in milliseconds."""
        times = sorted(self.took_s.get(status, [float("nan")]))
        return times[min(len(times) - 1, int(len(times) * share))] * 1000

    @property
    def goodput(self) -> float:
        """Calls a second that were answered."""
        return len(self.took_s.get(200, ())) / self.seconds


class Client:
    """Calls over connections that stay open; a new one where all are busy."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._free: list[trio.SocketStream] = []
        self._request = (
            f"POST /mcp HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n"
            "accept: application/json, text/event-stream\r\nmcp-protocol-version: 2026-07-28\r\n"
            f"mcp-method: tools/call\r\nmcp-name: echo\r\ncontent-length: {len(BODY)}\r\n\r\n"
        ).encode() + BODY

    async def call(self, phase: Phase) -> None:
        """Make one call, and note what came of it."""
        start = trio.current_time()
        stream = self._free.pop() if self._free else await trio.open_tcp_stream("127.0.0.1", self._port)
        await stream.send_all(self._request)
        answer = Answer()
        parser = httptools.HttpResponseParser(answer)
        while not answer.done:
            parser.feed_data(await stream.receive_some(65536))
        answer.status = parser.get_status_code()
        self._free.append(stream)
        phase.took_s.setdefault(answer.status, []).append(trio.current_time() - start)
        if answer.status != 200 and (answer.status != 503 or b"retry-after" not in answer.headers):
            phase.untold += 1

    async def phase(self, rate: float, seconds: float) -> Phase:
        """So many calls a second, for so long."""
        phase = Phase()
        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            for number in range(int(rate * seconds)):
                await trio.sleep_until(start + number / rate)
                nursery.start_soon(self.call, phase)
        phase.seconds = trio.current_time() - start
        return phase


async def measure(port: int, seconds: float) -> dict[str, float]:
    """All phases."""
    client = Client(port)
    await client.phase(CAPACITY / 2, 1.0)  # connections, caches
    half, peak, over = [await client.phase(CAPACITY * share, seconds) for share in (0.5, 1.0, 3.0)]
    statuses = Counter({status: len(times) for status, times in over.took_s.items()})
    return {
        "capacity, calls/s": CAPACITY,
        "goodput at the capacity, calls/s": peak.goodput,
        "goodput at three times the capacity, calls/s": over.goodput,
        "goodput at three times the capacity, share of the peak": over.goodput / max(peak.goodput, half.goodput),
        "p99 at half the capacity, ms": half.quantile(200, 0.99),
        "p99 of those who get in, ms": over.quantile(200, 0.99),
        "p99 of those who get in, times that at half the capacity": over.quantile(200, 0.99) / half.quantile(200, 0.99),
        "refused at once or after a wait": float(statuses[503]),
        "p50 of a refusal, ms": over.quantile(503, 0.5),
        "p99 of a refusal, ms": over.quantile(503, 0.99),
        "refusals without 503 or Retry-After": float(over.untold),
    }


@contextmanager
def gateway() -> Iterator[int]:
    """A gateway that serves; its port."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "gateway.yaml")
        config.write_text(CONFIG.format(port=port, places=PLACES))
        process = subprocess.Popen([*COMMAND, str(config)])
        try:
            give_up = time.monotonic() + 20
            while socket.socket().connect_ex(("127.0.0.1", port)) != 0:
                if process.poll() is not None or time.monotonic() > give_up:
                    raise RuntimeError("the gateway does not serve")
                time.sleep(0.05)
            yield port
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def main() -> int:
    """Measure, print a table, and write it as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each rate")
    options = parser.parse_args()
    with gateway() as port:
        figures = trio.run(measure, port, options.seconds)
    least = {name: -bound for name, bound in BOUNDS.items() if bound < 0}
    code = report(figures, {name: bound for name, bound in BOUNDS.items() if bound >= 0}, options.json)
    for name, bound in least.items():
        if figures[name] < bound:
            print(f"{name}: {figures[name]:.3f} is less than {bound:g}   UNDER")
            code = 1
    return code


if __name__ == "__main__":
    sys.exit(main())
