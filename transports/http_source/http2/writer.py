"""The task that writes: whatever has come together, in one go, and no more than the client reads."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, final

import trio

from .wire import Wire

GONE = (trio.BrokenResourceError, trio.ClosedResourceError)
"""How a stream says that the client left."""


@final
class Writer:
    """
    From a wire to its socket.

    Args:
        wire: What is to be written.
        stream: Where to. Closed if the client does not read.
        stall_s: Seconds it may leave unread what is written at a time.
    """

    def __init__(self, wire: Wire, stream: Any, stall_s: float) -> None:
        self._wire = wire
        self._stream = stream
        self._stall_s = stall_s
        self._work = trio.Event()
        self._taken = trio.Event()
        self._ended = trio.Event()

    def wake(self) -> None:
        """There is something to write, or nothing will be any more."""
        self._work.set()

    async def until_taken(self) -> None:
        """Wait until the socket gets what waits for it."""
        await self._taken.wait()

    async def until_ended(self) -> None:
        """Wait until nothing is written any more, be it that all is or that the client is gone."""
        await self._ended.wait()

    async def run(self, complete: Callable[[], bool], ended: Callable[[], None]) -> None:
        """
        Write, to the end.

        Args:
            complete: Whether nothing more will come.
            ended: Called before whoever waits here is let go.
        """
        with suppress(*GONE):
            await self._write(complete)
        ended()
        self._taken.set()
        self._ended.set()

    async def _write(self, complete: Callable[[], bool]) -> None:
        while True:
            if self._wire.pending:
                data = self._wire.take()
                self._taken.set()
                self._taken = trio.Event()
                with trio.CancelScope(deadline=trio.current_time() + self._stall_s) as patience:
                    await self._stream.send_all(data)
                if patience.cancelled_caught:
                    await trio.aclose_forcefully(self._stream)
                    return
            elif complete():
                await self._stream.send_eof()
                return
            else:
                self._work = trio.Event()
                await self._work.wait()
