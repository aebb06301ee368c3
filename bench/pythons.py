"""
The same gateway on several interpreters: CPU of a call on each, asked in turn, and instructions where valgrind is.

    make PYTHON=/usr/bin/python3.11 VENV=.venv-debian setup
    python bench/pythons.py .venv/bin/python .venv-debian/bin/python --json bench/results/pythons.json

Each interpreter is one of an environment with the gateway in it. Gateways are pinned to CPU 0, load and upstream to
CPU 1; figures are medians of rounds in which every gateway is asked in turn.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from figures import about_machine
from steady import configuration, gateway, upstream

HERE = Path(__file__).resolve().parent
START = ["-c", "from sluiceway.pipeline.cli import main; main()", "run"]
CHAINS = ("full", "bare")
WARM, CALLS = 3_000, 2_000


def built(python: str) -> str:
    """Version and build, as that interpreter tells them."""
    told = [python, "-c", "import figures; print(figures.about_machine()['python'])"]
    return subprocess.run(told, cwd=HERE, capture_output=True, text=True, check=True).stdout.strip()


def cpu_us(pythons: list[str], rounds: int) -> dict[tuple[str, str], float]:
    """Of a call on each interpreter through each chain."""
    spent: dict[tuple[str, str], list[float]] = {}
    with ExitStack() as stack:
        port, up = stack.enter_context(upstream()), {}
        for python in pythons:
            for chain in CHAINS:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                command = ["taskset", "-c", "0", python, *START]
                found = stack.enter_context(gateway(command, configuration(chain, port), folder))
                load = found.load(found.request(chain, "modern"), 16)
                stack.callback(load.close)
                load.call(WARM)
                up[python, chain] = ((~found.process.pid << 3) | 2, load)  # the clock of its time on a processor
        for _ in range(rounds):
            for key, (clock, load) in up.items():
                before = time.clock_gettime(clock)
                load.call(CALLS)
                spent.setdefault(key, []).append((time.clock_gettime(clock) - before) / CALLS * 1e6)
    return {key: statistics.median(costs) for key, costs in spent.items()}


def instructions(python: str, chain: str) -> float | None:
    """Of a call; None if there is no valgrind."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "told"
        done = subprocess.run(
            [python, str(HERE / "instructions.py"), f"{chain}-modern", "--json", str(path)], stdout=subprocess.DEVNULL
        )
        return next(iter(json.loads(path.read_text())["figures"].values())) if done.returncode == 0 else None


def main() -> int:
    """Measure, print, and write it as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("pythons", nargs="+", metavar="PYTHON", type=os.path.abspath)
    options = parser.parse_args()
    os.sched_setaffinity(0, {1})
    spent, rows = cpu_us(options.pythons, options.rounds), []
    for python in options.pythons:
        row: dict[str, str | float] = {"python": built(python)}
        for chain in CHAINS:
            row[f"{chain} us"] = round(spent[python, chain])
            counted = instructions(python, chain)
            if counted is not None:
                row[f"{chain} instructions"] = round(counted)
        rows.append(row)
        print(row)
    if options.json is not None:
        options.json.write_text(json.dumps({"machine": about_machine(), "rows": rows}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
