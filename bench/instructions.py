"""
Machine instructions of one call through a gateway, as valgrind counts them: C as well as Python, without the kernel.

    python bench/instructions.py --json bench/results/instructions.json [full-modern ...]

They repeat within some per cent, and tell what bytecodes do not: what is done in C. Needs Debian's package valgrind.
The load is that of bytecodes.py, and so are the cases; a case takes half a minute.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from contextlib import closing
from pathlib import Path

from bytecodes import BOUNDS, WARM
from counters import under_valgrind
from figures import report
from steady import configuration, gateway, upstream

CALLS = 320


def count(case: str, connections: int) -> float:
    """
    Instructions of a call, as the mean of so many.

    Raises:
        OSError: There is no valgrind here.
    """
    chain, _, era = case.rpartition("-")
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "callgrind"
        counter = str(Path(__file__).resolve().parent / "instruction_counter.py")
        command = under_valgrind(out, [sys.executable, counter, str(out), "run"])
        with (
            upstream() as port,
            gateway(command, configuration(chain, port), Path(name)) as found,
            closing(found.load(found.request(chain, era), connections)) as load,
        ):
            told = found.process.stdout
            assert told is not None
            load.call(WARM)
            found.process.send_signal(signal.SIGUSR1)
            told.readline()
            load.call(CALLS)
            found.process.send_signal(signal.SIGUSR1)
            return int(told.readline()) / CALLS


def main() -> int:
    """Count, print, and write it as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"some of {', '.join(BOUNDS)}; all without")
    options = parser.parse_args()
    figures = {}
    try:
        for case in options.cases or BOUNDS:
            figures[f"{case}, {options.connections}: instructions"] = count(case, options.connections)
    except OSError as error:
        print(f"no instruction counts: {error}")
        return 1
    return report(figures, {}, options.json)


if __name__ == "__main__":
    sys.exit(main())
