"""
Reading and writing a connected socket, for those who do it for every message.

Trio's own methods try first and then reschedule, so that each call is a checkpoint: two passes of the scheduler for a
write that never waits, and a read that nearly always fails before it waits. Here a read waits first, and a write is no
checkpoint unless it must wait; whoever writes then reads, which is one. A socket has its number asked each time, for a
closed one has none, and its former number may be somebody else's.
"""

from __future__ import annotations

import os
from typing import Final

import trio

_GONE: Final = "the peer is gone"


async def receive_from(sock: trio.socket.SocketType, max_bytes: int) -> bytes:
    """
    What there is, at least one byte; empty at the end. Always a checkpoint.

    Raises:
        trio.ClosedResourceError: The socket was closed, perhaps meanwhile.
        trio.BrokenResourceError: The peer has reset the connection.
    """
    while True:
        await trio.lowlevel.wait_readable(_number(sock))
        try:
            return os.read(_number(sock), max_bytes)
        except BlockingIOError:
            continue
        except OSError as error:
            raise trio.BrokenResourceError(_GONE) from error


async def send_to(sock: trio.socket.SocketType, data: bytes) -> None:
    """
    Write all of it. A checkpoint only if it has to wait; one that is cancelled before writes nothing.

    Raises:
        trio.ClosedResourceError: The socket was closed, perhaps meanwhile.
        trio.BrokenResourceError: The peer is gone.
    """
    await trio.lowlevel.checkpoint_if_cancelled()
    rest: bytes | memoryview = data
    while True:
        try:
            sent = os.write(_number(sock), rest)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise trio.BrokenResourceError(_GONE) from error
        if sent == len(rest):
            return
        rest = memoryview(rest)[sent:]
        await trio.lowlevel.wait_writable(_number(sock))


def _number(sock: trio.socket.SocketType) -> int:
    number: int = sock.fileno()
    if number < 0:
        raise trio.ClosedResourceError("the socket is closed")
    return number
