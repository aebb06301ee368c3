"""
A gateway that is killed loses no record that it had acknowledged (goal R10, case 39).

A child sends calls through the stage and prints the number of each that came back; it is killed at a moment that the
seed chooses; then everything it had printed must be in the trail, in a chain that is whole but for one torn last line.
`SLUICEWAY_CRASH_ROUNDS=200` makes it the run that the goal names.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sluiceway.pipeline.telemetry.audit_reading import lines_of, verify_trail

ROUNDS = int(os.environ.get("SLUICEWAY_CRASH_ROUNDS", "20"))
"""Kills, over all kinds of trails; each trail is killed again and again."""

CHILD = """
import os, sys
from pathlib import Path
import structlog, trio
from sluiceway.middlewares.audit.config import AuditConfig
from sluiceway.middlewares.audit.stage import Audit
from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.protocol.messages import Result
from sluiceway.pipeline.testing import memory_exchange

path, to, sync, first = sys.argv[1:]
structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))

async def answer(exchange):
    return Result()

async def call(stage, number):
    while True:
        await stage(memory_exchange("tools/call", {"name": str(number)}), answer)
        os.write(1, b"%d\\n" % number)
        number += 16

async def main():
    stage = Audit(AuditConfig(path=Path(path), to=to, sync=sync, max_file_size=65536), Context(id="audit"))
    async with stage.open(), trio.open_nursery() as nursery:
        for n in range(16):
            nursery.start_soon(call, stage, int(first) + n)

trio.run(main)
"""


def _crash(path: Path, to: str, sync: str, first: int, rng: random.Random) -> list[int]:
    """Run a child, kill it somewhere; the numbers it had acknowledged."""
    command = [sys.executable, "-c", CHILD, str(path), to, sync, str(first)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        printed = b"".join(child.stdout.readline() for _ in range(rng.randrange(1, 400)))
        child.send_signal(signal.SIGKILL)
        printed += child.stdout.read()
        assert child.stderr is not None
        said = child.stderr.read()
        assert child.wait() == -signal.SIGKILL, said
    return [int(line) for line in printed.split(b"\n")[:-1]]


@pytest.mark.timeout(60 + 5 * ROUNDS)
@pytest.mark.parametrize(("to", "sync"), [("jsonl", "batch"), ("jsonl", "always"), ("sqlite", "batch")])
def test_what_was_acknowledged_is_in_the_trail_after_a_kill(to, sync, tmp_path):
    """Round after round on one trail, which the next child repairs and goes on with."""
    rng = random.Random(f"{to} {sync}")
    path = tmp_path / f"audit.{to}"
    for number in range(max(1, ROUNDS // 3)):
        first = number * 1_000_000
        acknowledged = _crash(path, to, sync, first, rng)

        lines = list(lines_of(path))
        torn = [line for line in lines if not line.endswith(b"\n")]
        stored = {int(entry["resource"]) for line in lines[: len(lines) - len(torn)]
                  if (entry := json.loads(line))["event"] == "request"}  # fmt: skip
        assert set(acknowledged) <= stored, f"round {number}"
        assert len(torn) <= 1
        findings = verify_trail(path).findings
        assert [each.text for each in findings if "not complete" not in each.text] == []
        assert len(findings) == len(torn)
