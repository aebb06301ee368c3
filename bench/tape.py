"""
What a recording costs: CPU per request on the path of calls and beside it, and memory in the length of a tape; and what
it costs to replay it.

The path is measured with the thread that writes taken away: what it spends is the difference to the whole. Rounds with
and without a recorder are interleaved; figures are medians. Run it with `python bench/tape.py`; bounds are those of the
project, a figure over its bound is marked, and the exit code says so.
"""

from __future__ import annotations

import argparse
import gc
import resource
import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

import trio
import trio.testing
from figures import report

from sluiceway.pipeline.config import from_data
from sluiceway.pipeline.model.component import ComponentKind, Context, Sink
from sluiceway.pipeline.model.document import Record
from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.options import ConfigPath
from sluiceway.pipeline.model.session import Client
from sluiceway.pipeline.protocol.codec import decode_message
from sluiceway.pipeline.protocol.mcp import Era
from sluiceway.pipeline.protocol.messages import Notification, Reply, Request, Result
from sluiceway.pipeline.replay.assembly import exchanges
from sluiceway.pipeline.replay.comparing import Comparison
from sluiceway.pipeline.replay.entries import Ended, Entry
from sluiceway.pipeline.replay.playing import play
from sluiceway.pipeline.replay.reading import Tape
from sluiceway.pipeline.replay.recorder import Recorder
from sluiceway.pipeline.replay.recording import open_recorder
from sluiceway.pipeline.runtime.engine import Engine
from sluiceway.pipeline.telemetry.log import configure_logging
from sluiceway.pipeline.testing import FakeSource

CONFIG = {
    "version": 1,
    "sources": {"public": {"stdio": {}}},
    "pipelines": {"main": {"chain": ["request_id", {"rate_limit": {"rate": "1000000/s", "burst": 1000000}}]}},
    "sinks": {"demo": {"embedded": {"server": "demo"}}},
}
CALL = (
    b'{"jsonrpc":"2.0","id":17,"method":"tools/call","params":{"name":"echo","arguments":{"text":"hello, gateway",'
    b'"times":3},"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}'
)
ANSWER = b'{"content":[{"type":"text","text":"hello, gateway"}]}'
CLIENT = Client(
    era=Era.MODERN,
    version="2026-07-28",
    transport="http",
    headers={"host": "a.example", "user-agent": "client/1.0", "authorization": "Bearer abc", "accept": "*/*"},
)
GROWTH = "second half of 100,000 requests, growth, MiB"
REPLAY_GROWTH = "replaying them, second half, growth, MiB"
DIFFERENT = "different of them in a replay"
BOUNDS = {"on the path, us per request": 15.0, GROWTH: 5.0, "reading them, growth, MiB": 5.0, "missing of them": 0.0,
    REPLAY_GROWTH: 5.0, DIFFERENT: 0.0,
}  # fmt: skip


async def _emit(_notification: Notification) -> None:
    """Nothing is relayed."""


class _Answers(Sink):
    """Answers, and remembers nothing."""

    async def __call__(self, exchange: Exchange) -> Reply:
        return Result(raw=ANSWER)


async def _gateway(
    stack: AsyncExitStack, tape: Path | None, *, stages: bool = False
) -> tuple[FakeSource, Recorder | None]:
    source = FakeSource()
    overrides = {
        (ComponentKind.SOURCE, "public"): source,
        (ComponentKind.SINK, "demo"): _Answers(None, Context(id="sinks.demo")),
    }
    recorder = None
    if tape is not None:
        options = Record(folder=ConfigPath(tape.parent), stages=stages, min_free=0)
        recorder = await stack.enter_async_context(open_recorder(tape, options))
    engine = Engine(from_data(CONFIG), overrides=overrides, edges=recorder)
    await stack.enter_async_context(engine.running())
    await trio.testing.wait_all_tasks_blocked()
    return source, recorder


