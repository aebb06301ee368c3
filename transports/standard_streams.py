"""
Our own standard input and output as Trio streams, and nobody else's while they are in use.

A stray `print`, or a library written in C, that wrote into the protocol's stream would break it. So the real streams
move to descriptors of their own; in their place, 0 reads as empty and 1 is where 2 goes: standard error.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import trio


@contextmanager
def standard_streams(
    stdin_fd: int = 0, stdout_fd: int = 1, stderr_fd: int = 2
) -> Iterator[tuple[trio.lowlevel.FdStream, trio.lowlevel.FdStream]]:
    """
    Take over standard input and output; both are as they were afterwards.

    Pipes, sockets, terminals and regular files all work: a file is always ready, so it never has to be waited for.

    Raises:
        OSError: One of the descriptors is not open.
    """
    if sys.stdout is not None:
        sys.stdout.flush()
    with ExitStack() as stack:
        reader = trio.lowlevel.FdStream(_duplicate(stdin_fd, os.O_RDONLY))
        stack.callback(reader.close)
        writer = trio.lowlevel.FdStream(_duplicate(stdout_fd, os.O_WRONLY))
        stack.callback(writer.close)
        nothing = os.open(os.devnull, os.O_RDONLY)
        try:
            stack.enter_context(_replaced(stdin_fd, nothing))
        finally:
            os.close(nothing)
        stack.enter_context(_replaced(stdout_fd, stderr_fd))
        yield reader, writer
        if sys.stdout is not None:
            sys.stdout.flush()


def _duplicate(fd: int, flags: int) -> int:
    """
    A descriptor of the same file.

    Non-blocking mode belongs to the open file, which the three standard streams of a terminal share: a terminal is
    opened anew, or logging to standard error would fail whenever the terminal is slow.
    """
    if os.isatty(fd):
        return os.open(os.ttyname(fd), flags | os.O_NOCTTY)
    return os.dup(fd)


@contextmanager
def _replaced(fd: int, by: int) -> Iterator[None]:
    """Let a descriptor mean another file for the length of the block."""
    saved = os.dup(fd)
    try:
        os.dup2(by, fd)
        yield
    finally:
        os.dup2(saved, fd)
        os.close(saved)
