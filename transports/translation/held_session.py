"""
A session at a legacy upstream that the gateway holds for one modern caller.

Opened by a handshake in the client's name when it is first needed. When the upstream ends it, the next use opens
another one, with the log level and the subscriptions of the first; a request is sent again only if the upstream said
that it does not know the session, and so has not served it.
"""

from __future__ import annotations

import contextvars
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Final, final

import trio
from attrs import define, field
from msgspec.structs import replace

from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.model.exchange import Exchange, Link, Service, deliver
from sluiceway.pipeline.model.session import Asker, Session
from sluiceway.pipeline.protocol.errors import (
    GatewayError,
    SessionNotFound,
    UpstreamProtocolError,
    UpstreamUnavailable,
)
from sluiceway.pipeline.protocol.mcp import Era, ErrorCode
from sluiceway.pipeline.protocol.messages import EMPTY, ErrorReply, Json, Notification, Reply, Request

from .audience import Audience
from .held_introduction import Introduction
from .held_task import HeldTask
from .listener import Listener
from .task_messages import LEGACY_STATUS, modern_task, task_of
from .to_legacy_messages import Completer, legacy_request

HANDSHAKE_S: Final = 60.0
"""Time a handshake may take: a server's first start may download it."""
PAUSES_S: Final = (1.0, 60.0)
"""Shortest and longest pause before a session that somebody listens to is opened again; it doubles, with jitter."""

Emit = Callable[[Notification], Awaitable[None]]
"""Takes what the upstream says about a request; may block."""


@final
@define(eq=False)
class _Opening:
    """A handshake under way, and what became of it."""

    done: trio.Event = field(factory=trio.Event)
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    failure: GatewayError | None = None


