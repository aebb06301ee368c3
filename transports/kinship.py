"""
Finding what a server left behind where nobody watches it (`lifetime: plain`): processes that carry its mark.

A daemon leaves its process group, its session and its parent, but it keeps its environment. A variable of our own with
an unguessable value marks a server's family; whoever throws its whole environment away gets away.
"""

from __future__ import annotations

import os
import secrets
import signal
from contextlib import suppress
from typing import Final

import trio

VARIABLE: Final = "SLUICEWAY_FAMILY"
"""Name of the variable that marks a server and what comes of it."""
_PAUSE_S: Final = 0.02


def new_mark() -> str:
    """A value that nobody else has; random, as it is no decision of a stage and must not be guessed."""
    return secrets.token_hex(16)


def family_of(mark: str) -> list[int]:
    """The living processes that carry a mark; none where there is no /proc to look them up in."""
    needle = f"{VARIABLE}={mark}".encode()
    try:
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []
    found = []
    for pid in pids:
        with suppress(OSError), open(f"/proc/{pid}/environ", "rb") as file:  # another user's, or gone
            if needle in file.read().split(b"\0"):
                found.append(pid)
    return found


async def end_family(mark: str) -> None:
    """
    Kill whoever carries a mark, again and again: they may be starting others at this very moment.

    Those that came to us as orphans are reaped (runtime/orphans.py); everybody's else are left to their parents.
    """
    ended: set[int] = set()
    while found := await trio.to_thread.run_sync(family_of, mark):  # looks at every process of the machine
        for pid in found:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        ended.update(found)
        await trio.sleep(_PAUSE_S)
    for pid in ended:
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)  # noqa: ASYNC222  # does not wait
