"""
A recorder: stands at the edges of a gateway and has a scribe write down what passes.

On the path of a message it only puts references into a queue; what they say is read, masked and written elsewhere. So
what is recorded must not change: messages do not by contract, and the little else is copied.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from itertools import count
from typing import Any, Final, Literal, Protocol, final

from ..model.changes import Changes
from ..model.component import State
from ..model.document import Document
from ..model.exchange import Exchange, Service
from ..model.figures import Figure
from ..model.handle import Handle, Ticket
from ..model.kept_scope import KeptScope
from ..model.session import Asker, Client, Session
from ..protocol.messages import EMPTY, Json, Notification, Reply, Request, Result
from ..runtime.chain import Probe
from ..runtime.edges import Edges
from .narration import Narration, public_ids
from .scribe import Make

STEP_S: Final = 0.05
"""Seconds by which the date may be off from where the clock says it should be; more is a correction."""

_PLAIN: Final = 200
"""Bytes that a message is taken to hold if nobody has its text."""

Emit = Callable[[Notification], Awaitable[None]]


def weight_of(message: Request | Notification | Reply | None) -> int:
    """Bytes that a message holds, roughly."""
    if isinstance(message, Request):
        return _PLAIN if message.raw is None else len(message.raw)
    return message.body.held if isinstance(message, Result | Notification) else _PLAIN


class Desk(Protocol):
    """Where a recorder hands in what it saw: a `Scribe`, or something that wants it at once."""

    def put(self, weight: int, make: Make, *arguments: Any) -> None:
        """See `Scribe.put`."""
        ...

    def note(self, t: float, make: Make, *arguments: Any) -> None:
        """See `Scribe.note`."""
        ...

    def figures(self) -> Iterable[Figure]:
        """What it counts."""
        ...


@final
class Recorder(Edges):
    """
    Args:
        scribe: Writes.
        narration: Makes entries of what was seen.
        clock: Seconds since the recording began; may be called from any thread.
        epoch: The date when it began, in seconds since 1970.
        stages: Whether to record each stage.
        files: Whether to record the text of the configuration.
    """

    def __init__(
        self,
        scribe: Desk,
        narration: Narration,
        clock: Callable[[], float],
        epoch: float,
        *,
        stages: bool = False,
        files: bool = False,
    ) -> None:
        self.scribe = scribe
        self.put = scribe.put
        self.narration = narration
        self.requests: dict[int, Request | Notification] = {}
        """What the exchanges that are under way began with, by their number."""
        self.next_exchange = count(1).__next__
        self.next_inside: Callable[[str], int] = lambda _place: self.next_exchange()
        """The number of an exchange that no source began; told the id of the stage or sink where it was first seen."""
        self.next_call = count(1).__next__
        self._next_visit = count(1).__next__
        self._next_session = count(1).__next__
        self._next_question = count(1).__next__
        self._sessions: dict[Session, int] = {}
        self._clock = clock
        self._epoch = epoch
        self._stages = stages
        self._files = files
        self._public: frozenset[str] = frozenset()

    # The edges.

    def now(self, now: Callable[[], float]) -> Callable[[], float]:
        """The date follows the clock, so that a replay has the same; a correction of the system's is written down."""

        def date() -> float:
            t = self._clock()
            expected, actual = self._epoch + t, now()
            if abs(actual - expected) <= STEP_S:
                return expected
            self._epoch = actual - t
            self.scribe.note(t, self.narration.clock_set, self._epoch)
            return actual

        return date

    def configured(self, document: Document, generation: int, changes: Changes) -> None:
        """Written down; from now on its secrets are known."""
        self._public = public_ids(document)
        self.put(0, self.narration.configured, document, generation, self._files)
        if generation == 1:
            changes.listen(self._announced)

    def client(self, source: str, pipeline: Callable[[], str], handle: Handle) -> Handle:
        """Every message of a client is an exchange on the tape."""

        def begin(
            message: Request | Notification, *, client: Client, emit: Emit, ask: Asker | None = None
        ) -> RecordedTicket:
            session = client.session
            number = None if session is None else self._number(session, source)
            return RecordedTicket(self, handle, message, client, emit, ask, (source, pipeline(), number))

        return begin

    def sink(self, sink: str, service: Service) -> Service:
        """Every call of a sink is on the tape, with what it relays and asks."""

        def call(exchange: Exchange) -> Awaitable[Reply]:
            return _Call(self, exchange, sink).run(sink, service)

        return call

    def probe(self) -> Probe | None:
        """Stands around stages if that was asked for."""
        return self._visit if self._stages else None

    def seed(self, component: str, seed: int) -> int:
        """Written down: randomness decides about jitter and samples, and keeps no secrets."""
        self.put(0, self.narration.seeded, component, seed)
        return seed

    def new_id(self, component: str, new_id: Callable[[], str]) -> Callable[[], str]:
        """Written down, masked unless everybody may see them: ids can be sessions, keys, secrets of seals."""
        make = self.narration.public_id if component in self._public else self.narration.masked_id

        def made() -> str:
            value = new_id()
            self.put(0, make, component, value)
            return value

        return made

    def became(self, component: str, state: State, reason: str) -> None:
        """Written down."""
        self.put(0, self.narration.state_changed, component, state, reason)

    def figures(self) -> Iterable[Figure]:
        """What was written, what is missing, and what waits."""
        return self.scribe.figures()

    def _announced(self, sink: str, notification: Notification) -> None:
        self.put(weight_of(notification), self.narration.announced, sink, notification)

    # Sessions.

    def _number(self, session: Session, source: str) -> int:
        number = self._sessions.get(session)
        if number is None:
            number = self._next_session()
            self.put(0, self.narration.session_opened, number, source)
            if not session.closed:
                self._sessions[session] = number
                self._listen_in(session, number)
                session.on_close(lambda: self._closed(session, number))
        return number

    def _listen_in(self, session: Session, number: int) -> None:
        notify = session.notify

        def told(notification: Notification) -> None:
            self.put(weight_of(notification), self.narration.session_told, number, notification)
            notify(notification)

        session.notify = told
        if session.ask is not None:
            session.ask = self._asking(session.ask, number)

    def _asking(self, ask: Asker, number: int) -> Asker:
        async def asked(method: str, params: Mapping[str, Json]) -> Reply:
            question = self._next_question()
            self.put(_PLAIN, self.narration.session_asked, number, question, method, params)
            answer: Reply | None = None
            try:
                answer = reply = await ask(method, params)
            finally:
                self.put(weight_of(answer), self.narration.session_answered, number, question, answer, method)
            return reply

        return asked

    def _closed(self, session: Session, number: int) -> None:
        self._sessions.pop(session, None)
        self.put(0, self.narration.session_closed, number)

    # Exchanges.

    def number_of(self, exchange: Exchange, place: str) -> int:
        """The number of an exchange; one that no source began gets its own now, at this stage or sink."""
        link = exchange.link
        if not link.number:
            link.number = self.next_inside(place)
            facts = (exchange.kind, exchange.request, exchange.client, link.caller)
            self.put(weight_of(exchange.request), self.narration.begun, link.number, ("", "", None), False, *facts)
        return link.number

    def changed(self, number: int, exchange: Exchange) -> Request | Notification | None:
        """The request of an exchange, if it is another one than the client's."""
        request = exchange.request
        return None if self.requests.get(number) is request else request

    async def _visit(self, stage: str, exchange: Exchange, service: Service) -> Reply:
        number, visit = self.number_of(exchange, stage), self._next_visit()
        changed = self.changed(number, exchange)
        self.put(weight_of(changed), self.narration.stage_entered, number, visit, stage, changed)
        outcome: Reply | Exception | None = None
        try:
            outcome = reply = await service(exchange)
        except Exception as error:  # only to write it down
            outcome = error
            raise
        finally:
            method = exchange.request.method
            weight = _PLAIN if isinstance(outcome, Exception) else weight_of(outcome)
            self.put(weight, self.narration.stage_left, number, visit, stage, outcome, method)
        return reply


