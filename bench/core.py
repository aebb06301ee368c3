"""
What the core costs on this machine: start-up, memory, and microseconds per exchange and per stage.

Run it with `make bench`. Every figure is CPU time, the median of interleaved rounds or the cheapest run of a command,
so that a busy neighbour spoils rounds and not figures. Bounds are those of the project; a figure over its bound is
marked, and the exit code says so.
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import trio
from figures import report

from sluiceway.pipeline.model.component import Context, Middleware
from sluiceway.pipeline.model.document import Limits
from sluiceway.pipeline.model.exchange import Exchange, Service
from sluiceway.pipeline.model.session import Client
from sluiceway.pipeline.protocol.codec import decode_message, encode_message
from sluiceway.pipeline.protocol.mcp import Era
from sluiceway.pipeline.protocol.messages import Notification, Reply, Request, Response, Result
from sluiceway.pipeline.runtime.chain import Stage, compile_chain
from sluiceway.pipeline.runtime.deadlines import Deadlines
from sluiceway.pipeline.runtime.pipeline import Pipeline

ROOT = Path(__file__).resolve().parent.parent
CALL = (
    b'{"jsonrpc":"2.0","id":17,"method":"tools/call","params":{"name":"echo","arguments":{"text":"hello, gateway"},'
    b'"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","progressToken":"p-17"}}}'
)
BOUNDS = {
    "import of the CLI, CPU s": 0.15,
    "check of the largest sample, CPU s": 0.5,
    "ready, wall s": 1.0,
    "idle RSS, MiB": 60.0,
    "pass-through stage, us": 0.5,
    "Pipeline.handle with 8 stages, us": 20.0,
}


class PassThrough(Middleware):
    """A stage that has no reason to act."""

    async def __call__(self, exchange: Exchange, call_next: Service) -> Reply:
        return await call_next(exchange)


async def _sink(_: Exchange) -> Reply:
    return Result({"content": []})


async def _emit(_: Notification) -> None:
    pass


def _pipeline(stages: int, deadlines: Deadlines) -> Pipeline:
    chain = compile_chain([Stage(f"s{i}", PassThrough(None, Context(id=f"s{i}"))) for i in range(stages)], _sink)
    return Pipeline("main", chain, Limits(), deadlines)


async def _handle_costs(rounds: int, count: int) -> dict[str, float]:
    deadlines = Deadlines()
    client = Client(era=Era.MODERN, version="2026-07-28")
    request = Request(1, "tools/call", {"name": "echo"})
    pipelines = {stages: _pipeline(stages, deadlines) for stages in (0, 8, 64)}
    spent: dict[int, list[float]] = {stages: [] for stages in pipelines}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(deadlines.serve)
        for _ in range(rounds):
            for stages, pipeline in pipelines.items():
                start = time.process_time()
                for _ in range(count):
                    await pipeline.handle(request, client=client, emit=_emit).run()
                spent[stages].append((time.process_time() - start) / count * 1e6)
        nursery.cancel_scope.cancel()
    median = {stages: statistics.median(values) for stages, values in spent.items()}
    return {
        "Pipeline.handle without stages, us": median[0],
        "Pipeline.handle with 8 stages, us": median[8],
        "pass-through stage, us": (median[64] - median[0]) / 64,
    }


def _per_call(work: Callable[[], object], rounds: int, count: int) -> float:
    spent = []
    for _ in range(rounds):
        start = time.process_time()
        for _ in range(count):
            work()
        spent.append((time.process_time() - start) / count * 1e6)
    return statistics.median(spent)


def _codec_costs(rounds: int, count: int) -> dict[str, float]:
    response = Response(17, Result({"content": [{"type": "text", "text": "hello, gateway"}]}))
    return {
        f"gate and decode a call of {len(CALL)} bytes, us": _per_call(lambda: decode_message(CALL), rounds, count),
        "encode a reply, us": _per_call(lambda: encode_message(response), rounds, count),
    }


def _command_cpu(*argv: str, rounds: int) -> float:
    """CPU seconds of a command beyond those of an empty interpreter; the cheapest run of either."""

    def once(*command: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *command], check=True, capture_output=True, cwd=ROOT)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    once(*argv)
    return min(once(*argv) for _ in range(rounds)) - min(once("-c", "pass") for _ in range(rounds))


def _start_costs() -> dict[str, float]:
    samples = [path for path in (ROOT / "configs").glob("*.yaml") if not path.stem.endswith("_test")]
    largest = max(samples, key=lambda path: path.stat().st_size)
    return {
        "import of the CLI, CPU s": _command_cpu("-c", "import sluiceway.pipeline.cli", rounds=5),
        "the CLI parsing its arguments, CPU s": _command_cpu(
            "-c", "from sluiceway.pipeline.cli import main; main(['--version'])", rounds=5
        ),
        "check of the largest sample, CPU s": _command_cpu(
            "-c", f"from sluiceway.pipeline.cli import main; main(['check', {str(largest)!r}])", rounds=5
        ),
        **_serving_costs(),
    }


def _serving_costs() -> dict[str, float]:
    """Start the quickstart on a free port, wait until it says ready, read its memory, stop it."""
    config = ROOT / "bench" / "idle.yaml"
    start = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-c", "from sluiceway.pipeline.cli import main; main()", "run", str(config)],
        stderr=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, "NO_COLOR": "1"},
    )  # fmt: skip
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if "gateway ready" in line:
                break
        else:
            raise RuntimeError("the gateway did not become ready")
        ready = time.monotonic() - start
        pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
        return {"ready, wall s": ready, "idle RSS, MiB": pages * resource.getpagesize() / 2**20}
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        process.stderr.close()


def main() -> int:
    """Measure everything, print a table, and write it as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--count", type=int, default=5000)
    options = parser.parse_args()
    figures = {
        **_start_costs(),
        **trio.run(_handle_costs, options.rounds, options.count),
        **_codec_costs(options.rounds, options.count),
    }
    return report(figures, BOUNDS, options.json)


if __name__ == "__main__":
    sys.exit(main())
