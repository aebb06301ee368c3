"""
One legacy session's part at one upstream: a session of its own, and the handshake that opened it.

To its upstream a leg is a client session like any other. When it ends because the upstream's process or session died,
the client's session and its other legs go on: the handshake is repeated for that upstream alone at its next use, with
everything the client had asked of it (log level, subscriptions).

The session at the upstream outlives the route: after a reload the leg of the next generation goes on with it, unless
the upstream turns out not to know it, because its sink is another one.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Mapping
from typing import Final, final

import trio
from attrs import define, field
from msgspec.structs import replace

from sluiceway.pipeline.model.exchange import Exchange, Link
from sluiceway.pipeline.model.session import Asker, Client, Session
from sluiceway.pipeline.protocol.errors import GatewayError, UpstreamUnavailable
from sluiceway.pipeline.protocol.mcp import Kind, method_of
from sluiceway.pipeline.protocol.messages import EMPTY, ErrorReply, Json, Notification, Reply, Request, Result

from .naming import Upstream

HANDSHAKE_S: Final = 120.0
"""Time a handshake may take in the background: a server's first start may download it."""
PAUSE_S: Final = 1.0
"""Time before a handshake that failed is tried again."""


@final
@define(eq=False)
class Tie:
    """A session at an upstream whose handshake succeeded, and the legs that use it: two while a reload is under way."""

    session: Session
    result: Mapping[str, Json]
    """The upstream's answer to `initialize`."""
    legs: int = 1

    def forget(self) -> None:
        """It is nobody's to go on with: the last leg that uses it ends it."""
        if self.legs == 0:
            self.session.close()


@final
@define(eq=False)
class Promises:
    """What a legacy client has said once and for all; kept in its session, so that it survives a reload."""

    initialize: Exchange | None = None
    """The exchange of its handshake, over by now; the pattern of those with late upstreams."""
    initialized: bool = False
    """It has sent `notifications/initialized`."""
    level: Mapping[str, Json] | None = None
    """Params of its latest `logging/setLevel`."""
    uris: dict[str, set[str]] = field(factory=dict)
    """What it subscribed to, by id of the upstream."""
    ties: dict[str, Tie] = field(factory=dict)
    """Its sessions at upstreams, by their id."""


async def say_nothing(_: Notification) -> None:
    """Nobody waits for notifications of a handshake."""
    await trio.lowlevel.checkpoint()