@final
class RecordedTicket:
    """A `Ticket` whose exchange is on the tape."""

    __slots__ = ("_ask", "_emit", "_facts", "_is_over", "_number", "_questions", "_recorder", "_ticket", "exchange")

    def __init__(
        self,
        recorder: Recorder,
        handle: Handle,
        message: Request | Notification,
        client: Client,
        emit: Emit,
        ask: Asker | None,
        facts: tuple[str, str, int | None],
    ) -> None:
        self._recorder = recorder
        self._emit = emit
        self._ask = ask
        self._facts = facts
        self._questions = 0
        self._is_over = False
        self._ticket: Ticket = handle(
            message, client=client, emit=self._relayed, ask=None if ask is None else self._asked
        )
        self.exchange = self._ticket.exchange
        self._number = self.exchange.link.number = recorder.next_exchange()

    async def run(self, kept: KeptScope | None = None) -> Reply | None:
        """See `Ticket`."""
        recorder, number, exchange = self._recorder, self._number, self.exchange
        link, request = exchange.link, exchange.request
        exchange.hold()  # what passes in pieces would not be on the tape
        can_ask = self._ask is not None
        facts = (exchange.kind, request, exchange.client, link.caller)
        recorder.put(weight_of(request), recorder.narration.begun, number, self._facts, can_ask, *facts)
        recorder.requests[number] = request
        reply: Reply | None = None
        cancelled = "connection"
        try:
            reply = await self._ticket.run(kept)
            cancelled = ""
        finally:
            self._is_over = True
            del recorder.requests[number]
            headers = dict(exchange.reply_headers) if exchange.reply_headers else EMPTY
            recorder.put(
                weight_of(reply), recorder.narration.ended, number, reply, request.method,
                link.cancelled or cancelled, link.caller, tuple(link.decisions), headers, link.correlation_id,
            )  # fmt: skip
        return reply

    def cancel(self, reason: Literal["client", "shutdown"] = "client") -> None:
        """See `Ticket`."""
        if not self._is_over:
            self._recorder.put(0, self._recorder.narration.cancel_asked, self._number, reason)
        self._ticket.cancel(reason)

    def _relayed(self, notification: Notification) -> Awaitable[None]:
        recorder = self._recorder
        recorder.put(weight_of(notification), recorder.narration.relayed, self._number, notification)
        return self._emit(notification)

    async def _asked(self, method: str, params: Mapping[str, Json]) -> Reply:
        assert self._ask is not None
        self._questions = question = self._questions + 1
        recorder, narration = self._recorder, self._recorder.narration
        recorder.put(_PLAIN, narration.asked, self._number, question, method, params)
        answer: Reply | None = None
        try:
            answer = reply = await self._ask(method, params)
        finally:
            recorder.put(weight_of(answer), narration.answered, self._number, question, answer, method)
        return reply


