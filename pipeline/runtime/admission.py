"""
How many exchanges may be inside a pipeline, and who waits.

Full means refused at once, with a hint when to come back; a bounded waiting room can be configured. LISTEN exchanges
have a pool of their own, or a few subscribers would eat the capacity for requests (architecture 1.9).
"""

from __future__ import annotations

from collections import deque
from typing import final

import trio

from ..model.document import Limits
from ..protocol.errors import CapacityExceeded
from ..protocol.mcp import Kind


@final
class Admission:
    """Places in one pipeline. Every successful `enter` is paired with one `leave` of the same kind."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._queue: deque[trio.Event] = deque()
        self.in_flight = 0
        """Exchanges inside, LISTEN ones not counted."""
        self.listeners = 0
        """LISTEN exchanges inside."""
        self.admitted = 0
        """Exchanges that were let in so far."""

    @property
    def waiting(self) -> int:
        """Exchanges in the waiting room."""
        return len(self._queue)

    def enter_nowait(self, kind: Kind) -> bool:
        """Take a place if one is free and nobody waits for it."""
        if kind is Kind.LISTEN:
            if self.listeners >= self._limits.max_listeners:
                raise CapacityExceeded(f"max_listeners is {self._limits.max_listeners}; raise it or end a subscription")
            self.listeners += 1
            self.admitted += 1
            return True
        if self.in_flight < self._limits.max_in_flight and not self._queue:
            self.in_flight += 1
            self.admitted += 1
            return True
        return False

    async def enter(self) -> None:
        """
        Wait for a place, first come first served; for everything but LISTEN.

        Raises:
            CapacityExceeded: The waiting room is full, or `wait_at_most` passed.
        """
        limits = self._limits
        if len(self._queue) >= limits.max_waiting:
            raise CapacityExceeded(
                f"{limits.max_in_flight} exchanges in flight and {limits.max_waiting} waiting; "
                "raise max_in_flight or max_waiting, or send less",
                retry_after_s=limits.wait_at_most,
            )
        granted = trio.Event()
        self._queue.append(granted)
        entered = False
        try:
            with trio.move_on_after(limits.wait_at_most):
                await granted.wait()
                entered = True
        finally:
            if not entered and not granted.is_set():
                self._queue.remove(granted)
            elif not entered:
                self.leave(Kind.CALL)
        if not entered:
            raise CapacityExceeded(
                f"no place became free within {limits.wait_at_most:g} s (max_in_flight is {limits.max_in_flight})",
                retry_after_s=limits.wait_at_most,
            )
        self.admitted += 1

    def leave(self, kind: Kind) -> None:
        """Give a place back, or on to whoever waits longest."""
        if kind is Kind.LISTEN:
            self.listeners -= 1
        elif self._queue:
            self._queue.popleft().set()
        else:
            self.in_flight -= 1
