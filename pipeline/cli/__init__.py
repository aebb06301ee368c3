"""The command line. `main` is the only name others use; each verb is a module that is imported when it is typed."""

from __future__ import annotations

from collections.abc import Sequence

from .exits import Exit


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run one command.

    Args:
        arguments: What follows the command's name; the process's own arguments when None.

    Returns:
        The exit code; see `Exit`.
    """
    from .app import run_command

    try:
        return run_command(arguments)
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except BaseExceptionGroup as group:  # Trio raises an interrupt where it strikes, which may be inside a nursery
        interrupts, rest = group.split(KeyboardInterrupt)
        if interrupts is None or rest is not None:
            raise
        return Exit.INTERRUPTED