@final
class Leg:
    """
    A legacy session at one upstream.

    Args:
        upstream: Where.
        parent: The client's session.
        promises: What the client said.
        nursery: Where handshakes run; outlasts the leg.
        through: What the upstream's questions to the session pass on their way to the client.
        heard: Called with what the upstream says to the session outside any exchange.
        opened: Called when a handshake has succeeded; True if nobody waited for it.
    """

    def __init__(
        self,
        upstream: Upstream,
        parent: Session,
        promises: Promises,
        nursery: trio.Nursery,
        through: Callable[[Asker], Asker],
        heard: Callable[[Notification], None],
        opened: Callable[[Leg], None],
    ) -> None:
        self.upstream = upstream
        self.session: Session | None = None
        self.result: Mapping[str, Json] = EMPTY
        """The upstream's answer to `initialize`."""
        self._parent = parent
        self._promises = promises
        self._nursery = nursery
        self._through = through
        self._heard = heard
        self._opened = opened
        self._opening: trio.Event | None = None
        self._scope = trio.CancelScope()
        self._failure: GatewayError | None = None
        self._retry_at = -float("inf")
        self._tie: Tie | None = None
        tie = promises.ties.get(upstream.id)
        if tie is not None and not tie.session.closed:
            self._hold(tie)

    @property
    def is_open(self) -> bool:
        """Whether the handshake has succeeded, and its session has not ended since."""
        return self._opening is None and self.session is not None and not self.session.closed

    async def ready(self) -> Session:
        """
        Wait until the upstream knows the session. Not a checkpoint where it does.

        Raises:
            UpstreamUnavailable: The handshake failed.
        """
        if not self.is_open:
            if self._opening is None and trio.current_time() >= self._retry_at:
                self._begin()
            if self._opening is not None:
                await self._opening.wait()
        if self._failure is not None or self.session is None:
            raise UpstreamUnavailable(
                f"{self.upstream.id} is not available: {self._failure or 'its handshake was ended'}",
                retry_after_s=PAUSE_S,
            ) from self._failure
        return self.session

    def renew(self) -> None:
        """The client introduces itself, once more perhaps: what it said before does not count."""
        if self._opening is None:
            self.lost()
            self.session, self._retry_at = None, -float("inf")

    def lost(self) -> None:
        """The upstream does not know the session any more."""
        tie, session = self._tie, self.session
        if tie is None:
            if session is not None:
                session.close()
            return
        if self._promises.ties.get(self.upstream.id) is tie:
            del self._promises.ties[self.upstream.id]
        self.session = None
        self._let_go(tie)

    def close(self) -> None:
        """The client is gone: end the session at the upstream."""
        self._scope.cancel(reason="the client's session ended")
        if self.session is not None:
            self.session.close()

    def leave(self) -> None:
        """The route closes: the session is left to the leg that comes after this one, if it is one to go on with."""
        self._scope.cancel(reason="the route is closing")
        if self._tie is not None:
            self._let_go(self._tie)
        elif self.session is not None:
            self.session.close()

    def _hold(self, tie: Tie) -> None:
        """Go on with a session that another leg opened."""
        tie.legs += 1
        self._tie, self.session, self.result = tie, tie.session, tie.result
        tie.session.notify = self._heard

    def _let_go(self, tie: Tie) -> None:
        """The last one ends a session that nobody can go on with."""
        self._tie = None
        tie.legs -= 1
        if tie.legs == 0 and self._promises.ties.get(self.upstream.id) is not tie:
            tie.session.close()

    def client(self, client: Client) -> Client:
        """The client as this upstream knows it."""
        return replace(client, session=self.session)

    def _begin(self) -> None:
        """Open a session of its own, in a task that outlives whoever needs it first."""
        parent, pattern = self._parent, self._promises.initialize
        self.session = Session(
            id=f"{parent.id}.{self.upstream.id}",
            source=parent.source,
            caller=parent.caller,
            last_activity=trio.current_time(),
            version=parent.version if pattern is None else None,
            capabilities=parent.capabilities,
            info=parent.info,
            state=parent.state,
            notify=self._heard,
            ask=None if parent.ask is None else self._through(parent.ask),
        )
        self.session.on_close(parent.on_close(self.session.close))
        if pattern is not None and not self._parent.closed:
            self._opening, self._scope = trio.Event(), trio.CancelScope()
            # in a context of its own: what is logged there is not said by whoever came first
            contextvars.Context().run(self._nursery.start_soon, self._greet, pattern, self._opening)

    async def _greet(self, pattern: Exchange, opening: trio.Event) -> None:
        self._failure = None
        try:
            with trio.move_on_after(HANDSHAKE_S) as timeout, self._scope:
                await self._shake_hands(pattern)
            if timeout.cancelled_caught:
                self._failure = UpstreamUnavailable(f"no answer to its handshake within {HANDSHAKE_S:g} s")
        except GatewayError as error:
            self._failure = error
        finally:
            self._opening = None
            if self._failure is not None or self._scope.cancelled_caught:
                self._retry_at = trio.current_time() + PAUSE_S
                self.lost()
                self.session = None
            opening.set()
        if self.is_open:
            assert self.session is not None
            self._tie = self._promises.ties[self.upstream.id] = Tie(self.session, self.result)
            self._opened(self)

    async def _shake_hands(self, pattern: Exchange) -> None:
        assert isinstance(pattern.request, Request)
        reply = await self._say(pattern, pattern.request)
        if isinstance(reply, ErrorReply):
            raise UpstreamUnavailable(f"it refused the handshake: {reply.message}")
        self.result = reply.value
        assert self.session is not None
        version = self.result.get("protocolVersion")
        self.session.version = version if isinstance(version, str) else None
        promises = self._promises
        if promises.initialized:
            await self._say(pattern, Notification("notifications/initialized"))
        if promises.level is not None and "logging" in self.capabilities:
            await self._say(pattern, Request(pattern.request.id, "logging/setLevel", promises.level))
        for uri in sorted(promises.uris.get(self.upstream.id, ())):
            await self._say(pattern, Request(pattern.request.id, "resources/subscribe", {"uri": uri}))

    @property
    def capabilities(self) -> Mapping[str, Json]:
        """What the upstream declared in its handshake; empty before."""
        declared = self.result.get("capabilities")
        return declared if isinstance(declared, dict) else EMPTY

    async def _say(self, pattern: Exchange, message: Request | Notification) -> Reply:
        """Send something on the client's behalf, as an exchange of its own."""
        exchange = Exchange(
            request=message,
            kind=method_of(message.method).kind,
            client=self.client(pattern.client),
            source=pattern.source,
            caller=pattern.caller,
            link=Link(say_nothing, caller=pattern.caller),
        )
        reply = await self.upstream.service(exchange)
        return Result() if exchange.kind is Kind.NOTIFY else reply
