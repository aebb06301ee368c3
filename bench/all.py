"""
Every bench that one process of this machine can do by itself, one after the other, and one table at the end.

    python bench/all.py [--json FOLDER] [--slack 1.5] [NAME ...]

Short forms: each bench has more to give when it is run alone. Figures with a bound are in the table; a figure that is
over its bound is named at the end, and the exit code says so. `--slack` widens bounds, for a machine that is busy or
slower than the project's own; a bound of nothing (none missing, none left behind) is never widened.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from attrs import frozen

HERE = Path(__file__).resolve().parent


@frozen
class Bench:
    """One of them, in its short form."""

    name: str
    options: Sequence[str] = ()
    tells: bool = True
    """Whether it writes figures; else only its exit code counts."""


BENCHES = (
    Bench("core", ("--rounds", "5", "--count", "3000")),
    Bench("stages", ("--rounds", "8", "--count", "500")),
    Bench("layers", ("--rounds", "5")),
    Bench("large"),
    Bench("http2"),
    Bench("claims"),
    Bench("audit", ("--rounds", "2")),
    Bench("tape", ("--rounds", "3", "--requests", "20000")),
    Bench("idle", ("--streams", "300", "--connections", "2000")),
    Bench("stalled"),
    Bench("oversize"),
    Bench("soak", ("--visits", "1500"), tells=False),
)


@frozen
class Line:
    """A line of the table."""

    bench: str
    figure: str
    value: float
    bound: float | None

    def is_over(self, slack: float) -> bool:
        """Whether it is more than it may be."""
        return self.bound is not None and self.value > self.bound * slack


def run(bench: Bench, folder: Path) -> Iterator[Line]:
    """Run one, with its own words on the terminal; what it found."""
    path = folder / f"{bench.name}.json"
    told = ["--json", str(path)] if bench.tells else []
    print(f"\n== {bench.name} {' '.join(bench.options)}", flush=True)
    began = time.monotonic()
    code = subprocess.run([sys.executable, str(HERE / f"{bench.name}.py"), *bench.options, *told]).returncode
    yield Line(bench.name, "seconds it took", time.monotonic() - began, None)
    kept = json.loads(path.read_text()) if path.exists() else {"figures": {}, "bounds": {}}
    lines = [Line(bench.name, name, value, kept["bounds"].get(name)) for name, value in kept["figures"].items()]
    yield from lines
    if not any(line.is_over(1) for line in lines):  # what has no figure to tell it by
        yield Line(bench.name, "failed", float(code != 0), 0.0)


def table(lines: Sequence[Line], slack: float) -> str:
    """Everything that has a bound."""
    shown = [f"{'':10}{'':58}{'':>12}{'bound':>12}"]
    for line in lines:
        if line.bound is not None:
            mark = "  OVER" if line.is_over(slack) else ""
            shown.append(f"{line.bench:10}{line.figure:58}{line.value:12,.2f}{line.bound:12,.2f}{mark}")
    return "\n".join(shown)


def main() -> int:
    """Run what was asked for; 1 if anything is over its bound."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--json", type=Path, metavar="FOLDER", help="keep the figures of each here")
    parser.add_argument("--slack", type=float, default=1.0, help="what bounds are multiplied with (default: 1)")
    parser.add_argument("only", nargs="*", help="which ones; all without")
    options = parser.parse_args()
    chosen = [bench for bench in BENCHES if not options.only or bench.name in options.only]
    with tempfile.TemporaryDirectory() as name:
        folder = options.json or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        lines = [line for bench in chosen for line in run(bench, folder)]
    print("\n" + table(lines, options.slack))
    over = [line for line in lines if line.is_over(options.slack)]
    for line in over:
        print(f"over: {line.bench}: {line.figure}: {line.value:.4g}, and {line.bound:g} is allowed")
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
