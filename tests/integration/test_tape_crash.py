"""
A recorder that is killed leaves a tape that opens, ends at a whole line and says what is missing.

A helper forks gateways that record as fast as they can, in small parts, plain or compressed, and kills each at a moment
that the seed chooses. `SLUICEWAY_CRASH_ROUNDS=200` makes it the run that the goal names; it takes a minute.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sluiceway.pipeline.replay.assembly import exchanges
from sluiceway.pipeline.replay.entries import Begun, Ended, Header
from sluiceway.pipeline.replay.reading import Tape

ROUNDS = int(os.environ.get("SLUICEWAY_CRASH_ROUNDS", "20"))
"""Kills, over both kinds of tapes."""
GRACE_S = 1.0
"""What was served this long before the kill must be on the tape."""
PATIENT = 10
"""One round of so many looks at that."""

HELPER = """
import os, signal, sys, time
from pathlib import Path
import structlog, trio
from sluiceway.pipeline.config import from_data
from sluiceway.pipeline.model.component import ComponentKind
from sluiceway.pipeline.model.document import Record
from sluiceway.pipeline.protocol.messages import Request
from sluiceway.pipeline.replay.recording import open_recorder
from sluiceway.pipeline.runtime.engine import Engine
from sluiceway.pipeline.testing import FakeSink, FakeSource
from sluiceway.pipeline.testing.exchanges import MODERN_CLIENT

structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
DATA = {
    "version": 1, "sources": {"in": {"stdio": {}}}, "pipelines": {"main": {"chain": ["request_id"], "sink": "up"}},
    "sinks": {"up": {"embedded": {}}},
}

async def drop(notification):
    pass

async def main(path, progress):
    source = FakeSource()
    overrides = {(ComponentKind.SOURCE, "in"): source, (ComponentKind.SINK, "up"): FakeSink.echo()}
    options = Record(folder=path.parent, part_size=200_000, keep_size=600_000, min_free=0)
    async with open_recorder(path, options) as recorder:
        async with Engine(from_data(DATA), overrides=overrides, edges=recorder).running():
            await trio.sleep(0.01)
            number = 0
            while True:
                number += 1
                request = Request(number, "tools/call", {"name": "echo", "arguments": {"text": "x" * (number % 400)}})
                await source.handle(request, client=MODERN_CLIENT, emit=drop).run()
                os.pwrite(progress, number.to_bytes(8, "big"), 0)
                if number % 20 == 0:
                    await trio.sleep(0.004)

for line in sys.stdin:
    path, seconds, patience = line.split()
    progress = os.open(path + ".progress", os.O_RDWR | os.O_CREAT)
    child = os.fork()
    if child == 0:
        trio.run(main, Path(path), progress)
    time.sleep(float(seconds))
    served = int.from_bytes(os.pread(progress, 8, 0), "big")
    time.sleep(float(patience))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(progress)
    print(served, flush=True)
"""


@contextmanager
def _helper() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HELPER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as helper:
        yield helper
        assert helper.stdin is not None
        helper.stdin.close()
        assert helper.wait() == 0


def _killed(helper: subprocess.Popen[str], path: Path, seconds: float, patience: float) -> int:
    """Record to a path, and be killed after some seconds; what had been served `patience` before."""
    assert helper.stdin is not None
    assert helper.stdout is not None
    helper.stdin.write(f"{path} {seconds} {patience}\n")
    helper.stdin.flush()
    return int(helper.stdout.readline())


@pytest.mark.timeout(60 + 2 * ROUNDS)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_tape_of_a_killed_recorder_opens_and_says_what_is_missing(suffix, tmp_path):
    """Round after round; nothing but the end is missing, and what was dropped for want of room."""
    rng = random.Random(f"tape{suffix}")
    with _helper() as helper:
        for number in range(max(2, ROUNDS // 2)):
            path = tmp_path / f"{number}.jsonl{suffix}"
            patience = GRACE_S if number % PATIENT == 1 else 0.0
            served = _killed(helper, path, rng.uniform(0.02, 0.35), patience)
            if not any(tmp_path.glob(f"{number}.jsonl{suffix}*[!s]")):
                continue  # it was killed before the tape was made
            _check(path, served if patience else 0)


def _opened(path: Path) -> Tape | None:
    """The tape; None if its recorder was killed between making the file and writing its header."""
    if path.exists() and path.stat().st_size == 0:
        return None
    return Tape(path)


def _check(path: Path, served: int) -> None:
    tape = _opened(path)
    if tape is None:
        return
    entries = list(tape.entries())
    whats = [finding.what for finding in tape.findings]
    begun = [entry.exchange for entry in entries if isinstance(entry, Begun)]
    ended = [entry.exchange for entry in entries if isinstance(entry, Ended)]

    assert isinstance(entries[0], Header)
    assert whats[-1] == "unfinished"
    assert set(whats[:-1]) <= {"cut", "dropped"}
    assert [entry.n for entry in entries] == list(range(tape.dropped + 1, tape.last + 1))
    assert begun == list(range(begun[0], begun[-1] + 1)) if begun else True
    assert sum(1 for exchange in exchanges(entries) if not exchange.is_whole) <= 2
    assert served == 0 or ended[-1] >= served
