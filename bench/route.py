"""
What aggregation costs: 100 upstreams with 100 tools each, against one with one.

    python bench/route.py --json bench/results/route.json

Upstreams answer at once and in memory, so the figures are the route's own. CPU time; of calls the median of rounds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import trio
from figures import report

from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.protocol.codec import decode_message
from sluiceway.pipeline.protocol.messages import Result, encode_json
from sluiceway.pipeline.testing import memory_exchange
from sluiceway.transports.route.config import RouteConfig
from sluiceway.transports.route.sink import RouteSink

CALLS = 5_000
ROUNDS = 5
FLAT = 1.5
"""How much more a call may cost with 100 upstreams of 100 tools than with one of one."""
SCHEMA = {"type": "object", "properties": {"query": {"type": "string", "description": "What to look for."}}}


def upstream(tools: int, page: int):
    """An upstream with so many tools, so many to a page; bodies are bytes, as from a wire."""
    names = [f"tool_{number}" for number in range(tools)]
    pages = []
    for start in range(0, tools, page):
        listed = [
            {"name": n, "description": "Does something.", "inputSchema": SCHEMA} for n in names[start : start + page]
        ]
        more = {"nextCursor": str(start + page)} if start + page < tools else {}
        pages.append(encode_json({"tools": listed, **more}))
    answer = Result({"content": []})

    async def serve(exchange):
        await trio.lowlevel.cancel_shielded_checkpoint()
        if exchange.method == "tools/list":
            return Result(raw=pages[int(exchange.request.params.get("cursor", 0)) // page])
        return answer

    return serve


async def measure(upstreams: int, tools: int, page: int) -> dict[str, float]:
    """The figures of one size."""
    ids = tuple(f"u{number}" for number in range(upstreams))
    service = upstream(tools, page)
    began = time.process_time()
    sink = RouteSink(RouteConfig(to=ids), Context(id="sinks.all", sinks=lambda _: service))
    async with sink.open():
        started = time.process_time() - began
        began, pages, count, params = time.process_time(), 0, 0, {}
        while True:
            value = (await sink(memory_exchange("tools/list", params))).value
            pages, count = pages + 1, count + len(value["tools"])
            if "nextCursor" not in value:
                break
            params = {"cursor": value["nextCursor"]}
        listed = time.process_time() - began
        assert count == upstreams * tools
        raw = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"%s.tool_0","arguments":{"query":"x"}}}'
        exchange = memory_exchange("tools/call").with_request(decode_message(raw % ids[-1].encode()))
        rounds = []
        for _ in range(ROUNDS):
            began = time.process_time()
            for _ in range(CALLS):
                await sink(exchange)
            rounds.append((time.process_time() - began) / CALLS)
    size = f"{upstreams} x {tools} tools"
    return {
        f"{size}: start, ms": started * 1e3,
        f"{size}, pages of {page}: whole list, ms": listed * 1e3,
        f"{size}, pages of {page}: one merged page, ms": listed / pages * 1e3,
        f"{size}, pages of {page}: call, us": statistics.median(rounds) * 1e6,
    }


def main() -> int:
    """Measure every size; a call through the largest must cost what one through the smallest does."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    trio.run(measure, 1, 1, 1)  # whatever is done only once
    figures: dict[str, float] = {}
    for size in ((1, 1, 1), (10, 10, 10), (100, 100, 100), (100, 100, 25)):
        figures |= trio.run(measure, *size)
    calls = [value for name, value in figures.items() if name.endswith("call, us")]
    figures["call, largest by smallest"] = calls[2] / calls[0]
    return report(figures, {"call, largest by smallest": FLAT}, options.json)


if __name__ == "__main__":
    sys.exit(main())
