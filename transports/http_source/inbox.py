"""The body of a request between the connection that reads it and the application that takes it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final, final

import trio

MAX_UNREAD: Final = 256 * 1024
"""Bytes of a body that wait for the application before the connection stops reading."""


@final
class Inbox:
    """
    ASGI `receive` of one request: what the connection read and the application has not taken.

    Args:
        on_room: Called when it is not full any more, or nobody will read what comes.
    """

    __slots__ = ("_abandoned", "_events", "_news", "_on_room", "_size")

    def __init__(self, on_room: Callable[[], None]) -> None:
        self._events: deque[Mapping[str, Any]] | None = None
        """None rather than empty: an empty deque takes 760 bytes, and a request that is answered for long has it."""
        self._size = 0
        self._abandoned = False
        self._news: trio.Event | None = None
        self._on_room = on_room

    @property
    def is_empty(self) -> bool:
        """Whether `receive` would wait."""
        return self._events is None

    @property
    def is_full(self) -> bool:
        """Whether nothing should be added: more than `MAX_UNREAD` bytes are unread, and may still be read."""
        return self._size > MAX_UNREAD and not self._abandoned

    def put(self, event: Mapping[str, Any]) -> None:
        """Add an event; it is dropped if nobody will read it."""
        if self._abandoned:
            return
        if self._events is None:
            self._events = deque()
        self._events.append(event)
        self._size += len(event.get("body", b""))
        if self._news is not None:
            self._news.set()

    async def receive(self) -> Mapping[str, Any]:
        """The next event. A client that left stays gone."""
        while self._events is None:
            self._news = trio.Event()
            await self._news.wait()
        if self._events[0]["type"] == "http.disconnect":
            return self._events[0]
        event = self._events.popleft()
        if not self._events:
            self._events = None
        was_full = self.is_full
        self._size -= len(event.get("body", b""))
        if was_full and not self.is_full:
            self._on_room()
        return event

    def abandon(self) -> None:
        """Nobody will read any more: drop what is there and what comes."""
        was_full = self.is_full
        self._abandoned = True
        self._events = None
        if was_full:
            self._on_room()
