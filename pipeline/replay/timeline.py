"""
A tape as its player reads it: in order, and a bounded way ahead of that.

What a component asks for (an id, the call that answers it, who a caller is) stands on the tape behind what caused it,
so it is looked for ahead of the place where the player is, and kept until somebody asks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, TypeVar, final

from ..model.session import Caller
from ..protocol.messages import ErrorReply
from .entries import Called, Ended, Entry, ErrorData, IdMade, ReplyData, Seeded
from .values import caller_of

AHEAD: Final = 10_000
"""Entries that are looked through for one that is asked for."""

T = TypeVar("T")


@final
class Timeline:
    """
    Args:
        entries: The tape's, in order; read as far as is needed.
    """

    def __init__(self, entries: Iterator[Entry]) -> None:
        self._entries = entries
        self._ahead: deque[Entry] = deque()
        self._seeds: dict[str, deque[int]] = {}
        self._ids: dict[str, deque[str]] = {}
        self._calls: dict[int, list[Called]] = {}
        self._callers: dict[int, Caller | ErrorReply] = {}

    def next(self) -> Entry | None:
        """The next entry; None at the end."""
        return self._ahead.popleft() if self._ahead else self._read()

    def seed(self, component: str) -> int | None:
        """The next seed of a component."""
        return self._found(lambda: _first(self._seeds.get(component)))

    def new_id(self, component: str) -> str | None:
        """The next id that a component made; a fingerprint in place of one that is masked."""
        return self._found(lambda: _first(self._ids.get(component)))

    def caller(self, exchange: int) -> Caller | ErrorReply | None:
        """Who an exchange was found to be of; how it was refused before anybody was found; None if nobody was."""
        self._found(lambda: exchange in self._callers or None)
        return self._callers.get(exchange)

    def call(self, exchange: int, wanted: Callable[[Called], bool]) -> Called | None:
        """The first call of an exchange that is wanted, and was not asked for yet."""
        return self._found(lambda: self._claimed(exchange, wanted))

    def call_of_any(self, wanted: Callable[[Called], bool]) -> Called | None:
        """Likewise of any exchange, among those that were read already."""
        for exchange in list(self._calls):
            found = self._claimed(exchange, wanted)
            if found is not None:
                return found
        return None

    def forget(self, exchange: int) -> None:
        """Nobody will ask for this exchange any more."""
        self._calls.pop(exchange, None)
        self._callers.pop(exchange, None)

    def _claimed(self, exchange: int, wanted: Callable[[Called], bool]) -> Called | None:
        calls = self._calls.get(exchange, [])
        found = next(filter(wanted, calls), None)
        if found is not None:
            calls.remove(found)
        return found

    def _found(self, look: Callable[[], T | None]) -> T | None:
        while (found := look()) is None and len(self._ahead) < AHEAD:
            entry = self._read()
            if entry is None:
                break
            self._ahead.append(entry)
        return found

    def _read(self) -> Entry | None:
        entry = next(self._entries, None)
        match entry:
            case Seeded():
                self._seeds.setdefault(entry.component, deque()).append(int(entry.seed, 16))
            case IdMade():
                self._ids.setdefault(entry.component, deque()).append(entry.value)
            case Called():
                self._calls.setdefault(entry.exchange, []).append(entry)
                self._learn(entry.exchange, caller_of(entry.caller))
            case Ended(reply=ReplyData(error=ErrorData() as error), caller=None):
                self._learn(entry.exchange, ErrorReply(error.code, error.message, error.data, error.http_status))
            case Ended():
                self._learn(entry.exchange, caller_of(entry.caller))
        return entry

    def _learn(self, exchange: int, found: Caller | ErrorReply) -> None:
        self._callers.setdefault(exchange, found)


def _first(waiting: deque[T] | None) -> T | None:
    return waiting.popleft() if waiting else None
