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


class Admission:
    """Places in one pipeline, for everything but LISTEN. Every successful `enter` is paired with one `leave`."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._most: int = limits.max_in_flight
        self._queue: deque[trio.Event] = deque()
        self.admitted = 0
        """Exchanges that got a place so far."""
        self.left = 0
        """How many of them gave it back."""
        self.spent_s = 0.0
        """Seconds for which those were on their way; whoever has them leave adds to it."""

    @property
    def in_flight(self) -> int:
        """Exchanges inside."""
        return self.admitted - self.left

    @property
    def waiting(self) -> int:
        """Exchanges in the waiting room."""
        return len(self._queue)

    def enter_nowait(self) -> bool:
        """Take a place if one is free. Nobody waits for it then: a place that is left goes to whoever waits."""
        if self.admitted - self.left < self._most:
            self.admitted += 1
            return True
        return False

    async def enter(self) -> None:
        """
        Wait for a place, first come first served.

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
                self.admitted -= 1
                self._hand_on()
        if not entered:
            raise CapacityExceeded(
                f"no place became free within {limits.wait_at_most:g} s (max_in_flight is {limits.max_in_flight})",
                retry_after_s=limits.wait_at_most,
            )

    def leave(self) -> None:
        """Give a place back, or on to whoever waits longest."""
        self.left += 1
        if self._queue:
            self._hand_on()

    def _hand_on(self) -> None:
        """Give a place that has just become free to whoever waits longest, before anybody else can take it."""
        if self._queue:
            self.admitted += 1
            self._queue.popleft().set()


@final
class Listeners(Admission):
    """Places of a pipeline's LISTEN exchanges. Nobody waits for one."""

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self._most = limits.max_listeners

    async def enter(self) -> None:
        """
        Never waits, and is no checkpoint.

        Raises:
            CapacityExceeded: No place is free; else `enter_nowait` would have taken it.
        """
        raise CapacityExceeded(f"max_listeners is {self._most}; raise it or end a subscription")
