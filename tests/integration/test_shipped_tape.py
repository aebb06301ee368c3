"""
A tape of real traffic, shipped in `tests/data/tapes`: real clients of three SDKs at real servers, in both eras.

    SLUICEWAY_RECORD=1 pytest tests/integration/test_shipped_tape.py -k record

records it anew. The clients are those of `clients/`: each lists, calls, reads, cancels, is shown progress and is asked.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import trio

from sluiceway.pipeline.config import load
from sluiceway.pipeline.replay.entries import Begun, CallAsked, CancelAsked, Ended, Relayed
from sluiceway.pipeline.replay.reading import Tape
from sluiceway.pipeline.replay.replaying import replay

ROOT: Final = Path(__file__).resolve().parents[2]
TAPES: Final = ROOT / "tests" / "data" / "tapes"
TAPE: Final = TAPES / "real.jsonl.gz"
CONFIG: Final = TAPES / "real.yaml"
ROOM: Final = ROOT / ".node"
SCRIPTS: Final = Path(sys.executable).parent
CLIENT: Final = str(Path(__file__).with_name("clients") / "python_sdk.py")
EVERYTHING: Final = ROOM / "node_modules" / "@modelcontextprotocol" / "server-everything" / "dist" / "index.js"
ROUNDS: Final = 100
REPLAY: Final = """
import sys
from pathlib import Path
from sluiceway.pipeline.config import load
from sluiceway.pipeline.replay.reading import Tape
from sluiceway.pipeline.replay.replaying import replay
for _ in range(int(sys.argv[3])):
    found = replay(Tape(Path(sys.argv[1])), load(Path(sys.argv[2])))
    assert not found.comparison.count and not found.played.lacked, "\\n".join(found.lines())
"""
"""Replays a tape some times, in a process of its own."""


def test_the_tape_has_what_it_is_said_to_have() -> None:
    """Both eras, errors, progress, cancellations and questions to clients; nothing of it is missing."""
    tape, kinds, eras, errors = Tape(TAPE), Counter[type](), set[str](), 0

    for entry in tape.entries():
        kinds[type(entry)] += 1
        if isinstance(entry, Begun) and entry.client is not None:
            eras.add(entry.client.era)
        errors += isinstance(entry, Ended) and entry.reply is not None and entry.reply.error is not None

    assert tape.findings == []
    assert eras == {"legacy", "modern"}
    assert min(kinds[each] for each in (CallAsked, CancelAsked, Relayed)) > 0
    assert errors > 0


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", ["0", "1", "4711", "random"])
def test_it_replays_without_a_difference(seed: str) -> None:
    """A hundred times, in processes whose sets and dicts have other orders."""
    command = [sys.executable, "-c", REPLAY, str(TAPE), str(CONFIG), str(ROUNDS // 4)]

    done = subprocess.run(
        command, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stderr[-2000:]) == (0, "")


def test_another_limit_is_what_the_difference_says(tmp_path: Path) -> None:
    """With fewer calls allowed at once, what differs is that the limit refuses, and what follows from it."""
    tighter = tmp_path / "tighter.yaml"
    tighter.write_text(CONFIG.read_text(encoding="utf-8").replace("burst: 500", "burst: 5"), encoding="utf-8")

    found = replay(Tape(TAPE), load(tighter))

    firsts = Counter[str]()
    for changed in found.comparison.changed:
        decisions = [place for place in changed.places if place.path == "decisions"]
        firsts[str(decisions[0].after) if decisions else str(changed)] += 1
    assert found.comparison.count > 0
    assert {each for each in firsts if "rate_limit" not in each} == set()


@pytest.fixture
def environment(node: dict[str, str]) -> Iterator[dict[str, str]]:
    """What the configuration asks for. The folder is on the tape: its name says nothing of who recorded."""
    files = Path(tempfile.gettempdir()) / "shared-files"
    files.mkdir()
    try:
        servers = str(ROOT / "configs" / "servers")
        yield {**node, "PYTHON": sys.executable, "FILES": str(files), "SERVERS": servers}
    finally:
        shutil.rmtree(files)


@pytest.mark.real
@pytest.mark.timeout(300)
@pytest.mark.skipif(
    "SLUICEWAY_RECORD" not in os.environ, reason="records the shipped tape anew if SLUICEWAY_RECORD is set"
)
async def test_record(node_clients: Path, environment: dict[str, str], tmp_path: Path, programs: Any) -> None:
    """Three clients at four servers, recorded; the tape takes the place of the shipped one."""
    upstream, port, new = programs.free_port(), programs.free_port(), tmp_path / TAPE.name
    env = {
        **environment,
        "GATEWAY": f"127.0.0.1:{port}",
        "UPSTREAM_URL": f"http://127.0.0.1:{upstream}/mcp",
        "PORT": str(upstream),
    }
    clients: Mapping[str, list[str]] = {
        "sdk1": ["node", str(node_clients / "sdk1.mjs"), "legacy"],
        "client2": ["node", str(node_clients / "client2.mjs"), "auto"],
        "python": [sys.executable, CLIENT, "auto"],
    }
    gateway = [str(SCRIPTS / "sluiceway"), "record", str(CONFIG), "--to", str(new)]

    async def visit(label: str, command: list[str]) -> None:
        *client, mode = command
        line = [*client, f"http://127.0.0.1:{port}/mcp", mode, label, environment["FILES"]]
        done = await trio.run_process(line, capture_stdout=True, capture_stderr=True, check=False, env=env)
        assert done.returncode == 0, done.stderr.decode()[-2000:]

    async with (
        programs.run(["node", str(EVERYTHING), "streamableHttp"], upstream, log=tmp_path / "remote.log", env=env),
        programs.run(gateway, port, log=tmp_path / "gateway.log", env=env, cwd=ROOM),
    ):
        async with trio.open_nursery() as nursery:
            for label, command in clients.items():
                nursery.start_soon(visit, label, command)
        address = f"http://127.0.0.1:{port}/mcp"
        for era in ("legacy", "modern"):  # nobody has such a tool
            call = [str(SCRIPTS / "sluiceway"), "tools", "call", "--url", address, "--era", era, "files_of_nobody"]
            await trio.run_process(call, check=False, capture_stderr=True, env=env)

    TAPE.write_bytes(new.read_bytes())
