"""
Memory of a gateway over a million calls: is it as large at the end as near the beginning?

    python bench/million.py --json bench/results/million.json [--calls 1000000]

The full chain, modern, over sixteen connections that stay (steady.py). Looked at is what belongs to the process alone
(private pages), after each tenth of the calls; the first tenth is for caches and arenas to fill.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import closing
from pathlib import Path

from figures import report
from idle import COMMAND, private_kib
from steady import configuration, gateway, upstream

PARTS = 10
BOUNDS = {"growth from the first tenth to the last, KiB": 1024.0}
"""Arenas of the allocator; a leak of one object of 64 bytes a call would be 56 MiB."""


def main() -> int:
    """Call, look, and say what came."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--era", choices=("modern", "legacy"), default="modern")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        upstream() as port,
        gateway(COMMAND, configuration("full", port), Path(folder)) as found,
        closing(found.load(found.request("full", options.era), 16)) as load,
    ):
        held = []
        for part in range(PARTS):
            load.call(options.calls // PARTS)
            held.append(private_kib(found.process.pid))
            print(f"{options.calls // PARTS * (part + 1):>12,} calls: {held[-1]:,} KiB", flush=True)
    figures = {
        "calls": float(options.calls),
        "after the first tenth, KiB": float(held[0]),
        "after the last, KiB": float(held[-1]),
        "growth from the first tenth to the last, KiB": float(max(held[1:]) - held[0]),
    }
    return report(figures, BOUNDS, options.json)


if __name__ == "__main__":
    sys.exit(main())
