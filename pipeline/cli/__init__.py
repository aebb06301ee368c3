"""The command line. `main` is the only name others use; each verb is a module that is imported when it is typed."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from .exits import Exit
from .readiness import importing


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run one command.

    Args:
        arguments: What follows the command's name; the process's own arguments when None.

    Returns:
        The exit code; see `Exit`.
    """
    with importing():
        from .app import run_command

    _open_missing_streams()
    try:
        return run_command(arguments)
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except BaseExceptionGroup as group:  # Trio raises an interrupt where it strikes, which may be inside a nursery
        interrupts, rest = group.split(KeyboardInterrupt)
        if interrupts is None or rest is not None:
            raise
        return Exit.INTERRUPTED


def _open_missing_streams() -> None:
    """
    Open the standard streams that whoever started us closed, on the null device.

    Python has None in their place, and the next socket or file would get their descriptor, and with it whatever is
    written there.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115  # lives on
