"""The entries of a tape, put together by exchange."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, final

from attrs import define, field

from .entries import (
    Answered,
    Asked,
    Begun,
    CallAnswered,
    CallAsked,
    Called,
    CallEnded,
    CallRelayed,
    CancelAsked,
    Ended,
    Entry,
    MessageData,
    Relayed,
    StageEntered,
    StageLeft,
)

MAX_OPEN: Final = 100_000
"""Exchanges that are put together at the same time; the oldest is handed out as it is when there are more."""


@final
@define(eq=False)
class RecordedCall:
    """One call of a sink."""

    called: Called
    relayed: list[CallRelayed] = field(factory=list)
    asked: list[CallAsked] = field(factory=list)
    answered: list[CallAnswered] = field(factory=list)
    ended: CallEnded | None = None
    """None if the tape ends before it did."""

    @property
    def took(self) -> float | None:
        """Seconds from call to end, if it ended."""
        return None if self.ended is None else self.ended.t - self.called.t


@final
@define(eq=False)
class RecordedVisit:
    """One visit of a stage."""

    entered: StageEntered
    left: StageLeft | None = None


@final
@define(eq=False)
class RecordedExchange:
    """All that a tape says of one exchange; what is missing on the tape is missing here."""

    number: int
    begun: Begun | None = None
    relayed: list[Relayed] = field(factory=list)
    asked: list[Asked] = field(factory=list)
    answered: list[Answered] = field(factory=list)
    cancels: list[CancelAsked] = field(factory=list)
    calls: dict[int, RecordedCall] = field(factory=dict)
    """By their number, in the order of their beginning."""
    visits: dict[int, RecordedVisit] = field(factory=dict)
    """Likewise; only on tapes with stages."""
    ended: Ended | None = None
    entries: list[Entry] = field(factory=list)
    """The same in the order of the tape."""

    @property
    def is_whole(self) -> bool:
        """Whether its beginning and its end are on the tape."""
        return self.begun is not None and self.ended is not None

    @property
    def took(self) -> float | None:
        """Seconds from beginning to end, if both are known."""
        return None if self.begun is None or self.ended is None else self.ended.t - self.begun.t

    @property
    def is_over(self) -> bool:
        """Whether nothing more is expected of it: it has ended, if anybody waits for its end, and so have its parts."""
        is_own = self.begun is not None and not self.begun.source
        return (
            (is_own or self.ended is not None)
            and all(call.ended is not None for call in self.calls.values())
            and all(visit.left is not None for visit in self.visits.values())
            and bool(self.calls or self.visits or not is_own)
        )

    def request_of(self, call: RecordedCall) -> MessageData | None:
        """What a sink got: its own message, or the client's."""
        if call.called.message is not None:
            return call.called.message
        return None if self.begun is None else self.begun.message

    def add(self, entry: Entry) -> None:
        """Take an entry that belongs to it."""
        self.entries.append(entry)
        match entry:
            case Begun():
                self.begun = entry
            case Relayed():
                self.relayed.append(entry)
            case Asked():
                self.asked.append(entry)
            case Answered():
                self.answered.append(entry)
            case CancelAsked():
                self.cancels.append(entry)
            case Ended():
                self.ended = entry
            case StageEntered():
                self.visits[entry.visit] = RecordedVisit(entry)
            case StageLeft():
                if entry.visit in self.visits:
                    self.visits[entry.visit].left = entry
            case _:
                self._add_to_call(entry)

    def _add_to_call(self, entry: Entry) -> None:
        if isinstance(entry, Called):
            self.calls[entry.call] = RecordedCall(entry)
            return
        assert isinstance(entry, CallRelayed | CallAsked | CallAnswered | CallEnded)
        call = self.calls.get(entry.call)
        match entry:
            case _ if call is None:
                return
            case CallRelayed():
                call.relayed.append(entry)
            case CallAsked():
                call.asked.append(entry)
            case CallAnswered():
                call.answered.append(entry)
            case CallEnded():
                call.ended = entry


_OF_EXCHANGE: Final = (
    Begun, Relayed, Asked, Answered, CancelAsked, Ended, Called, CallRelayed, CallAsked, CallAnswered, CallEnded,
    StageEntered, StageLeft,
)  # fmt: skip


def exchange_of(entry: Entry) -> int:
    """Number of the exchange that an entry belongs to; 0 if it belongs to none."""
    return entry.exchange if isinstance(entry, _OF_EXCHANGE) else 0


@final
class Assembly:
    """Puts entries together that come one by one."""

    def __init__(self) -> None:
        self._open: dict[int, RecordedExchange] = {}

    def add(self, entry: Entry) -> RecordedExchange | None:
        """Take an entry, in order; an exchange that is over with it, or that there is no more room for."""
        number = exchange_of(entry)
        if not number:
            return None
        exchange = self._open.get(number)
        if exchange is None:
            exchange = self._open[number] = RecordedExchange(number)
        exchange.add(entry)
        if exchange.is_over:
            return self._open.pop(number)
        if len(self._open) > MAX_OPEN:
            return self._open.pop(next(iter(self._open)))
        return None

    def rest(self) -> Iterator[RecordedExchange]:
        """What is not over, oldest first; once nothing more comes."""
        yield from self._open.values()


def exchanges(entries: Iterable[Entry]) -> Iterator[RecordedExchange]:
    """
    Every exchange, in the order in which they end, with all its calls; what did not end comes last, oldest first.

    A sink's call can outlast its exchange (an attempt that lost); then the exchange waits for it. One that a component
    began by itself is handed out whenever its calls have ended, so perhaps several times.
    """
    assembly = Assembly()
    for entry in entries:
        exchange = assembly.add(entry)
        if exchange is not None:
            yield exchange
    yield from assembly.rest()
