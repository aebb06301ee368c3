"""
The lines to an upstream that carry many exchanges each: child processes, WebSockets.

Whose line: a legacy session has one of its own, begun by its handshake, because a legacy server knows a session by its
connection and keeps there what it said (capabilities, subscriptions, log level). All modern clients share one, because
their requests carry everything.

A line that is lost takes down what is in flight on it. The next use of the shared one begins another, after a pause if
it comes too soon (restarts.py). Every loss of the shared line counts for that; of a session's only one before its first
answer, for a client that crashes its own server must not take it from the others. A session's handshake is not
repeated on another line: what the old one had promised (subscriptions, tasks, answers half given) would be silently
gone. The session ends with its line instead: its requests are answered `SessionNotFound` (404 over HTTP), which tells
a client to initialize again, and that begins a new one.
"""

from __future__ import annotations

import contextvars
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, Generic, Literal, Protocol, TypeVar, final

import trio

from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.figures import Figure
from sluiceway.pipeline.model.session import Session
from sluiceway.pipeline.model.tools import LIST
from sluiceway.pipeline.protocol.errors import (
    CapacityExceeded,
    SessionNotFound,
    UnsupportedVersion,
    UpstreamUnavailable,
)
from sluiceway.pipeline.protocol.mcp import Era, Kind
from sluiceway.pipeline.protocol.messages import Notification, Reply, Result
from sluiceway.pipeline.runtime.correlation import CorrelationCounts
from sluiceway.pipeline.runtime.nursery import open_background_nursery

from .mirrors import Mirrors
from .multiplex import Multiplexer
from .outbox import Outbox
from .restarts import RestartConfig
from .stdio_era import StdioEra
from .stdio_health import Health, Server
from .strangers import answer_stranger

_LAST_ANSWERS_S: Final = 1.0
"""How long a session stays after its line was lost, so that the answers which say so can still leave through it."""


class Line(Server, Protocol):
    """A connection to a server, or the server itself."""

    connection: Multiplexer
    """What is in flight on it."""
    ended: trio.Event
    """Nothing of it is left."""

    @property
    def is_ending(self) -> bool:
        """It takes no more exchanges."""
        ...

    @property
    def end_text(self) -> str:
        """How it ended; follows the words `the server`."""
        ...

    def stop(self) -> None:
        """End it politely, in its own task. Idempotent."""
        ...

    async def run(self) -> None:
        """Serve until it is over; nothing of it is left afterwards."""
        ...


async def until_idle(line: Line, idle_s: float) -> None:
    """Return once nobody has used a line for so long."""
    while True:
        now = trio.current_time()
        end = (now if line.connection.in_flight else max(line.started_at, line.connection.last_used)) + idle_s
        if end <= now:
            return
        await trio.sleep_until(end)


L = TypeVar("L", bound=Line)
Begin = Callable[[Session | None], L]
"""Makes the line of a session, or the one of all modern clients (None). Must not block. May raise a `GatewayError`."""


def _nothing() -> None:
    """There is no session to forget."""


