"""
Accepting from sockets that other workers accept from, too.

The kernel wakes whoever waits, and the fastest takes the connection; over long-lived connections that is luck. So a
worker that has more of them than another one waits for a moment before it takes one, the longer the more it has: the
other, if it is awake, is first. If that one is busy or stuck, nobody is kept waiting for longer than the moment.
"""

from __future__ import annotations

import socket
from typing import Final, final

import trio

from sluiceway.pipeline.model.worker import Worker

HESITATION_S: Final = 0.001
"""For each connection that it has more than another worker."""
MAX_HESITATION_S: Final = 0.005


@final
class FairListener(trio.abc.Listener[trio.SocketStream]):
    """
    Args:
        opened: A listening socket that other processes have as well.
        worker: Knows how many connections each has.
    """

    def __init__(self, opened: socket.socket, worker: Worker) -> None:
        opened.setblocking(False)
        self._opened = opened
        self._worker = worker

    async def accept(self) -> trio.SocketStream:
        """
        The next connection that is ours.

        Raises:
            ClosedResourceError: The socket was closed.
            OSError: As of `accept(2)`.
        """
        while True:
            number = self._opened.fileno()
            if number < 0:
                raise trio.ClosedResourceError("the listening socket is closed")
            await trio.lowlevel.wait_readable(number)
            lead = self._worker.lead()
            if lead > 0:
                await trio.sleep(min(lead * HESITATION_S, MAX_HESITATION_S))
            try:
                accepted, _ = self._opened.accept()
            except BlockingIOError:
                continue  # another worker took it
            return trio.SocketStream(trio.socket.from_stdlib_socket(accepted))

    async def aclose(self) -> None:
        """Close the socket, in this process."""
        self._opened.close()
        await trio.lowlevel.checkpoint()
