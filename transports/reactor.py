"""
The epoll set of our own: every socket is registered once, and what happens on it is a plain call.

Trio arms a socket anew for each wait and wakes a task for each event. Here one task waits for the whole set (an epoll
descriptor is readable itself), takes what is ready, and calls each wire; then all other tasks have their turn. A set
exists as long as there are wires in it: the first starts it, and with the last one it ends.
"""

from __future__ import annotations

import select
from abc import abstractmethod
from typing import Final, Protocol, final

import trio

from .containment import Containment

MAX_BATCH: Final = 256
"""Wires that are called in a row before other tasks have their turn. Those behind are the first of the next batch."""


class Ready(Protocol):
    """What is registered, as the set sees it."""

    @abstractmethod
    def edge(self, events: int) -> None:
        """Something may have changed: `READABLE` or `WRITABLE` bits. Never blocks. Harmless when it is closed."""
        ...

    @abstractmethod
    def close(self) -> None:
        """Close, and take itself out of the set. Idempotent."""
        ...


HAS_EPOLL: Final = hasattr(select, "epoll")
"""Whether there can be a reactor at all; Linux has epoll, and other systems have not."""

# The bits of epoll_ctl(2), which are the same everywhere on Linux; elsewhere `select` does not name them.
IN: Final = 0x1
"""There is something to read."""
_PRI, _OUT, _ERR, _HUP, _RDHUP, _EDGES = 0x2, 0x4, 0x8, 0x10, 0x2000, 1 << 31
ENDING: Final = _RDHUP | _HUP | _ERR
"""The peer sends nothing more."""
STICKY: Final = ENDING | _PRI
"""Something stands behind the bytes: a read that gets fewer than it asked for does not prove that it got all."""
READABLE: Final = STICKY | IN
"""A read would not have to wait, be it for bytes, for the end, or for an error."""
WRITABLE: Final = _OUT | _HUP | _ERR
"""A write would not have to wait."""
_WANTED: Final = IN | _OUT | _RDHUP | _PRI | _EDGES


@final
class Reactor:
    """One epoll set of one Trio run; `current` finds or starts it."""

    def __init__(self) -> None:
        import structlog  # `check` opens none, and it would be a fifth of its time

        self._wires: dict[int, Ready] = {}
        self._containment = Containment(structlog.get_logger())
        self._epoll = select.epoll()
        try:
            trio.lowlevel.spawn_system_task(self._serve)
        except RuntimeError:  # the run is over but for its last words
            self._epoll.close()
            raise

    @classmethod
    def current(cls) -> Reactor | None:
        """The set of this run, which is started if there is none. None where epoll does not exist."""
        reactor = _current.get()
        if reactor is None and HAS_EPOLL:
            reactor = cls()
            _current.set(reactor)
        return reactor

    def __len__(self) -> int:
        """Wires in the set."""
        return len(self._wires)

    def add(self, number: int, wire: Ready) -> None:
        """Call a wire's `edge` from now on: once for what is there already, then whenever something changes."""
        self._epoll.register(number, _WANTED)
        self._wires[number] = wire

    def remove(self, number: int) -> None:
        """Call it no more. Do so before the descriptor is closed. Harmless when the set has ended."""
        if self._wires.pop(number, None) is None:
            return
        self._epoll.unregister(number)
        if not self._wires:
            trio.lowlevel.notify_closing(self._epoll)
            self._end()

    async def _serve(self) -> None:
        wires, epoll = self._wires, self._epoll
        try:
            while not epoll.closed:
                await trio.lowlevel.wait_readable(epoll)
                if not epoll.closed:
                    self._call(epoll.poll(0, MAX_BATCH))
        except trio.ClosedResourceError:
            return  # the last wire left
        finally:
            wires.clear()
            self._end()

    def _call(self, batch: list[tuple[int, int]]) -> None:
        wires = self._wires
        # found before the first is called: what is closed by a call may leave its number to another in the next one
        for wire, events in [(wires[number], events) for number, events in batch]:
            try:
                wire.edge(events)
            except Exception as error:  # a boundary: a bug in one wire's callback ends that wire
                self._containment.take(error)
                wire.close()

    def _end(self) -> None:
        if not self._epoll.closed:
            self._epoll.close()
            _current.set(None)


_current: Final = trio.lowlevel.RunVar[Reactor | None]("reactor", default=None)
