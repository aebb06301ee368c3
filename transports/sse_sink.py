"""
An upstream over HTTP+SSE, the transport of 2024-11-05: an event stream for each session, and POSTs beside it.

The transport was deprecated with 2025-03-26, and its servers know handshakes only: clients of 2026-07-28 are refused,
as by every upstream that is known to be legacy. What a session is, and when it is lost, is told in
`http_upstream/event_session.py`.

Nothing of what a client sent in HTTP goes upstream, its credentials least of all; the sink adds its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import final

import trio
from attrs import frozen

from sluiceway.pipeline.model.component import Context, Sink, sink
from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.figures import Figure
from sluiceway.pipeline.model.options import KIB, MIB, MINUTE, Duration, Size, option
from sluiceway.pipeline.model.session import Session
from sluiceway.pipeline.protocol.errors import UnsupportedVersion
from sluiceway.pipeline.protocol.mcp import LEGACY_VERSIONS, Era
from sluiceway.pipeline.protocol.messages import Json, Notification, Reply
from sluiceway.pipeline.runtime.nursery import open_background_nursery

from .http_client.statistics import figures_of, shown
from .http_upstream.config import RemoteConfig
from .http_upstream.event_feed import Traffic
from .http_upstream.event_session import EventSession
from .http_upstream.hosting import HostedSessions
from .http_upstream.reach import Reach
from .translation.losses import remarks
from .translation.translator import Translator


@final
@frozen
class SseSinkConfig(RemoteConfig):
    """Options of the `sse` sink."""

    idle_timeout: Duration = option(
        Duration(5 * MINUTE), gt=0,
        doc="Silence on an event stream after which the upstream is sent a ping; the stream is given up if nothing "
        "comes then.",
    )  # fmt: skip
    max_pending: int = option(
        1000, ge=1, doc="Requests of one session that may wait for a reply; above this they are refused.", example=1000
    )
    max_unsent: Size = option(
        Size(16 * MIB), ge=1 * KIB,
        doc="Bytes of one session that may wait to be taken by the upstream; above this requests are refused.",
    )  # fmt: skip


@final
@sink("sse")
class SseSink(Sink):
    """Speak to a server over HTTP+SSE, the transport of 2024-11-05."""

    Config = SseSinkConfig
    actions = MappingProxyType(
        {"restart": "Open new connections from now on, and end its sessions; clients initialize again."}
    )

    def __init__(self, config: SseSinkConfig, context: Context) -> None:
        super().__init__(config, context)
        self._config = config
        self._reach: Reach | None = None
        self._traffic = Traffic()
        self._sessions = HostedSessions(context.id, self._make)
        self._translator = Translator(self._serve, context, translate=config.translate, config=config.translation)

    @property
    def sessions(self) -> int:
        """Sessions that are open, those that are being ended included."""
        return len(self._sessions)

    def figures(self) -> Iterator[Figure]:
        """Its event streams, what was asked and came on them, and its pools of connections."""
        traffic = self._traffic
        yield Figure("sse_streams", self.sessions, "gauge", "Event streams of upstreams that are open.")
        yield Figure("sse_events_total", traffic.events, "counter", "Events of upstreams.")
        yield Figure("sse_bytes_total", traffic.bytes, "counter", "Bytes of their event streams.")
        yield Figure("sse_reconnects_total", traffic.reconnects, "counter", "Streams that were taken up again.")
        waiting = sum(hosted.connection.in_flight for _, hosted in self._sessions)
        yield from traffic.requests.figures(waiting)
        yield from self._translator.figures()
        if self._reach is not None:
            yield from figures_of(self._reach.client.reports())

    def details(self) -> Mapping[str, Json]:
        """How full its pools of connections are, and for whom it translates."""
        pools = {} if self._reach is None else {"connections": shown(self._reach.client.reports())}
        return {**pools, **self._translator.details()}

    @classmethod
    def remarks(cls, config: SseSinkConfig) -> Iterator[str]:
        """Whom it serves by translating."""
        return remarks("legacy", config.translate)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """
        Resolve secrets and read certificates; connections are opened by those who need them.

        Raises:
            ConnectFailed: A certificate cannot be read, or a secret cannot be sent in a header.
            LookupError: A secret cannot be resolved.
        """
        reach = Reach.make(self.context.id, self._config, self._heard)
        async with open_background_nursery() as nursery:
            self._reach = reach
            await reach.start(nursery)
            self._sessions.start(nursery)
            try:
                async with self._translator.open():
                    yield
                self._sessions.close()
                for _, session in self._sessions:
                    session.end()
                await self._sessions.wait_ended()
            finally:
                self._sessions.close()
                self._reach = None
                reach.close()

    async def __call__(self, exchange: Exchange) -> Reply:
        """
        Ask the upstream.

        Raises:
            UnsupportedVersion: A modern client asks, and nothing is translated.
            InvalidMessage: A client asks without a session.
            SessionNotFound: The session is not known here, or not any more.
            ConnectFailed: The upstream cannot be reached.
            CapacityExceeded: Too many requests wait, or too many streams are open.
            UpstreamFault: The upstream failed, or answered with something that is not MCP.
        """
        return await self._translator(exchange)

    async def act(self, action: str, arguments: Mapping[str, Json]) -> Json:
        """
        Start anew with the upstream; what is under way fails. See `Component.act`.

        Raises:
            LookupError: It is not `restart`.
            UpstreamUnavailable: The sink is closed.
        """
        await trio.lowlevel.checkpoint()
        if action != "restart":
            return await super().act(action, arguments)
        if self._reach is not None:
            self._reach.client.renew()
        return {"sessions": self._sessions.restart()}

    async def _serve(self, exchange: Exchange) -> Reply:
        """Ask the upstream in the client's session."""
        if exchange.client.era is Era.MODERN:
            raise UnsupportedVersion(
                f"{self.context.id}: the upstream speaks revisions with a handshake only; initialize a session",
                data={"supported": list(LEGACY_VERSIONS), "requested": exchange.client.version},
            )
        return await self._sessions(exchange)

    def _make(self, session: Session) -> EventSession:
        config = self._config
        assert self._reach is not None
        return EventSession(
            self._reach.upstream,
            config.url,
            session,
            idle_s=config.idle_timeout,
            max_pending=config.max_pending,
            max_unsent=config.max_unsent,
            announce=self._heard,
            traffic=self._traffic,
            log=self.context.log,
        )

    def _heard(self, notification: Notification) -> None:
        self.context.changes.announce(self.context.id, notification)
