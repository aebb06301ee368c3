"""How the command ends. Imports nothing of ours: every verb pays for what stands here."""

from __future__ import annotations

from enum import IntEnum
from typing import final


class Exit(IntEnum):
    """Exit codes; the same for every verb."""

    OK = 0
    FOUND = 1
    """There are findings, or what was asked for failed."""
    USAGE = 2
    """The command line itself is wrong."""
    NOT_STARTED = 3
    CRASHED = 4
    INTERRUPTED = 130


@final
class Failure(Exception):
    """Ends the command with a message on stderr and an exit code."""

    def __init__(self, message: str, code: Exit = Exit.FOUND) -> None:
        super().__init__(message)
        self.code = code
        """What the process returns."""


def usage(message: str) -> Failure:
    """A failure of the command line itself."""
    return Failure(message, Exit.USAGE)