async def _spend(source: FakeSource, count: int) -> tuple[float, float]:
    """CPU of this thread and of the process per request, in microseconds; what is written behind counts, too."""
    messages = [decode_message(CALL) for _ in range(count)]
    gc.collect()
    thread, process = time.thread_time(), time.process_time()
    for message in messages:
        assert isinstance(message, Request)
        await source.handle(message, client=CLIENT, emit=_emit).run()
    spent = time.thread_time() - thread
    await trio.sleep(0.4)
    return spent / count * 1e6, (time.process_time() - process) / count * 1e6


async def overhead(folder: Path, rounds: int, count: int) -> dict[str, float]:
    """Figures of a request."""
    path: list[float] = []
    all_: list[float] = []
    stages: list[float] = []
    async with AsyncExitStack() as stack:
        bare, _ = await _gateway(stack, None)
        taped, _ = await _gateway(stack, folder / "a.jsonl")
        staged, _ = await _gateway(stack, folder / "b.jsonl", stages=True)
        for source in (bare, taped, staged):
            await _spend(source, 200)
        for _ in range(rounds):
            without = await _spend(bare, count)
            with_tape = await _spend(taped, count)
            with_stages = await _spend(staged, count)
            path.append(with_tape[0] - without[0])
            all_.append(with_tape[1] - without[1])
            stages.append(with_stages[0] - without[0])
    return {
        "on the path, us per request": statistics.median(path),
        "altogether, us per request": statistics.median(all_),
        "on the path with two stages, us per request": statistics.median(stages),
    }


def _peak_mib() -> float:
    """The most that this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


async def memory(folder: Path, count: int) -> dict[str, float]:
    """What a long recording holds, at its middle and at its end, and what it takes to read it."""
    tape = folder / "long.jsonl"
    peaks: list[float] = []
    message = decode_message(CALL)
    assert isinstance(message, Request)
    async with AsyncExitStack() as stack:
        source, recorder = await _gateway(stack, tape)
        assert recorder is not None
        for _ in range(2):
            for number in range(count // 2):
                await source.handle(message, client=CLIENT, emit=_emit).run()
                while number % 100 == 0 and recorder.scribe.waiting > 1 << 20:  # noqa: ASYNC110  # nobody else waits
                    await trio.sleep(0.01)
            peaks.append(_peak_mib())
        lost = recorder.scribe.lost
    size = sum(part.stat().st_size for _, part in Tape(tape).parts)
    start = time.process_time()
    read = sum(1 for exchange in exchanges(Tape(tape).entries()) if exchange.is_whole)
    spent = time.process_time() - start
    return {
        GROWTH: peaks[1] - peaks[0],
        "reading them, growth, MiB": _peak_mib() - peaks[1],
        "missing of them": float(count - read + lost),
        "bytes of tape per request": size / count,
        "reading, us per request": spent / count * 1e6,
    }


def _rss_mib() -> float:
    """What this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / (1 << 20)


def replaying(folder: Path, count: int) -> dict[str, float]:
    """Time and memory of a replay of the long tape, compared with it exchange by exchange."""
    tape, comparison = Tape(folder / "long.jsonl"), Comparison()
    ended, held = 0, [0.0, 0.0]

    def see(entry: Entry) -> None:
        nonlocal ended
        comparison.see(entry)
        if isinstance(entry, Ended):
            ended += 1
            if ended == count // 2:
                held[0] = _rss_mib()
            elif ended == count - 1:
                held[1] = _rss_mib()

    start = time.process_time()
    play(tape, from_data(CONFIG), see, hear=comparison.hear)
    spent = time.process_time() - start
    comparison.finish()
    return {
        "replaying them, us per request": spent / count * 1e6,
        REPLAY_GROWTH: held[1] - held[0],
        DIFFERENT: float(comparison.count),
    }


def main() -> int:
    """Measure, print, compare with the bounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    configure_logging("error", "json")
    with tempfile.TemporaryDirectory() as folder:
        figures = trio.run(overhead, Path(folder), given.rounds, given.count)
        figures |= trio.run(memory, Path(folder), given.requests)
        figures |= replaying(Path(folder), given.requests)
    return report(figures, BOUNDS, given.json)


if __name__ == "__main__":
    sys.exit(main())
