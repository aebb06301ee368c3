"""
How many calls a second an audit trail takes, for each promise that it can make.

Run it with `python bench/audit.py`. Many callers at once call a tool through a chain that is only the `audit` stage, in
one process and without a network: what is measured is the trail. Each call returns when its record is as safe as `sync`
says, and is only counted then. The trail is verified afterwards. Rates are of the wall clock, the best of some rounds;
the share of one core that was busy stands beside them. The bound is that of the project (R10), for `sync: batch`, which
is the default.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import trio
from attrs import frozen
from figures import report

from sluiceway.middlewares.audit.stage import Audit
from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.model.exchange import Exchange, Link, Service
from sluiceway.pipeline.model.session import Caller, Client
from sluiceway.pipeline.protocol.mcp import Era, Kind
from sluiceway.pipeline.protocol.messages import Notification, Reply, Request, Result
from sluiceway.pipeline.runtime.chain import Stage, compile_chain
from sluiceway.pipeline.telemetry.audit_reading import verify_trail
from sluiceway.pipeline.telemetry.log import configure_logging
from sluiceway.pipeline.testing.configs import make_config

PROMISED: float = 20_000
"""Audited calls a second (reliability.md, R10)."""
ANSWER = b'{"content":[{"type":"text","text":"hello, gateway"}]}'
REQUEST = Request(17, "tools/call", {"name": "echo", "arguments": {"text": "hello, gateway", "times": 3}})


@frozen
class Round:
    """What one round came to."""

    rate: float
    """Calls a second."""
    busy: float
    """CPU seconds per second."""
    lost: int


async def _sink(_: Exchange) -> Reply:
    return Result(raw=ANSWER)


async def _emit(_: Notification) -> None:
    """Nothing is relayed."""


async def _calls(service: Service, client: Client, caller: Caller, count: int) -> None:
    for _ in range(count):
        exchange = Exchange(request=REQUEST, kind=Kind.CALL, client=client, caller=caller, link=Link(_emit))
        await service(exchange)


async def measure(path: Path, sync: str, to: str, callers: int, seconds: float) -> Round:
    """Calls for about so long, with a trail of their own."""
    config = make_config(Audit, {"path": str(path), "to": to, "sync": sync})
    stage = Audit(config, Context(id="audit"))
    service = compile_chain([Stage("audit", stage)], _sink).service
    client = Client(era=Era.MODERN, version="2026-07-28", transport="http", address="192.0.2.7")
    who = [Caller(f"user-{n}", "acme", how="api_key", credential=f"k{n}") for n in range(callers)]
    made = 0
    async with stage.open():
        start, cpu = time.perf_counter(), time.process_time()
        while time.perf_counter() - start < seconds:
            async with trio.open_nursery() as nursery:
                for caller in who:
                    nursery.start_soon(_calls, service, client, caller, 20)
            made += callers * 20
        spent, busy = time.perf_counter() - start, time.process_time() - cpu
        lost = int(next(figure.value for figure in stage.figures() if figure.name == "audit_lost_total"))
    verdict = verify_trail(path)
    if verdict.findings or verdict.records < made:
        raise AssertionError(f"{made} calls, {verdict.records} records: {verdict.findings}")
    return Round(made / spent, busy / spent, lost)


def main() -> int:
    """Measure, print a table, and write it as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--callers", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the trails are written; a temporary folder without")
    options = parser.parse_args()
    figures: dict[str, float] = {}
    configure_logging("error", "json", sys.stderr)
    for to, sync in (("jsonl", "batch"), ("jsonl", "always"), ("jsonl", "never"), ("sqlite", "batch")):
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            rounds = [
                trio.run(measure, Path(folder) / f"{number}.{to}", sync, to, options.callers, options.seconds)
                for number in range(options.rounds)
            ]
        best = max(rounds, key=lambda each: each.rate)
        figures[f"{to}, {sync}: calls/s"] = best.rate
        figures[f"{to}, {sync}: cores busy"] = best.busy
    report(figures, {}, options.json)
    if kept := figures["jsonl, batch: calls/s"] >= PROMISED:
        print(f"the default keeps up with {PROMISED:,.0f} calls a second")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