@final
class HeldSession:
    """
    Args:
        name: The sink's id.
        call: Asks the upstream.
        context: The sink's.
        nursery: Hosts handshakes; outlasts the session.
        exchange: The first one of the caller: in its client's name the session is opened.
        crowd: Several people may stand behind the caller, so that what is not addressed is nobody's.
        make_room: Ends an idle session of another caller, where the sink has no place for one more; whether it did.
    """

    def __init__(
        self,
        name: str,
        call: Service,
        context: Context,
        nursery: trio.Nursery,
        exchange: Exchange,
        *,
        crowd: bool,
        make_room: Callable[[], bool],
    ) -> None:
        self._name = name
        self._call = call
        self._context = context
        self._nursery = nursery
        self._crowd = crowd
        self._session: Session | None = None
        self._handshake: Mapping[str, Json] = EMPTY
        self._opening: _Opening | None = None
        self._closed = False
        self._introduction = Introduction(name, call, exchange, self.ask, make_room)
        self.audience = Audience(self._request)
        """Who hears what the upstream says of its own accord."""
        self.completer = Completer()
        """Makes modern results of what this upstream says."""
        self.tasks: dict[str, HeldTask] = {}
        """The client's tasks at the upstream, by the upstream's ids, oldest first."""
        self.creating = 0
        """Tasks that the upstream is being asked for."""
        self.users = 0
        """Exchanges, calls and listeners that need it."""
        self.last_used = trio.current_time()
        """When the latest of them went, in Trio clock seconds."""

    @property
    def capabilities(self) -> Mapping[str, Json]:
        """What the upstream declared in its latest handshake."""
        declared = self._handshake.get("capabilities")
        return declared if isinstance(declared, dict) else EMPTY

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """While somebody needs it, it is not ended to make room for others."""
        self.users += 1
        try:
            yield
        finally:
            self.users -= 1
            self.last_used = trio.current_time()

    async def ready(self) -> Session:
        """
        The session; opened if there is none. Not a checkpoint if there is one.

        Raises:
            UpstreamUnavailable: The upstream refuses the handshake, or does not answer it.
            GatewayError: As its sink does.
        """
        if self._session is not None:
            return self._session
        if self._closed:
            raise self.ended()
        opening = self._opening
        if opening is None:
            opening = self._opening = _Opening()
            # in a context of its own: what the upstream says later must not be logged as said by whoever came first
            contextvars.Context().run(self._nursery.start_soon, self._open, opening)
        await opening.done.wait()
        if opening.failure is not None:
            raise opening.failure.with_data()
        if self._session is None:
            raise self.ended()
        return self._session

    async def offers(self) -> Mapping[str, Json]:
        """What the upstream declares, if need be in a session that is opened for it. Raises as `ready`."""
        await self.ready()
        return self.capabilities

    def close(self) -> None:
        """End the session, and tell the upstream as its sink does. Idempotent."""
        self._closed = True
        if self._opening is not None:
            self._opening.scope.cancel(reason="the held session is closed")
        self.audience.finish()
        for task in self.tasks.values():
            task.scope.cancel(reason="the held session is closed")
        if self._session is not None:
            self._session.close()

    def ended(self) -> UpstreamUnavailable:
        """What callers are told when it is closed around them."""
        return UpstreamUnavailable(f"{self._name}: the session held for this caller was ended; try again")

    async def pass_on(
        self, exchange: Exchange, emit: Emit, ask: Asker | None = None, deadline: float = float("inf")
    ) -> Reply:
        """
        Send a modern request as a legacy one; its reply as the upstream gave it.

        Args:
            exchange: The client's.
            emit: Takes what the upstream says about it.
            ask: Takes what the upstream asks because of it; None leaves that to the session's own calls.
            deadline: Until when somebody waits, in Trio clock seconds.

        Raises:
            UpstreamUnavailable: The upstream ends every session that is opened.
            GatewayError: As its sink does.
        """
        request = exchange.request
        assert isinstance(request, Request)
        link = Link(emit, ask or self.ask, deadline, caller=exchange.link.caller)

        def inward(session: Session, number: int) -> Exchange:
            return replace(
                exchange,
                request=legacy_request(request, number),
                client=replace(exchange.client, era=Era.LEGACY, version=session.version, session=session, headers={}),
                link=link,
                marks={},
                way_back=deliver,
                around_sink=None,
            )

        return await self._send(inward)

    async def ask(self, method: str, params: Mapping[str, Json]) -> Reply:
        """Put a question that came without an address to the call which caused it, if that can be known."""
        task = self.tasks.get(str(task_of(params)))
        if task is not None:
            return await task.ask(method, params)
        call = self.audience.addressee(crowd=self._crowd)
        if call is None:
            await trio.lowlevel.checkpoint()
            return ErrorReply(ErrorCode.METHOD_NOT_FOUND, f"{method:.60}: whom to ask about this cannot be known")
        return await call.ask(method, params)

    async def listen(self, listener: Listener) -> None:
        """
        Let a stream hear what the upstream says, from now on until `leave`.

        Raises:
            GatewayError: As `ready`.
        """
        await self.ready()
        await self.audience.listen(listener, self.capabilities)

    def leave(self, listener: Listener) -> None:
        """Forget a stream."""
        uris = self.audience.leave(listener)
        if uris and not self._closed:
            self._nursery.start_soon(self._unsubscribe, uris)

    async def _unsubscribe(self, uris: list[str]) -> None:
        try:
            with self.in_use():
                await self.audience.unsubscribe(uris, tell=self._session is not None)
        except GatewayError as error:
            self._context.log.debug("the upstream was not told that nobody listens", reason=error.reason)

    def _hear(self, notification: Notification) -> None:
        """Take what the upstream says of its own accord; never blocks, and never raises."""
        if notification.method != LEGACY_STATUS:
            self.audience.hear(notification)
            return
        try:
            known = modern_task(self._name, notification.params, self._context.now())
        except UpstreamProtocolError:
            return
        task = self.tasks.get(str(known["taskId"]))
        if task is not None:
            task.heard(known)

    async def _request(self, method: str, params: Mapping[str, Json]) -> Reply:
        """Ask the upstream something of our own."""
        return await self._send(
            lambda session, number: self._introduction.exchange(session, Request(number, method, params))
        )

    async def _send(self, inward: Callable[[Session, int], Exchange]) -> Reply:
        """Ask the upstream, once more with another session if it does not know the first."""
        lost = 0
        while True:
            session = await self.ready()
            session.last_activity = trio.current_time()
            try:
                return await self._call(inward(session, self._introduction.next_id()))
            except SessionNotFound as error:
                self._forget(session)
                lost += 1
                if lost > 1:
                    raise UpstreamUnavailable(
                        f"{self._name}: the upstream ends the sessions that are opened for this caller; try again"
                    ) from error

    async def _open(self, opening: _Opening) -> None:
        """Shake hands; the task of an opening."""
        session = self._introduction.session(self._context.new_id(), self._hear)
        opened = False
        try:
            with trio.move_on_after(HANDSHAKE_S) as patience, opening.scope:
                await self._shake_hands(session)
                opened = not session.closed
            if patience.cancelled_caught:
                opening.failure = UpstreamUnavailable(
                    f"{self._name}: no answer to a handshake within {HANDSHAKE_S:g} s"
                )
        except SessionNotFound as error:
            opening.failure = UpstreamUnavailable(f"{self._name}: the upstream ended a session at once: {error}")
        except GatewayError as error:
            opening.failure = error
        finally:
            self._opening = None
            if opened and not self._closed:
                self._session = session
                session.on_close(lambda: self._forget(session))
            else:
                session.close()
            opening.done.set()

    async def _shake_hands(self, session: Session) -> None:
        self._handshake = await self._introduction.shake_hands(session)
        self.completer = Completer(self._handshake)
        await self.audience.introduce(self.capabilities, partial(self._introduction.say, session))

    def _forget(self, session: Session) -> None:
        """The session has ended, or the upstream does not know it."""
        if self._session is not session:
            return
        self._session = None
        session.close()
        if self.audience.is_listening and not self._closed:
            self._nursery.start_soon(self._reopen)

    async def _reopen(self) -> None:
        """Somebody listens: open another session in place of one that has ended."""
        pause = PAUSES_S[0]
        while self.audience.is_listening and not self._closed:
            try:
                await self.ready()
            except GatewayError as error:
                self._context.log.warning("an upstream is not heard", error=str(error))
                await trio.sleep(pause * (0.5 + self._context.random.random() / 2))
                pause = min(2 * pause, PAUSES_S[1])
            else:
                self.audience.missed()
                return
