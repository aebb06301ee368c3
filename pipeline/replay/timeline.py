"""
A tape as its player reads it: in order, and a bounded way ahead of that.

What a component asks for (an id, the call that answers it, who a caller is) stands on the tape behind what caused it,
so it is looked for ahead of the place where the player is, and kept until somebody asks or its exchange is over.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Final, TypeVar, final

from attrs import define, field

from ..model.session import Caller
from ..protocol.errors import GatewayError
from .entries import (
    Begun,
    CallAsked,
    Called,
    CallEnded,
    CallRelayed,
    Configured,
    Ended,
    Entry,
    IdMade,
    MessageData,
    Seeded,
    StageEntered,
)
from .values import caller_of, refusal_of

AHEAD: Final = 10_000
"""Entries that are looked through for one that is asked for."""
MAX_OPEN: Final = 20_000
"""Exchanges of which something is kept; the oldest goes when there are more."""

MAX_RELOADS: Final = 1000
"""Reloads that are remembered; later ones are not told."""

CallEvent = CallRelayed | CallAsked | CallEnded

_MAX_INSIDE: Final = 1000
"""Exchanges that components began by themselves, of which calls are offered to others."""

_IDENTITY: Final = frozenset({"unauthenticated", "malformed_credentials", "forbidden", "session_not_found"})
"""Reasons for which a stage refuses that finds out who calls."""

T = TypeVar("T")


@final
@define(eq=False)
class Open:
    """What was read of an exchange."""

    message: MessageData | None = None
    """What its client sent."""
    calls: list[Called] = field(factory=list)
    """Calls that nothing was bound to yet."""
    caller: Caller | None = None
    """Who it is of."""
    ended: Ended | None = None
    """Its end, if a stage that finds out who calls may have turned it away."""
    is_over: bool = False
    """Its end was read."""

    def request_of(self, called: Called) -> MessageData | None:
        """What a sink was asked in a call."""
        return self.message if called.message is None else called.message


@final
class Timeline:
    """
    Args:
        entries: The tape's, in order; read as far as is needed.
    """

    def __init__(self, entries: Iterator[Entry]) -> None:
        self.reloads: list[float] = []
        """When a configuration was loaded again, in seconds of the tape; the first `MAX_RELOADS` of what was read."""
        self._entries = entries
        self._ahead: deque[Entry] = deque()
        self._in_hand: Entry | None = None
        """What `next` gave last: the player may still be waiting for its time."""
        self._read_to = 0.0
        self._seeds: dict[str, deque[int]] = {}
        self._ids: dict[str, deque[str]] = {}
        self._own: dict[str, deque[int]] = {}
        self._unplaced: dict[int, None] = {}
        self._begun_inside: deque[int] = deque(maxlen=_MAX_INSIDE)
        self._ended_early: dict[int, None] = {}
        self._open: dict[int, Open] = {}

    def next(self) -> Entry | None:
        """The next entry; None at the end."""
        self._in_hand = self._ahead.popleft() if self._ahead else self._read()
        return self._in_hand

    def look_ahead(self, until: float) -> None:
        """Read up to a time, in seconds of the tape."""
        while self._read_to <= until and len(self._ahead) < AHEAD and self._read_ahead():
            pass

    def seed(self, component: str) -> int | None:
        """The next seed of a component."""
        return self._found(lambda: _first(self._seeds.get(component)))

    def new_id(self, component: str) -> str | None:
        """The next id that a component made; a fingerprint in place of one that is masked."""
        return self._found(lambda: _first(self._ids.get(component)))

    def own_exchange(self, place: str) -> int | None:
        """The number of the next exchange that a component began by itself and that this stage or sink saw first."""
        return self._found(lambda: _first(self._own.get(place)))

    def caller(self, exchange: int, stage: str) -> Caller | GatewayError | None:
        """
        What a stage that finds out who calls did with an exchange.

        Args:
            exchange: Its number.
            stage: The stage's component id.

        Returns:
            Whom it was found to be of; how the stage turned it away; None if the tape has neither.
        """

        def look() -> Open | None:
            seen = self._open.get(exchange)
            return seen if seen is not None and (seen.caller is not None or seen.is_over) else None

        seen = self._found(look)
        if seen is None:
            return None
        return (None if seen.ended is None else _turned_away(seen.ended, stage)) or seen.caller

    def call(self, exchange: int, wanted: Callable[[Open, Called], bool]) -> Called | None:
        """The first call of an exchange that is wanted, and was not asked for yet."""
        found = self._found(lambda: self._claimed(exchange, wanted) or self._is_over(exchange))
        return found if isinstance(found, Called) else None

    def call_of(self, exchanges: Iterable[int], wanted: Callable[[Open, Called], bool]) -> Called | None:
        """Likewise of any of some exchanges, in what was read already."""
        for exchange in exchanges:
            found = self._claimed(exchange, wanted)
            if found is not None:
                return found
        return None

    def call_of_own(self, wanted: Callable[[Open, Called], bool]) -> Called | None:
        """Likewise of exchanges that a component began by itself."""
        return self.call_of(self._begun_inside, wanted)

    def unclaimed(self, exchanges: Iterable[int]) -> list[tuple[Open, Called]]:
        """Calls of some exchanges that were read, and that nothing was bound to."""
        found = [self._open[each] for each in exchanges if each in self._open]
        return [(open_, called) for open_ in found for called in open_.calls]

    def rest_of(self, call: int) -> list[CallEvent] | None:
        """What happens in a call, all of it; None if its end is too far ahead. It stays where it is."""
        found: list[CallEvent] = []
        for entry in self._look_ahead():
            if isinstance(entry, CallRelayed | CallAsked | CallEnded) and entry.call == call:
                found.append(entry)
                if isinstance(entry, CallEnded):
                    return found
        return None

    def end(self, exchange: int) -> None:
        """Nobody will ask for this exchange any more; what is read of it later is not kept."""
        seen = self._open.pop(exchange, None)
        if seen is not None and not seen.is_over:
            self._ended_early[exchange] = None
            if len(self._ended_early) > MAX_OPEN:
                del self._ended_early[next(iter(self._ended_early))]

    def _is_over(self, exchange: int) -> bool | None:
        seen = self._open.get(exchange)
        return True if seen is not None and seen.is_over else None

    def _claimed(self, exchange: int, wanted: Callable[[Open, Called], bool]) -> Called | None:
        seen = self._open.get(exchange)
        if seen is None:
            return None
        found = next((called for called in seen.calls if wanted(seen, called)), None)
        if found is not None:
            seen.calls.remove(found)
        return found

    def _found(self, look: Callable[[], T | None]) -> T | None:
        found = look()
        while found is None and len(self._ahead) < AHEAD and self._read_ahead():
            found = look()
        return found

    def _look_ahead(self) -> Iterator[Entry]:
        if self._in_hand is not None:
            yield self._in_hand
        yield from islice(self._ahead, AHEAD)
        while len(self._ahead) < AHEAD and self._read_ahead():
            yield self._ahead[-1]

    def _read_ahead(self) -> bool:
        entry = self._read()
        if entry is None:
            return False
        self._ahead.append(entry)
        return True

    def _read(self) -> Entry | None:
        entry = next(self._entries, None)
        self._read_to = math.inf if entry is None else entry.t
        if isinstance(entry, Called | StageEntered):
            self._place(entry.exchange, entry.sink if isinstance(entry, Called) else entry.stage)
        match entry:
            case Seeded():
                self._seeds.setdefault(entry.component, deque(maxlen=AHEAD)).append(int(entry.seed, 16))
            case IdMade():
                self._ids.setdefault(entry.component, deque(maxlen=AHEAD)).append(entry.value)
            case Configured():
                if entry.generation > 1 and len(self.reloads) < MAX_RELOADS:
                    self.reloads.append(entry.t)
            case Begun():
                self._of(entry.exchange).message = entry.message
                if not entry.source:
                    self._unplaced[entry.exchange] = None
                    self._begun_inside.append(entry.exchange)
            case Called() if entry.exchange not in self._ended_early:
                seen = self._of(entry.exchange)
                seen.calls.append(entry)
                seen.caller = seen.caller or caller_of(entry.caller)
            case Ended() if entry.exchange in self._ended_early:
                del self._ended_early[entry.exchange]
            case Ended():
                seen = self._of(entry.exchange)
                if seen.caller is None:
                    seen.caller, seen.ended = caller_of(entry.caller), entry
                seen.is_over = True
        return entry

    def _place(self, exchange: int, place: str) -> None:
        if exchange in self._unplaced:
            del self._unplaced[exchange]
            self._own.setdefault(place, deque(maxlen=AHEAD)).append(exchange)

    def _of(self, exchange: int) -> Open:
        found = self._open.get(exchange)
        if found is None:
            found = self._open[exchange] = Open()
            if len(self._open) > MAX_OPEN:
                del self._open[next(iter(self._open))]
        return found


def _turned_away(ended: Ended, stage: str) -> GatewayError | None:
    """How a stage refused an exchange; one that does not write down what it decides, by the reason."""
    error = None if ended.reply is None else ended.reply.error
    is_named = any(each.stage == stage and each.outcome == "refuse" for each in ended.decisions)
    data = error.data if error is not None and isinstance(error.data, dict) else {}
    if not is_named and (ended.caller is not None or data.get("reason") not in _IDENTITY):
        return None
    return refusal_of(error, ended.headers.get("www-authenticate"))


def _first(waiting: deque[T] | None) -> T | None:
    return waiting.popleft() if waiting else None
