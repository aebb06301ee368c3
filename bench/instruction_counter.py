"""
A gateway that has valgrind count its instructions while it is told to: the other side of instructions.py.

    valgrind --tool=callgrind ... python bench/instruction_counter.py OUT run CONFIG

On SIGUSR1 it begins, and writes `counting` to its standard output; on the next it stops, and writes the number.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from counters import Callgrind

if __name__ == "__main__":
    from sluiceway.pipeline.cli import main

    counter = Callgrind(Path(sys.argv.pop(1)))
    is_on = False

    def toggle(*_: object) -> None:
        """Begin, or stop and tell."""
        global is_on
        is_on = not is_on
        if is_on:
            counter.__enter__()
            print("counting", flush=True)
            counter.begin()
        else:
            print(counter.end(), flush=True)
            counter.__exit__(None, None, None)

    signal.signal(signal.SIGUSR1, toggle)
    main()
