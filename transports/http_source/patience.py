"""How long calls wait for their answer before something is sent to keep their connection open: one timer for all."""

from __future__ import annotations

import math
from typing import Protocol, final

import trio

from sluiceway.pipeline.runtime.deadlines import SLOT_S, Deadlines


class Waiting(Protocol):
    """A call without an answer so far."""

    def hurry(self) -> None:
        """It has waited long enough."""


@final
class Patience:
    """
    Calls that wait, in the order they began to: all wait equally long, so only the first needs a timer.

    Args:
        deadlines: Serves it.
        seconds: How long each may wait.
    """

    def __init__(self, deadlines: Deadlines, seconds: float) -> None:
        self._deadlines = deadlines
        self._seconds = seconds
        self._due: dict[Waiting, float] = {}
        self._entry = deadlines.add(math.inf, self._look)
        self._armed = False

    def __len__(self) -> int:
        return len(self._due)

    def add(self, call: Waiting) -> None:
        """Hurry a call when its time has come. Take it out with `discard`, whatever happens."""
        due = self._due[call] = trio.current_time() + self._seconds
        if not self._armed:
            self._armed = True
            self._deadlines.move(self._entry, due)

    def discard(self, call: Waiting) -> None:
        """It waits no longer. Harmless if it was hurried."""
        self._due.pop(call, None)

    def _look(self) -> None:
        now = trio.current_time() + SLOT_S  # as exact as deadlines are
        late = []
        self._armed = False
        for call, due in self._due.items():
            if due > now:
                self._armed = True
                self._deadlines.move(self._entry, due)
                break
            late.append(call)
        for call in late:
            del self._due[call]
            call.hurry()