@final
class _Call:
    """One call of a sink, and what comes back of it."""

    __slots__ = ("_call", "_exchange", "_number", "_questions", "_recorder")

    def __init__(self, recorder: Recorder, exchange: Exchange, sink: str) -> None:
        self._recorder = recorder
        self._exchange = exchange
        self._number = recorder.number_of(exchange, sink)
        self._call = recorder.next_call()
        self._questions = 0

    async def run(self, sink: str, service: Service) -> Reply:
        recorder, number, call, exchange = self._recorder, self._number, self._call, self._exchange
        narration, changed = recorder.narration, recorder.changed(number, exchange)
        recorder.put(
            weight_of(changed), narration.called, number, call, sink, exchange.attempt, changed, exchange.caller
        )
        outcome: Reply | Exception | None = None
        try:
            outcome = reply = await service(exchange.with_relay(self._relayed, self._asked))
        except Exception as error:  # only to write it down
            outcome = error
            raise
        finally:
            weight = _PLAIN if isinstance(outcome, Exception) else weight_of(outcome)
            recorder.put(weight, narration.call_ended, number, call, outcome, exchange.request.method)
        return reply

    def _relayed(self, _view: Exchange, notification: Notification) -> Awaitable[None]:
        recorder = self._recorder
        recorder.put(weight_of(notification), recorder.narration.call_relayed, self._number, self._call, notification)
        return self._exchange.relay(notification)

    async def _asked(self, method: str, params: Mapping[str, Json]) -> Reply:
        recorder, narration, number, call = self._recorder, self._recorder.narration, self._number, self._call
        self._questions = question = self._questions + 1
        recorder.put(_PLAIN, narration.call_asked, number, call, question, method, params)
        answer: Reply | None = None
        try:
            answer = reply = await self._exchange.ask(method, params)
        finally:
            recorder.put(weight_of(answer), narration.call_answered, number, call, question, answer, method)
        return reply
