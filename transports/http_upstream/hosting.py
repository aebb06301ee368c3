"""
The sessions that an upstream over HTTP has for the sessions of our legacy clients, one for one.

Each is opened by its client's own handshake, hosted in a task of the sink, and gone when either side has ended it.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Final, Generic, Protocol, TypeVar, final

import trio

from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.session import Session
from sluiceway.pipeline.protocol.errors import SessionNotFound, UpstreamUnavailable
from sluiceway.pipeline.protocol.mcp import Kind
from sluiceway.pipeline.protocol.messages import Notification, Reply, Result

from ..strangers import answer_stranger


class Hosted(Protocol):
    """One session of the upstream."""

    ended: trio.Event
    """Set when nothing of it is left."""

    @property
    def is_ending(self) -> bool:
        """Whether it takes nothing any more; asked with each request."""
        ...

    async def run(self) -> None:
        """Host it until its end."""
        ...

    def end(self) -> None:
        """Have it end. Idempotent, never blocks."""
        ...

    async def initialize(self, exchange: Exchange) -> Reply:
        """Pass the client's handshake on, while `run` runs."""
        ...

    async def notify(self, notification: Notification) -> None:
        """Pass a notification on."""
        ...

    def call(self, exchange: Exchange) -> Coroutine[Any, Any, Reply]:
        """When awaited, pass a request on, one of those that follow the handshake."""
        ...


S = TypeVar("S", bound=Hosted)

_LAST_ANSWERS_S: Final = 1.0
"""How long a client's session stays after its upstream's was ended, so that answers can still leave through it."""


@final
class HostedSessions(Generic[S]):
    """
    All sessions of one sink.

    Args:
        name: What the upstream is called in errors: the sink's id.
        make: Makes one for a client's session. Must not block.
    """

    def __init__(self, name: str, make: Callable[[Session], S]) -> None:
        self._name = name
        self._make = make
        self._nursery: trio.Nursery | None = None
        self._hosted: dict[Session, S] = {}

    def __len__(self) -> int:
        """How many are open, those that are being ended included."""
        return len(self._hosted)

    def __iter__(self) -> Iterator[tuple[Session, S]]:
        """The clients' sessions and ours."""
        return iter(list(self._hosted.items()))

    def start(self, nursery: trio.Nursery) -> None:
        """Take handshakes from now on; sessions are hosted in `nursery`."""
        self._nursery = nursery

    def close(self) -> None:
        """Take no more handshakes."""
        self._nursery = None

    def restart(self) -> int:
        """
        End all, and the clients' sessions when the last answers are out. Returns how many were not ending already.

        Raises:
            UpstreamUnavailable: The sink is closed.
        """
        if self._nursery is None:
            raise UpstreamUnavailable(f"{self._name}: is closed, and opens no more sessions")
        ending = [(session, hosted) for session, hosted in self if not hosted.is_ending]
        for session, hosted in ending:
            hosted.end()
            self._nursery.start_soon(_close_later, session)
        return len(ending)

    async def wait_ended(self) -> None:
        """Wait until none is left; each must have been told to end."""
        for _, hosted in self:
            await hosted.ended.wait()

    def taking(self, session: Session | None) -> S | None:
        """The one that takes requests for a client's session; None if there is none, or not any more."""
        hosted = None if session is None else self._hosted.get(session)
        return None if hosted is None or hosted.is_ending else hosted

    async def __call__(self, exchange: Exchange) -> Reply:
        """
        Ask in the legacy client's session.

        Raises:
            InvalidMessage: It has none.
            SessionNotFound: It is not known here, or not any more.
            UpstreamUnavailable: The sink is closed.
            GatewayError: As the session does.
        """
        session = exchange.client.session
        if session is None:
            return await answer_stranger(exchange)
        known = self._hosted.get(session)
        if exchange.kind is Kind.NOTIFY:
            if known is not None and not known.is_ending:
                assert isinstance(exchange.request, Notification)
                await known.notify(exchange.request)
            return Result()
        if known is None and exchange.method == "initialize":
            return await self._initialize(exchange, session)
        if known is None or known.is_ending:
            raise SessionNotFound(f"{self._name}: the upstream has no such session; initialize again")
        return await known.call(exchange)  # a second handshake too: it is for the upstream to refuse

    async def _initialize(self, exchange: Exchange, session: Session) -> Reply:
        if self._nursery is None:
            raise UpstreamUnavailable(f"{self._name}: is closed, and opens no more sessions")
        opening = self._hosted[session] = self._make(session)
        opened = False
        # in a context of its own: what happens later must not be logged as caused by whoever came first
        contextvars.Context().run(self._nursery.start_soon, self._host, opening, session)
        try:
            reply = await opening.initialize(exchange)
            opened = isinstance(reply, Result)
            return reply
        finally:
            if not opened:
                opening.end()

    async def _host(self, hosted: S, session: Session) -> None:
        try:
            await hosted.run()
        finally:
            del self._hosted[session]


async def _close_later(session: Session) -> None:
    await trio.sleep(_LAST_ANSWERS_S)
    session.close()
