"""
What each layer of a call costs by itself: microseconds of CPU, and instructions where they can be counted.

    python bench/layers.py --json bench/results/layers.json

The layers are those of a small `tools/call` of a modern client, http to http, in the order in which it meets them. All
of it is computing: the system calls, Trio's passes and what lies between the layers is the rest of what a call costs
(`make bench-peers`), and `make profile` shows it. Figures are the cheapest of some rounds, all layers in turn in each.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import trio
from counters import Callgrind, Counter, under_valgrind
from figures import report

from sluiceway.pipeline.model.document import Limits
from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.kept_scope import KeptScope
from sluiceway.pipeline.model.session import Client
from sluiceway.pipeline.protocol.codec import decode_message, decode_upstream, encode_message
from sluiceway.pipeline.protocol.mcp import Era
from sluiceway.pipeline.protocol.messages import Notification, Reply, Request, Response, Result
from sluiceway.pipeline.runtime.chain import compile_chain
from sluiceway.pipeline.runtime.deadlines import Deadlines
from sluiceway.pipeline.runtime.pipeline import Pipeline
from sluiceway.transports.http_client.known_heads import KnownHeads
from sluiceway.transports.http_client.parser import ResponseParser
from sluiceway.transports.http_source.edge import read_head
from sluiceway.transports.http_source.framing import chunk
from sluiceway.transports.http_source.heads import Heads
from sluiceway.transports.http_source.protocol import Http1, RequestStream
from sluiceway.transports.http_source.request import Remote
from sluiceway.transports.http_upstream.headers import modern_headers

BODY = (
    b'{"jsonrpc":"2.0","id":17,"method":"tools/call","params":{"name":"echo","arguments":{"text":"%b"},"_meta":'
    b'{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}'
    % (b"x" * 96)
)
HEAD = (
    b"POST /mcp HTTP/1.1\r\nHost: gateway.example.com:8080\r\nContent-Type: application/json\r\nAccept: "
    b"application/json, text/event-stream\r\nMCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\n"
    b"Mcp-Name: echo\r\n"
    b"Content-Length: %d\r\n\r\n"
)
ANSWER = b'{"jsonrpc":"2.0","id":17,"result":{"content":[{"type":"text","text":"%b"}]}}' % (b"x" * 96)
RESPONSE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(ANSWER), ANSWER)
HEADERS = {"content-type": "application/json"}
BOUNDS = {
    "a request's head, never seen, us": 25.0,
    "a request's head, seen before, us": 0.6,
    "a request's head, another length, us": 13.0,
    "gate and decode, us": 12.0,
    "header lines for the upstream, us": 1.5,
    "a response's head, never seen, us": 8.0,
    "a response, head seen before, us": 1.0,
    "decode the upstream's answer, us": 6.0,
    "encode the answer, us": 1.2,
    "render the response, us": 7.0,
    "a chunk, us": 0.5,
    "a place in the pipeline and back, us": 1.0,
    "a deadline and back, us": 0.8,
    "an exchange is made, us": 3.0,
    "a view of an exchange, us": 0.8,
    "an exchange through an empty pipeline, us": 25.0,
    "an exchange in a kept task, us": 10.0,
}


def _drive(awaitable: Awaitable[object]) -> None:
    """Run what never waits."""
    try:
        awaitable.__await__().send(None)  # type: ignore[attr-defined]
    except StopIteration:
        return
    raise RuntimeError("it waits")


async def _write(_: bytes) -> None:
    """To nowhere."""


def layers() -> Mapping[str, Callable[[], object]]:
    """Each, as something to be called again and again."""
    head, longer = bytearray(HEAD % len(BODY) + BODY), bytearray(HEAD % 1234 + BODY)
    heads, known_heads = Heads(), KnownHeads()
    known = heads.read(head, None)
    assert known is not None
    http = Http1(_write, lambda _: False, heads, lambda: None, Remote())
    request = decode_message(BODY)
    assert isinstance(request, Request)
    client = Client(era=Era.MODERN, version="2026-07-28", transport="http", headers={"host": "gateway.example.com"})
    response = Response(17, Result(raw=b'{"content":[{"type":"text","text":"%b"}]}' % (b"x" * 96)))
    known_heads.parse(RESPONSE)

    def parse() -> None:
        ResponseParser().feed(RESPONSE)

    def render() -> None:
        _drive(RequestStream(known, http, b"").answer(200, HEADERS, ANSWER))

    pipeline = Pipeline("main", compile_chain([], _sink), Limits(), Deadlines())
    ticket = pipeline.handle(request, client=client, emit=_emit)
    lane = pipeline.lane
    lane.is_listed = True  # as it is while the timer runs

    def place() -> None:
        pipeline.admission.enter_nowait()
        pipeline.admission.leave()

    def deadline() -> None:
        lane.add(ticket, 30.0)
        lane.discard(ticket)

    return {
        "a request's head, never seen": lambda: read_head(head),
        "a request's head, seen before": lambda: heads.read(head, known),
        "a request's head, another length": lambda: heads.read(longer, known),
        "gate and decode": lambda: decode_message(BODY),
        "an exchange is made": lambda: pipeline.handle(request, client=client, emit=_emit),
        "a deadline and back": deadline,
        "a place in the pipeline and back": place,
        "a view of an exchange": lambda: ticket.exchange.with_request(request),
        "header lines for the upstream": lambda: modern_headers(request, client),
        "a response's head, never seen": parse,
        "a response, head seen before": lambda: known_heads.whole(RESPONSE),
        "decode the upstream's answer": lambda: decode_upstream(ANSWER),
        "encode the answer": lambda: encode_message(response),
        "render the response": render,
        "a chunk": lambda: chunk(ANSWER),
    }


def costs(rounds: int, count: int) -> dict[str, float]:
    """Microseconds of each layer."""
    found, spent = layers(), dict[str, float]()
    for _ in range(rounds):
        for name, work in found.items():
            start = time.process_time()
            for _ in range(count):
                work()
            cost = (time.process_time() - start) / count * 1e6
            spent[name] = min(cost, spent.get(name, cost))
    return {f"{name}, us": cost for name, cost in spent.items()}


async def _sink(_: Exchange) -> Reply:
    return Result({"content": []})


async def _emit(_: Notification) -> None:
    """Nothing is relayed."""


async def exchange(rounds: int, count: int) -> dict[str, float]:
    """Admission, exchange, deadline and the boundary, around an empty chain."""
    deadlines, client = Deadlines(), Client(era=Era.MODERN, version="2026-07-28")
    request, kept = Request(1, "tools/call", {"name": "echo"}), KeptScope()
    best: dict[str, float] = {}
    pipeline = Pipeline("main", compile_chain([], _sink), Limits(), deadlines)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(deadlines.serve)
        for _ in range(rounds):
            for name, scope in (("through an empty pipeline", None), ("in a kept task", kept)):
                start = time.process_time()
                for _ in range(count):
                    await pipeline.handle(request, client=client, emit=_emit).run(scope)
                cost = (time.process_time() - start) / count * 1e6
                best[name] = min(cost, best.get(name, cost))
                kept.close()
        nursery.cancel_scope.cancel()
    return {f"an exchange {name}, us": cost for name, cost in best.items()}


def instructions(counter: Counter | Callgrind) -> dict[str, float]:
    """Of each layer, warm."""
    found = {}
    with counter:
        nothing = min(counter.of(lambda: None) for _ in range(3))
        for name, work in layers().items():
            for _ in range(100):
                work()
            found[f"{name}, instructions"] = float(min(counter.of(work) for _ in range(5)) - nothing)
    return found


def instructions_somehow() -> dict[str, float]:
    """
    By the processor's counters, or else in a process of its own that valgrind runs.

    Raises:
        OSError: Neither can be had.
    """
    try:
        return instructions(Counter())
    except OSError:
        with tempfile.TemporaryDirectory() as folder:
            out, told = Path(folder) / "callgrind", Path(folder) / "told"
            command = [sys.executable, __file__, "--valgrind", str(out), "--json", str(told)]
            environment = {**os.environ, "PYTHONHASHSEED": "0"}
            subprocess.run(under_valgrind(out, command), check=True, stdout=subprocess.DEVNULL, env=environment)
            return json.loads(told.read_text())


def main() -> int:
    """Measure, print a table, and write it as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--valgrind", type=Path, metavar="OUT", help="count instructions only: valgrind runs this")
    options = parser.parse_args()
    if options.valgrind is not None:
        options.json.write_text(json.dumps(instructions(Callgrind(options.valgrind))))
        return 0
    figures = {**costs(options.rounds, options.count), **trio.run(exchange, options.rounds, options.count)}
    try:
        figures |= instructions_somehow()
    except OSError as error:
        print(f"no instruction counts: no counters that we may ask, and {error.strerror or error}")
    return report(figures, BOUNDS, options.json)


if __name__ == "__main__":
    sys.exit(main())
