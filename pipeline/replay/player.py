"""
A player: stands at the edges of a gateway and gives what a tape has: clients, upstreams, chance, ids, the date.

One task reads the tape in order and delivers what came from outside, each at its time and when everything before it
has settled; on a clock of its own the time between is free. So the order in which Trio runs tasks does not matter, and
what the gateway makes of it all is a function of tape and configuration.

Where the gateway calls what it had not called, nothing was recorded: whoever plays tells what happens then (`Unknown`),
and `lacking` says what the nearest recorded request has different.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Final, Literal, NoReturn, final

import trio
from attrs import define, field
from msgspec.structs import replace

from ..model.changes import Changes
from ..model.document import Document
from ..model.exchange import Exchange, Service
from ..model.handle import Handle, Ticket
from ..model.session import Caller, Session
from ..protocol.errors import GatewayError
from ..protocol.mcp import ASSUMED_VERSION, Kind
from ..protocol.messages import Json, Notification, Reply, Result
from ..runtime.edges import Edges
from ..runtime.nursery import unwrap_single
from .clock import Pace
from .course import NUMBER
from .entries import (
    Announced,
    Answered,
    Begun,
    CallAsked,
    CallEnded,
    CallRelayed,
    CancelAsked,
    ClockSet,
    Ended,
    Entry,
    SessionClosed,
    SessionOpened,
    SessionTold,
)
from .timeline import Timeline
from .tokens import Tokens
from .upstreams import Unknown, Upstreams, played_reply
from .values import caller_of, client_of, message_of

OWN: Final = 1 << 32
"""Numbers from here on are of exchanges that components begin by themselves, and did not when the tape was made."""
MAX_LACKING: Final = 100
"""What the tape lacks is described so often; after that it is counted."""


_MAX_EARLY: Final = 1000
"""Cancelled exchanges that are kept in mind although nothing is known of them."""


@define(eq=False)
class _Live:
    """An exchange that is played."""

    number: int
    ticket: Ticket
    session: Session | None
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    answers: dict[int, Reply | None] = field(factory=dict)
    asked: int = 0
    news: trio.Event = field(factory=trio.Event)


@final
class Player(Edges):
    """
    Plays one tape, once, from now on.

    Args:
        entries: The tape's, in order.
        epoch: The date at its beginning, in seconds since 1970; of its header.
        pace: How time passes between entries.
        unknown: Answers calls that are on no tape.
        upstreams: Whether sinks are answered from the tape; otherwise only clients are played.
        ignored: Globs of paths (`params.arguments.now`) that do not decide which recorded answer a request gets.
        linger_s: How long requests may go on when the tape is at its end; then they are cancelled.
    """

    def __init__(
        self,
        entries: Iterator[Entry],
        epoch: float,
        pace: Pace,
        unknown: Unknown,
        *,
        upstreams: bool = True,
        ignored: Collection[str] = (),
        linger_s: float = 0.0,
    ) -> None:
        self.lacking: list[str] = []
        """What was asked for that the tape does not have; the first `MAX_LACKING`."""
        self.lacked = 0
        """How often something was asked for that the tape does not have."""
        self.begun = 0
        """Exchanges so far."""
        self.corrected: Callable[[float], None] = _nobody
        """Told when the date was corrected, with what it is at the tape's beginning."""
        self._tape = Timeline(entries)
        self.look_ahead = self._tape.look_ahead
        """Reads the tape up to a time, in its seconds, and a bounded way."""
        self._epoch = epoch
        self._pace = pace
        self._plays_upstreams = upstreams
        self._zero = trio.current_time()
        self._made = 0
        self._beginning = 0
        self._changes: Changes | None = None
        self._feeds: dict[str, Handle] = {}
        self._sessions: dict[int, Session] = {}
        self._live: dict[int, _Live] = {}
        self._tokens = Tokens()
        self._cancelled_early: dict[int, Literal["client", "shutdown"]] = {}
        """Exchanges that were cancelled before they began, as far as anybody knows."""
        self._upstreams = Upstreams(self._tape, self._zero, unknown, self._lack, self._live, ignored)
        self._linger_s = linger_s
        self._one_less = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._deliveries: Mapping[type[Entry], Callable[[Any], None]] = {
            Begun: self._begin,
            CancelAsked: self._cancel,
            Answered: self._answered,
            Ended: self._ended,
            SessionOpened: self._open_session,
            SessionClosed: self._close_session,
            ClockSet: self._set_clock,
        }
        if upstreams:
            self._deliveries |= {
                CallRelayed: self._upstreams.came,
                CallAsked: self._upstreams.came,
                CallEnded: self._upstreams.came,
                SessionTold: self._tell_session,
                Announced: self._announce,
            }

    @property
    def reloads(self) -> list[float]:
        """When the recorded gateway loaded its configuration again, which a replay does not; see `Timeline.reloads`."""
        return self._tape.reloads

    async def run(self) -> None:
        """
        Deliver everything that is on the tape; sources must be connected. Returns at its end, or when requests have had
        their time after it; what has not ended then is cancelled.
        """
        end = self._zero
        with unwrap_single():
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                while (entry := self._tape.next()) is not None:
                    deliver = self._deliveries.get(type(entry))
                    if deliver is not None:
                        end = self._zero + entry.t
                        await self._pace.reach(end, entry)
                        deliver(entry)
                await self._pace.reach(end, None)
                if self._linger_s:
                    with trio.move_on_after(self._linger_s):
                        await self._wait_for_requests()
                nursery.cancel_scope.cancel()

    async def _wait_for_requests(self) -> None:
        while any(each.ticket.exchange.kind is Kind.CALL for each in self._live.values()):
            self._one_less = trio.Event()
            await self._one_less.wait()

    def caller_of(self, exchange: Exchange, stage: str) -> Caller | GatewayError | None:
        """What a stage that finds out who calls did with an exchange; see `Timeline.caller`."""
        return self._tape.caller(exchange.link.number, stage)

    def next_exchange(self) -> int:
        """The number of the exchange that is begun now: the one that it has on the tape."""
        return self._beginning

    def next_inside(self, place: str) -> int:
        """The number of an exchange that a component began by itself, and that this stage or sink sees first."""
        number = self._tape.own_exchange(place) or 0
        if not number:
            self._made += 1
            number = OWN + self._made
        return number

    # The edges.

    def now(self, now: Callable[[], float]) -> Callable[[], float]:
        """The tape's date."""
        return lambda: self._epoch + trio.current_time() - self._zero

    def configured(self, document: Document, generation: int, changes: Changes) -> None:
        """What upstreams announced is announced there."""
        self._changes = changes

    def client(self, source: str, pipeline: Callable[[], str], handle: Handle) -> Handle:
        """What the source would feed is fed from the tape."""
        self._feeds[source] = handle
        return handle

    def sink(self, sink: str, service: Service) -> Service:
        """What the sink would ask its upstream is answered from the tape."""
        if not self._plays_upstreams:
            return service
        return lambda exchange: self._upstreams.call(exchange, sink)

    def seed(self, component: str, seed: int) -> int:
        """The recorded one."""
        found = self._tape.seed(component)
        return seed if found is None else found

    def new_id(self, component: str, new_id: Callable[[], str]) -> Callable[[], str]:
        """The recorded ones, in order; a masked one is as good as what it stood for."""

        def make() -> str:
            found = self._tape.new_id(component)
            if found is None:
                self._made += 1
                self._lack(f"an id for {component}")
                found = f"replay-{self._made}"
            return found

        return make

    def _lack(self, what: str) -> None:
        self.lacked += 1
        if len(self.lacking) < MAX_LACKING:
            self.lacking.append(what)

    def _announce(self, entry: Announced) -> None:
        message = message_of(entry.message)
        if self._changes is not None and isinstance(message, Notification):
            self._changes.announce(entry.sink, message)

    def _set_clock(self, entry: ClockSet) -> None:
        self._epoch = entry.epoch
        self.corrected(entry.epoch)

    # Clients.

    def _begin(self, entry: Begun) -> None:
        if not entry.source:
            return  # a component began it of its own accord, and will
        feed = self._feeds.get(entry.source)
        if feed is None:
            self._lack(f"a source {entry.source}")
            return
        assert entry.client is not None
        assert self._nursery is not None
        session = None if entry.client.session is None else self._sessions.get(entry.client.session)
        client = replace(client_of(entry.client), session=session)
        if session is not None:
            session.capabilities, session.info = client.capabilities, client.info
        live: _Live

        async def emit(_notification: Notification) -> None:
            await trio.lowlevel.checkpoint()

        async def ask(_method: str, _params: Mapping[str, Json]) -> Reply:
            return await self._ask(live)

        self.begun += 1
        self._beginning = entry.exchange
        message = message_of(self._tokens.brought(entry.message))
        ticket = feed(message, client=client, emit=emit, ask=ask if entry.can_ask else None)
        live = self._live[entry.exchange] = _Live(entry.exchange, ticket, session)
        exchange = ticket.exchange
        early = self._cancelled_early.pop(entry.exchange, None)
        if early is not None:
            ticket.cancel(early)
        if entry.caller is not None:
            exchange.caller = exchange.link.caller = caller_of(entry.caller)
        self._nursery.start_soon(self._run, live)

    async def _run(self, live: _Live) -> None:
        NUMBER.set(live.number)
        try:
            with live.scope:
                reply = await live.ticket.run()
                self._tokens.gives(live.number, reply)
                if live.ticket.exchange.method == "initialize" and live.session is not None:
                    _settle(live.session, reply)
        finally:
            del self._live[live.number]
            self._one_less.set()
            self._tape.end(live.number)
            self._upstreams.drop(live.number)

    async def _ask(self, live: _Live) -> Reply:
        live.asked = number = live.asked + 1
        while number not in live.answers:
            await live.news.wait()
        reply = live.answers.pop(number)
        return await _wait_to_be_cancelled() if reply is None else reply

    def _answered(self, entry: Answered) -> None:
        live = self._live.get(entry.exchange)
        if live is not None:
            live.answers[entry.question] = None if entry.reply is None else played_reply(entry.reply)
            live.news.set()
            live.news = trio.Event()

    def _cancel(self, entry: CancelAsked) -> None:
        live, reason = self._live.get(entry.exchange), _reason_of(entry)
        if live is not None:
            live.ticket.cancel(reason)
        else:
            self._cancelled_early[entry.exchange] = reason
            if len(self._cancelled_early) > _MAX_EARLY:
                del self._cancelled_early[next(iter(self._cancelled_early))]

    def _ended(self, entry: Ended) -> None:
        self._tokens.gave(entry.exchange, entry.reply)
        live = self._live.get(entry.exchange)
        if live is None:
            self._tape.end(entry.exchange)
            self._upstreams.drop(entry.exchange)
        elif entry.cancelled == "connection":
            live.scope.cancel()
        elif entry.cancelled == "shutdown":
            live.ticket.cancel("shutdown")

    def _open_session(self, entry: SessionOpened) -> None:
        self._sessions[entry.session] = Session(id=f"session-{entry.session}", source=entry.source)

    def _tell_session(self, entry: SessionTold) -> None:
        message, session = message_of(entry.message), self._sessions.get(entry.session)
        if session is not None and isinstance(message, Notification):
            session.notify(message)

    def _close_session(self, entry: SessionClosed) -> None:
        session = self._sessions.pop(entry.session, None)
        if session is not None:
            session.close()


def _reason_of(entry: CancelAsked) -> Literal["client", "shutdown"]:
    return "shutdown" if entry.by == "shutdown" else "client"


def _nobody(_epoch: float) -> None:
    """Is told."""


async def _wait_to_be_cancelled() -> NoReturn:
    """What ended by being cancelled ends like that again."""
    await trio.sleep_forever()


def _settle(session: Session, reply: Reply | None) -> None:
    """What a source does when a handshake has ended."""
    if isinstance(reply, Result):
        version = reply.value.get("protocolVersion")
        session.version = version if isinstance(version, str) else ASSUMED_VERSION
    else:
        session.close()
