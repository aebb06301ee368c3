"""
What aggregation costs: 100 upstreams with 100 tools each, against one with one.

    python bench/route.py

Upstreams answer at once and in memory, so the figures are the route's own.
"""

from __future__ import annotations

import time

import trio

from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.protocol.codec import decode_message
from sluiceway.pipeline.protocol.messages import Body, Result, encode_json
from sluiceway.pipeline.testing import memory_exchange
from sluiceway.transports.route.config import RouteConfig
from sluiceway.transports.route.sink import RouteSink

CALLS = 20_000
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
            return Result(Body(raw=pages[int(exchange.request.params.get("cursor", 0)) // page]))
        return answer

    return serve


async def measure(upstreams: int, tools: int, page: int) -> None:
    """Print the figures of one size."""
    ids = tuple(f"u{number}" for number in range(upstreams))
    service = upstream(tools, page)
    began = time.perf_counter()
    sink = RouteSink(RouteConfig(to=ids), Context(id="sinks.all", sinks=lambda _: service))
    async with sink.open():
        started = time.perf_counter() - began
        began, pages, count, params = time.perf_counter(), 0, 0, {}
        while True:
            value = (await sink(memory_exchange("tools/list", params))).value
            pages, count = pages + 1, count + len(value["tools"])
            if "nextCursor" not in value:
                break
            params = {"cursor": value["nextCursor"]}
        listed = time.perf_counter() - began
        assert count == upstreams * tools
        raw = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"%s.tool_0","arguments":{"query":"x"}}}'
        exchange = memory_exchange("tools/call").with_request(decode_message(raw % ids[-1].encode()))
        began = time.perf_counter()
        for _ in range(CALLS):
            await sink(exchange)
        call = (time.perf_counter() - began) / CALLS
    print(
        f"{upstreams:4} x {tools:3} tools: start {started * 1e3:6.1f} ms, whole list {listed * 1e3:7.1f} ms in {pages} "
        f"pages ({listed / pages * 1e3:.1f} ms each), call {call * 1e6:.1f} us"
    )


for size in ((1, 1, 1), (10, 10, 10), (100, 100, 100), (100, 100, 25)):
    trio.run(measure, *size)
