"""
A gateway that counts its own bytecodes while it is told to: the other side of bytecodes.py.

    python bench/bytecode_counter.py run CONFIG

On SIGUSR1 it begins, and writes `counting` to its standard output; on the next it stops, and writes one line of JSON:
for each function that was entered, its file, first line and name, the bytecodes executed in it, and how often it was
entered or resumed. A gateway that counts is some thirty times as slow.
"""

from __future__ import annotations

import json
import signal
import sys
from collections import Counter
from types import CodeType, FrameType
from typing import Any


class BytecodeCounter:
    """Counts what the interpreter executes in this thread, function by function."""

    def __init__(self) -> None:
        self._executed: Counter[CodeType] = Counter()
        self._entered: Counter[CodeType] = Counter()
        self._is_on = False

    def toggle(self, *_: object) -> None:
        """Begin, or stop and tell."""
        if not self._is_on:
            self._is_on = True
            print("counting", flush=True)
            sys.settrace(self._enter)
            return
        sys.settrace(None)
        self._is_on = False
        told = [
            (code.co_filename, code.co_firstlineno, code.co_qualname, count, self._entered[code])
            for code, count in self._executed.items()
        ]
        self._executed.clear()
        self._entered.clear()
        print(json.dumps(told), flush=True)

    def _enter(self, frame: FrameType, event: str, arg: Any) -> Any:
        frame.f_trace_lines = False
        frame.f_trace_opcodes = True
        self._entered[frame.f_code] += 1
        return self._step

    def _step(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event == "opcode":
            self._executed[frame.f_code] += 1
        return self._step


if __name__ == "__main__":
    from sluiceway.pipeline.cli import main

    signal.signal(signal.SIGUSR1, BytecodeCounter().toggle)
    main()
