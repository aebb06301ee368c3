"""The place of this process among the workers, as its components see it (`model.worker.Worker`)."""

from __future__ import annotations

import hmac
import socket
from collections.abc import Callable, Coroutine
from contextlib import ExitStack, suppress
from typing import Any, Final, final

import trio

from .board import Board
from .messages import Begin, Hand

_SEND: Final = 5.0
"""Seconds after which a supervisor that does not read is as good as none."""


@final
class Place:
    """
    What `Begin` said, in force.

    Args:
        begin: Its first word from the supervisor.
        hand: Sends a `Hand` and a descriptor to the supervisor; whether it could be sent.
    """

    def __init__(self, begin: Begin, hand: Callable[[Hand, int], Coroutine[Any, Any, bool]]) -> None:
        self.mark = begin.mark
        self.slot = begin.slot
        self.is_announced = begin.announced
        self._secret = begin.secret
        self._hand = hand
        self._board = Board(begin.board, begin.slots)
        self._sockets = {
            source: [socket.socket(fileno=each) for each in descriptors]
            for source, descriptors in begin.sockets.items()
        }
        for each in (each for sockets in self._sockets.values() for each in sockets):
            each.set_inheritable(False)
        self._connections = 0
        self._accepts = False

    def key(self, purpose: str) -> str:
        """See `Worker`."""
        return hmac.new(self._secret, purpose.encode(), "sha256").hexdigest()

    def take_sockets(self, source: str) -> list[socket.socket]:
        """See `Worker`."""
        return self._sockets.pop(source, [])

    def count(self, difference: int) -> None:
        """See `Worker`."""
        self._connections += difference
        if self._accepts:
            self._board.set(self.slot, self._connections)

    def lead(self) -> int:
        """See `Worker`."""
        return self._connections - self._board.least(self._connections)

    async def reach(self, mark: str, source: str) -> trio.SocketStream:
        """See `Worker`."""
        ours, theirs = socket.socketpair()
        with theirs, ExitStack() as undo:
            undo.enter_context(ours)
            ours.setblocking(False)
            with trio.move_on_after(_SEND):
                await self._hand(Hand(mark=mark, source=source), theirs.fileno())
            undo.pop_all()
        return trio.SocketStream(trio.socket.from_stdlib_socket(ours))

    async def move(self, mark: str, source: str, client: int) -> None:
        """See `Worker`."""
        with trio.move_on_after(_SEND):
            await self._hand(Hand(mark=mark, source=source, client=True), client)

    def open(self) -> None:
        """This worker accepts clients."""
        self._accepts = True
        self._board.set(self.slot, self._connections)

    def leave(self) -> None:
        """It accepts none any more. Idempotent."""
        self._accepts = False
        self._board.vacate(self.slot)

    def close(self) -> None:
        """Let go of everything."""
        for sockets in self._sockets.values():
            for each in sockets:
                with suppress(OSError):
                    each.close()
        self._board.close()
