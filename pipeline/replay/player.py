"""
A player: stands at the edges of a gateway and gives what a tape has: clients, upstreams, chance, ids, the date.

One task reads the tape in order and delivers what came from outside, each at its time and when everything before it
has settled; on a mock clock the time between is free. So the order in which Trio runs tasks does not matter, and what
the gateway makes of it all is a function of tape and configuration.

A call of a sink is answered by the recorded call of the same exchange, sink and attempt. Where the gateway calls what
it had not called, nothing was recorded; what then happens is told by whoever plays (`unknown`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, NoReturn, final

import trio
from attrs import define, evolve, field
from trio.testing import wait_all_tasks_blocked

from ..model.changes import Changes
from ..model.document import Document
from ..model.exchange import Exchange, Service
from ..model.handle import Handle, Ticket
from ..model.session import Caller, Session
from ..protocol.messages import ErrorReply, Json, Notification, Reply, Result
from ..runtime.edges import Edges
from ..runtime.nursery import unwrap_single
from .entries import (
    Announced,
    Answered,
    Begun,
    CallAsked,
    Called,
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
from .values import caller_of, client_of, exception_of, message_of, reply_of

Unknown = Callable[[Exchange, str], Awaitable[Reply]]
"""Answers a call of a sink (its id) that is on no tape."""


@define(eq=False)
class _Inbox:
    """What the tape has of one call, as far as the player has come."""

    events: deque[CallRelayed | CallAsked | CallEnded] = field(factory=deque)
    news: trio.Event = field(factory=trio.Event)

    def put(self, entry: CallRelayed | CallAsked | CallEnded) -> None:
        self.events.append(entry)
        self.news.set()
        self.news = trio.Event()

    async def get(self) -> CallRelayed | CallAsked | CallEnded:
        while not self.events:
            await self.news.wait()
        return self.events.popleft()


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
    Plays one tape, once, on the clock that runs.

    Args:
        entries: The tape's, in order.
        epoch: The date at its beginning, in seconds since 1970; of its header.
        unknown: Answers calls that are on no tape.
    """

    def __init__(self, entries: Iterator[Entry], epoch: float, unknown: Unknown) -> None:
        self.lacking: list[str] = []
        """What was asked for that the tape does not have."""
        self._tape = Timeline(entries)
        self._epoch = epoch
        self._unknown = unknown
        self._zero = trio.current_time()
        self._made = 0
        self._changes: Changes | None = None
        self._feeds: dict[str, Handle] = {}
        self._sessions: dict[int, Session] = {}
        self._live: dict[int, _Live] = {}
        self._numbers: dict[int, int] = {}
        """Numbers that exchanges have on the tape, by identity of their link."""
        self._inboxes: dict[int, _Inbox] = {}
        self._nursery: trio.Nursery | None = None
        self._deliveries: Mapping[type[Entry], Callable[[Any], None]] = {
            Begun: self._begin,
            CancelAsked: self._cancel,
            Answered: self._answered,
            Ended: self._ended,
            CallRelayed: self._came,
            CallAsked: self._came,
            CallEnded: self._came,
            SessionOpened: self._open_session,
            SessionTold: self._tell_session,
            SessionClosed: self._close_session,
            Announced: self._announce,
            ClockSet: self._set_clock,
        }

    async def run(self) -> None:
        """
        Deliver everything that is on the tape; sources must be connected. Returns at its end; what has not ended on the
        tape is cancelled then.
        """
        with unwrap_single():
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                while (entry := self._tape.next()) is not None:
                    deliver = self._deliveries.get(type(entry))
                    if deliver is not None:
                        await trio.sleep_until(self._zero + entry.t)
                        await wait_all_tasks_blocked()
                        deliver(entry)
                await wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()

    def caller_of(self, exchange: Exchange) -> Caller | ErrorReply | None:
        """Who an exchange was found to be of, or how it was refused instead; see `PlayedIdentity`."""
        number = self._numbers.get(id(exchange.link))
        return None if number is None else self._tape.caller(number)

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

        def call(exchange: Exchange) -> Awaitable[Reply]:
            called = self._called(exchange, sink)
            if called is None:
                self.lacking.append(f"{sink}: an answer to {exchange.method} {exchange.target or ''}".rstrip())
                return self._unknown(exchange, sink)
            return self._answer(exchange, called)

        return call

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
                self.lacking.append(f"an id for {component}")
                found = f"replay-{self._made}"
            return found

        return make

    # Upstreams.

    def _called(self, exchange: Exchange, sink: str) -> Called | None:
        """The recorded call that answers this one."""
        message, attempt = exchange.request, exchange.attempt

        def same(called: Called) -> bool:
            return called.sink == sink and called.attempt == attempt

        number = self._numbers.get(id(exchange.link))
        if number is not None:
            return self._tape.call(number, same) or self._tape.call(number, lambda called: called.sink == sink)

        def alike(called: Called) -> bool:
            data = called.message
            return same(called) and data is not None and (data.method, data.params) == (message.method, message.params)

        return self._tape.call_of_any(alike)

    async def _answer(self, exchange: Exchange, called: Called) -> Reply:
        """Do what the sink did, as much later as it is called later; never earlier than it came."""
        inbox = self._inboxes.setdefault(called.call, _Inbox())
        late = max(0.0, trio.current_time() - self._zero - called.t)
        ended: CallEnded | None = None
        with unwrap_single():
            async with trio.open_nursery() as questions:
                while ended is None:
                    entry = await inbox.get()
                    if late:
                        await trio.sleep_until(self._zero + entry.t + late)
                    match entry:
                        case CallRelayed():
                            message = message_of(entry.message)
                            assert isinstance(message, Notification)
                            await exchange.relay(message)
                        case CallAsked():
                            questions.start_soon(exchange.ask, entry.message.method, entry.message.params)
                        case CallEnded():
                            ended = entry
                questions.cancel_scope.cancel()
        del self._inboxes[called.call]
        if ended.reply is not None:
            return reply_of(ended.reply)
        if ended.failure is not None:
            raise exception_of(ended.failure)
        return await _wait_to_be_cancelled()

    def _came(self, entry: CallRelayed | CallAsked | CallEnded) -> None:
        self._inboxes.setdefault(entry.call, _Inbox()).put(entry)

    def _announce(self, entry: Announced) -> None:
        assert self._changes is not None
        message = message_of(entry.message)
        assert isinstance(message, Notification)
        self._changes.announce(entry.sink, message)

    def _set_clock(self, entry: ClockSet) -> None:
        self._epoch = entry.epoch

    # Clients.

    def _begin(self, entry: Begun) -> None:
        if not entry.source:
            return  # a component began it of its own accord, and will
        feed = self._feeds.get(entry.source)
        if feed is None:
            self.lacking.append(f"a source {entry.source}")
            return
        assert entry.client is not None
        session = None if entry.client.session is None else self._sessions.get(entry.client.session)
        client = evolve(client_of(entry.client), session=session)
        live: _Live

        async def emit(_notification: Notification) -> None:
            await trio.lowlevel.checkpoint()

        async def ask(_method: str, _params: Mapping[str, Json]) -> Reply:
            return await self._ask(live)

        ticket = feed(message_of(entry.message), client=client, emit=emit, ask=ask if entry.can_ask else None)
        live = self._live[entry.exchange] = _Live(entry.exchange, ticket, session)
        exchange = ticket.exchange
        if entry.caller is not None:
            exchange.caller = exchange.link.caller = caller_of(entry.caller)
        self._numbers[id(exchange.link)] = entry.exchange
        assert self._nursery is not None
        self._nursery.start_soon(self._run, live)

    async def _run(self, live: _Live) -> None:
        exchange, session = live.ticket.exchange, live.session
        try:
            with live.scope:
                reply = await live.ticket.run()
                if exchange.method == "initialize" and session is not None:
                    _settle(session, reply)
        finally:
            del self._live[live.number]
            del self._numbers[id(exchange.link)]
            self._tape.forget(live.number)

    async def _ask(self, live: _Live) -> Reply:
        live.asked = number = live.asked + 1
        while number not in live.answers:
            await live.news.wait()
        reply = live.answers.pop(number)
        return await _wait_to_be_cancelled() if reply is None else reply

    def _answered(self, entry: Answered) -> None:
        live = self._live.get(entry.exchange)
        if live is not None:
            live.answers[entry.question] = None if entry.reply is None else reply_of(entry.reply)
            live.news.set()
            live.news = trio.Event()

    def _cancel(self, entry: CancelAsked) -> None:
        live = self._live.get(entry.exchange)
        if live is not None:
            live.ticket.cancel("shutdown" if entry.by == "shutdown" else "client")

    def _ended(self, entry: Ended) -> None:
        live = self._live.get(entry.exchange)
        if live is not None and entry.cancelled == "connection":
            live.scope.cancel()

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


async def _wait_to_be_cancelled() -> NoReturn:
    """What ended by being cancelled ends like that again."""
    await trio.sleep_forever()


def _settle(session: Session, reply: Reply | None) -> None:
    """What a source does when a handshake has ended."""
    version = reply.value.get("protocolVersion") if isinstance(reply, Result) else None
    if isinstance(version, str):
        session.version = version
    else:
        session.close()
