"""
What a group costs for each call, at 3 and at 100 upstreams; and how evenly strategies spread.

    python bench/balance.py

Upstreams answer at once and in memory, so the figures are the group's own: the price of a call through it, less that of
the same call without.
"""

from __future__ import annotations

import random
import time

import trio

from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.protocol.messages import Result
from sluiceway.pipeline.testing import memory_exchange
from sluiceway.transports.balance.config import BalanceConfig, HashConfig, HealthConfig
from sluiceway.transports.balance.member import Member, Vitals
from sluiceway.transports.balance.ring import Ring
from sluiceway.transports.balance.sink import BalanceSink
from sluiceway.transports.balance.strategies import PLAIN

CALLS = 20_000
ANSWER = Result({"content": []})


async def serve(_exchange):
    """An upstream."""
    await trio.lowlevel.cancel_shielded_checkpoint()
    return ANSWER


async def cost(service, calls: int = CALLS) -> float:
    """Microseconds of CPU for each call, the best of three rounds."""
    best = float("inf")
    for _ in range(3):
        exchange = memory_exchange("tools/call", {"name": "t", "arguments": {"id": 1}})
        began = time.process_time()
        for _ in range(calls):
            await service(exchange)
        best = min(best, time.process_time() - began)
    return best / calls * 1e6


async def measure() -> None:
    """Print the figures."""
    bare = await cost(serve)
    for strategy in (*PLAIN, "consistent_hash"):
        figures = []
        for count in (3, 100):
            config = BalanceConfig(
                to=tuple(f"u{number}" for number in range(count)),
                strategy=strategy,
                hash=HashConfig(bounded_load=1.25),
                health=HealthConfig(probe="none"),
            )
            sink = BalanceSink(config, Context(id="sinks.all", sinks=lambda _: serve))
            async with sink.open():
                figures.append(await cost(sink) - bare)
        print(f"{strategy:16} {figures[0]:6.1f} us at 3 upstreams, {figures[1]:6.1f} us at 100")


def spread() -> None:
    """Print how even they are: the busiest of 100 that have 100 requests each, and the keys that move."""
    for name in ("random", "p2c", "least_loaded", "round_robin"):
        group = tuple(Member(f"u{number}", number, serve, 1, Vitals()) for number in range(100))
        for member in group:
            member.vitals.latency.observe(0.01, 0.0)
        strategy = PLAIN[name](random.Random(1))
        for _ in range(10_000):
            strategy.choose(group, None, 0.0).vitals.in_flight += 1
        print(f"{name:16} busiest of 100 with 100 each: {max(member.load for member in group)}")
    began = time.perf_counter()
    ring = Ring({f"u{number}": 1 for number in range(10)}, 500)
    made = time.perf_counter() - began
    keys = [f"caller {number}".encode() for number in range(20_000)]
    before = [next(ring.walk(key)) for key in keys]
    after = [next(node for node in ring.walk(key) if node != "u3") for key in keys]
    moved = sum(one != other for one, other in zip(before, after, strict=True)) / len(keys)
    most = max(before.count(node) for node in set(before)) / len(keys) * 10
    print(f"ring of 10: made in {made * 1e3:.1f} ms, fullest {most:.2f} of its share, 1 removed moves {moved:.1%}")


trio.run(measure)
spread()
