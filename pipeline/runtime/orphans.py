"""
Orphans: what a server process started and did not wait for comes to the gateway instead of to init, and is reaped.

A server that is watched has a shim that does this (transports/shim.py). Here it is for those that are not, and for
embedded servers: without it, their orphans would escape, and where the gateway is the first process of a container,
each would stay a zombie for ever. Linux only (PR_SET_CHILD_SUBREAPER); elsewhere there is nothing to do.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

import trio

_PR_SET_CHILD_SUBREAPER: Final = 36
_PR_GET_CHILD_SUBREAPER: Final = 37
REST_S: Final = 1.0
"""Seconds between two looks for zombies, however many processes end."""


@contextmanager
def adopt_orphans() -> Iterator[bool]:
    """Have orphans come to this process while the block runs; yields whether they do."""
    if sys.platform != "linux":
        yield False
        return
    prctl = ctypes.CDLL(None).prctl
    before = ctypes.c_int(0)
    prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(before), 0, 0, 0)
    adopted = prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0  # a sandbox may forbid it
    try:
        yield adopted
    finally:
        prctl(_PR_SET_CHILD_SUBREAPER, before.value, 0, 0, 0)


async def reap_orphans() -> None:
    """Reap adopted processes as they end, until cancelled."""
    with trio.open_signal_receiver(signal.SIGCHLD) as deaths:
        async for _ in deaths:
            await trio.to_thread.run_sync(reap_adopted)  # looks at every process of the machine
            await trio.sleep(REST_S)  # what ends meanwhile is one more signal


def reap_adopted() -> int:
    """
    Reap the zombies among our children that somebody else had started; returns how many.

    Our own must be left to who waits for them. They are in our session, or lead one (`start_new_session`); what was
    adopted is in the session of the server that it came from, or of a parent that is gone.
    """
    reaped = 0
    for pid in _adopted_zombies():
        with suppress(ChildProcessError):
            reaped += os.waitpid(pid, os.WNOHANG)[0] == pid
    return reaped


def _adopted_zombies() -> Iterator[int]:
    ours, session = os.getpid(), os.getsid(0)
    try:
        names = os.listdir("/proc")
    except OSError:
        return
    for name in filter(str.isdigit, names):
        with suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
            # pid (name) state ppid pgrp session ..., and a name may hold anything
            state, parent, _, its_session = file.read().rpartition(b")")[2].split()[:4]
            if state == b"Z" and int(parent) == ours and int(its_session) not in (session, int(name)):
                yield int(name)