@final
class Lines(Generic[L]):
    """
    All lines of one sink.

    Args:
        context: The sink's.
        begin: Makes one; `run` is called on what it returns.
        era: What the upstream speaks; `auto` to find out.
        restart: How often lines may be lost.
        max_lines: How many there may be at a time.
        option: What that bound is called in the configuration.
        noun: What lines are called in errors.
    """

    def __init__(
        self,
        context: Context,
        begin: Begin[L],
        *,
        era: Literal["auto", "legacy", "modern"],
        restart: RestartConfig,
        max_lines: int,
        option: str,
        noun: str,
    ) -> None:
        self.running: set[L] = set()
        """Those that run, those that are being ended included."""
        self.health: Health | None = None
        """The condition of the upstream; None while the sink is closed."""
        self._context = context
        self._begin = begin
        self._era = StdioEra(context.id, era)
        self._restart = restart
        self._max_lines = max_lines
        self._option = option
        self._noun = noun
        self._mirrors = Mirrors()
        self._counts = CorrelationCounts()
        self._nursery: trio.Nursery | None = None
        self._lines: dict[Session | None, L] = {}

    @property
    def is_modern(self) -> bool:
        """Whether the upstream is known to speak modern revisions: then it serves modern clients as they are."""
        return self._era.is_modern

    def __len__(self) -> int:
        return len(self.running)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Until the block ends, lines can be begun; those that are left then are ended politely."""
        async with open_background_nursery() as nursery:
            self._nursery, self.health = nursery, Health(self._context, self._restart, nursery)
            try:
                yield
            finally:
                self._nursery = None
                self.health.close()
            self.stop()
            for line in list(self.running):
                await line.ended.wait()

    def __call__(self, exchange: Exchange) -> Coroutine[Any, Any, Reply]:
        """
        When awaited, ask on the caller's line, begun if need be.

        Raises:
            ConnectFailed: It could not be begun.
            CapacityExceeded: Too many lines, requests on this one, or bytes that wait for the upstream.
            InvalidMessage: A legacy client asks without a session.
            UnsupportedVersion: The upstream does not speak the client's kind of revision.
            HeaderMismatch: Headers of a call say something else than its arguments.
            SessionNotFound: The session's line is lost, and the session with it.
            UpstreamUnavailable: Lines were lost too often of late, or the sink is closed.
            UpstreamFault: The line was lost, or the answer was not MCP.
        """
        session = exchange.client.session
        if exchange.kind is Kind.NOTIFY:
            return self._notify(exchange.request, session)
        if exchange.client.era is Era.MODERN:
            return self._serve_modern(exchange)
        if session is None:
            return answer_stranger(exchange)
        if exchange.method == "initialize":
            return self._shake_hands(session, exchange)
        return self._serve_legacy(session, exchange)

    def stop(self) -> int:
        """End all that run, politely. Returns how many were not ending already."""
        ending = [line for line in self.running if not line.is_ending]
        for line in ending:
            line.stop()
        return len(ending)

    def connection(self, session: Session | None, outbox: Outbox, max_pending: int) -> Multiplexer:
        """What the line of a session needs to carry exchanges; for `begin`."""
        return Multiplexer(
            self._context.id, outbox, self._context.log, session=session, max_pending=max_pending,
            counts=self._counts, spawn=self._spawn_apart, announce=self._heard,
        )  # fmt: skip

    def figures(self) -> Iterator[Figure]:
        """What was asked on its lines."""
        return self._counts.figures(waiting=sum(line.connection.in_flight for line in self.running))

    def note_loss(self, session: Session | None, line: L) -> None:
        """The line of a session ended though nobody had asked for that."""
        if self.health is not None and (session is None or not line.proven):
            self.health.died(line.end_text, trio.current_time() - line.started_at)

    async def _serve_legacy(self, session: Session, exchange: Exchange) -> Reply:
        line = self._lines.get(session)
        if line is None or line.is_ending:
            line = await self._line_of(session, exchange.method)
        return await self._ask(line, exchange)

    async def _serve_modern(self, exchange: Exchange) -> Reply:
        era = self._era
        if not era.is_modern:
            era.check(exchange)
        line = self._lines.get(None)
        if line is None or line.is_ending:
            line = await self._shared_line()
        if not era.is_modern or self._mirrors.concern(exchange):
            return await self._serve_checked(line, exchange)
        reply = await line.connection.call(exchange)
        assert self.health is not None
        self.health.answered(line)
        if exchange.method == LIST:
            self._mirrors.learn(exchange, reply)
        return reply

    async def _serve_checked(self, line: L, exchange: Exchange) -> Reply:
        """What has to be asked before a modern client's request can be passed on."""
        ask = partial(self._ask, line)
        try:
            await self._mirrors.check(exchange, partial(self._era.call, call=ask))
            reply = await self._era.call(exchange, ask)
        except UnsupportedVersion:
            if self._era.is_legacy and not line.connection.in_flight:
                line.stop()  # nobody can use it
            raise
        self._mirrors.learn(exchange, reply)
        return reply

    async def _shake_hands(self, session: Session, exchange: Exchange) -> Reply:
        """Begin a session's line. One on which the handshake has failed is of no use, and no longer the session's."""
        self._era.check_handshake(exchange)
        line, opened = await self._line_of(session, exchange.method), session.version is not None
        try:
            reply = await self._ask(line, exchange)
            opened = opened or isinstance(reply, Result)
        finally:
            if not opened:
                if self._lines.get(session) is line:
                    del self._lines[session]
                line.stop()
        if not opened and len(self.running) >= self._max_lines:
            await line.ended.wait()  # whoever tries another way finds its place free
        return reply

    async def _ask(self, line: L, exchange: Exchange) -> Reply:
        reply = await line.connection.call(exchange)
        assert self.health is not None
        self.health.answered(line)
        return reply

    async def _notify(self, notification: object, session: Session | None) -> Reply:
        """Pass a notification on, if there is a line on which it can mean anything."""
        await trio.lowlevel.checkpoint()
        line = self._lines.get(session)
        if line is not None and not line.is_ending:
            assert isinstance(notification, Notification)
            line.connection.notify(notification)
        return Result()

    async def _shared_line(self) -> L:
        """The line of all modern clients; begun, when it may be, if there is none."""
        while (line := self._lines.get(None)) is None or line.is_ending:
            if not await self._admit():
                return self._start(None)
        return line

    async def _line_of(self, session: Session, method: str) -> L:
        while (line := self._lines.get(session)) is None and method == "initialize" and not session.closed:
            if not await self._admit():
                return self._start(session)
        if line is None or line.is_ending:
            raise SessionNotFound(f"{self._context.id}: the {self._noun} of this session is gone; initialize again")
        return line

    async def _admit(self) -> bool:
        """See `Health.admit`."""
        if self._nursery is None or self.health is None:
            raise UpstreamUnavailable(f"{self._context.id}: is closed, and begins no more {self._noun}s")
        return await self.health.admit()

    def _start(self, session: Session | None) -> L:
        """Begin a line; only right after `_admit`, with no checkpoint between."""
        if len(self.running) >= self._max_lines:
            raise CapacityExceeded(
                f"{self._context.id}: there are {self._max_lines} {self._noun}s already; raise {self._option} or end "
                "sessions"
            )
        line = self._begin(session)
        self._lines[session] = line
        self.running.add(line)
        self._spawn_apart(self._host, line, session)
        return line

    def _spawn_apart(self, function: Callable[..., Awaitable[None]], *args: object) -> None:
        """Start a task in a context of its own: what an upstream says must not be logged as said by who came first."""
        if self._nursery is not None:
            contextvars.Context().run(self._nursery.start_soon, function, *args)

    def _heard(self, notification: Notification) -> None:
        self._mirrors.heard(notification)
        self._context.changes.announce(self._context.id, notification)

    async def _host(self, line: L, session: Session | None) -> None:
        """The task of one line, and what its end means for the session that it belonged to."""
        forget = session.on_close(line.stop) if session is not None else _nothing
        lost = False
        try:
            await line.run()
        finally:
            forget()
            self.running.discard(line)
            if self.health is not None:
                self.health.forget(line)
            if self._lines.get(session) is line:
                lost = True
                del self._lines[session]
        if lost and session is not None and not session.closed:
            await trio.sleep(_LAST_ANSWERS_S)
            session.close()
