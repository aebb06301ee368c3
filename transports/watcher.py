"""
What stands in for the reactor where there is no epoll: a task of the system for each wire that wants to be called.

Trio tells of states and not of edges, so after a call the task waits until somebody has read all there was. The end of
a connection is therefore not seen behind bytes that nobody reads.
"""

from __future__ import annotations

from typing import final

import trio

from .containment import Containment
from .reactor import IN, Ready


@final
class Watcher:
    """
    Calls a wire whenever there is something to read, until `end`.

    Args:
        number: Descriptor of the socket.
        wire: Closed, if its call raises.
    """

    def __init__(self, number: int, wire: Ready) -> None:
        self._number = number
        self._wire = wire
        self._scope = trio.CancelScope()
        self._emptied = trio.Event()
        trio.lowlevel.spawn_system_task(self._watch)

    def rearm(self) -> None:
        """There is nothing left to be read: call again when there is."""
        self._emptied.set()

    def end(self) -> None:
        """Call no more. Never blocks."""
        self._scope.cancel()

    async def _watch(self) -> None:
        with self._scope:
            while True:
                await trio.lowlevel.wait_readable(self._number)
                self._emptied = trio.Event()
                try:
                    self._wire.edge(IN)
                except Exception as error:  # a boundary: a bug in one wire's callback ends that wire
                    import structlog  # see reactor.py

                    Containment(structlog.get_logger()).take(error)
                    self._wire.close()
                await self._emptied.wait()
