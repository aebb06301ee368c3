"""
An upstream over Streamable HTTP, in both eras (MCP 2025-03-26 to 2026-07-28, basic/transports).

A modern client's request is one POST. A legacy client's session is one session of the upstream, opened by the
client's own handshake. Each kind of client needs an upstream of its kind; which kinds an upstream is of is found out
and remembered.

Nothing of what a client sent in HTTP goes upstream, its credentials least of all: headers are made anew from the body,
and the sink adds credentials of its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Any, Final, final

import trio

from sluiceway.pipeline.model.changes import LIST_CHANGES
from sluiceway.pipeline.model.component import Context, Sink, State, sink
from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.figures import Figure
from sluiceway.pipeline.model.origin import parse_origin
from sluiceway.pipeline.model.session import Session
from sluiceway.pipeline.protocol.errors import UnsupportedVersion, UpstreamUnavailable
from sluiceway.pipeline.protocol.mcp import LEGACY_VERSIONS, MODERN_VERSIONS, Era, Kind
from sluiceway.pipeline.protocol.messages import Json, Notification, Reply
from sluiceway.pipeline.runtime.nursery import open_background_nursery

from .http_client.client import HttpClient
from .http_client.statistics import figures_of, shown
from .http_upstream.config import HttpSinkConfig
from .http_upstream.following import FollowedName, lookup_of
from .http_upstream.hosting import HostedSessions
from .http_upstream.legacy import LegacySession
from .http_upstream.modern import ModernUpstream
from .http_upstream.reach import Reach
from .http_upstream.upstream import Upstream
from .mirrors import Mirrors
from .translation.losses import remarks
from .translation.translator import Translator

_CLOSING_S: Final = 1.0
"""How long the sink waits for handshakes under way when it closes."""


@final
@sink("http")
class HttpSink(Sink):
    """Speak to a server over Streamable HTTP."""

    Config = HttpSinkConfig
    actions = MappingProxyType(
        {"restart": "Open new connections from now on, and end its sessions; clients initialize again."}
    )

    def __init__(self, config: HttpSinkConfig, context: Context) -> None:
        super().__init__(config, context)
        self._config = config
        self._connections: HttpClient | None = None
        self._upstream: Upstream | None = None
        self._modern: ModernUpstream | None = None
        self._mirrors = Mirrors()
        self._sessions = HostedSessions(context.id, self._make)
        self._translator = Translator(
            self._serve, context, translate=config.translate, config=config.translation, addressed=True
        )

    @property
    def sessions(self) -> int:
        """Legacy sessions that are open, those that are being ended included."""
        return len(self._sessions)

    @classmethod
    def remarks(cls, config: HttpSinkConfig) -> Iterator[str]:
        """Whom it serves by translating."""
        return remarks(config.era, config.translate)

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
            self._connections, self._upstream = reach.client, reach.upstream
            self._modern = ModernUpstream(reach.upstream, detect=self._config.era != "modern", mirrors=self._mirrors)
            await reach.start(nursery)
            self._sessions.start(nursery)
            if self._config.follow_name is not None:
                nursery.start_soon(self._followed(reach.client, self._config.follow_name).run)
            try:
                async with self._translator.open():
                    yield
                self._sessions.close()
                for _, session in self._sessions:
                    session.end(within_s=_CLOSING_S)
                await self._sessions.wait_ended()
            finally:
                self._sessions.close()
                self._connections = self._upstream = self._modern = None
                reach.close()

    def __call__(self, exchange: Exchange) -> Coroutine[Any, Any, Reply]:
        """
        When awaited, ask the upstream.

        Raises:
            UnsupportedVersion: The upstream does not speak the client's kind of revision.
            InvalidMessage: A legacy client asks without a session.
            SessionNotFound: The session is not known here, or not any more.
            ConnectFailed: The upstream cannot be reached.
            CapacityExceeded: Too many requests wait for a connection, or too many streams are open.
            UpstreamFault: The upstream failed, or answered with something that is not MCP.
        """
        client, modern = exchange.client, self._modern
        if client.era is Era.MODERN:  # nearly always the upstream is known to be of the client's kind: no detour
            if modern is not None and modern.is_modern:
                return modern.call(exchange)
        elif exchange.kind is Kind.CALL:
            session = self._sessions.taking(client.session)
            if session is not None:
                return session.call(exchange)
        return self._translator(exchange)

    def figures(self) -> Iterator[Figure]:
        """What is translated for clients of the other era, and its pools of connections."""
        yield from self._translator.figures()
        if self._connections is not None:
            yield from figures_of(self._connections.reports())

    def details(self) -> Mapping[str, Json]:
        """How full its pools of connections are, and for whom it translates."""
        pools = {} if self._connections is None else {"connections": shown(self._connections.reports())}
        return {**pools, **self._translator.details()}

    def _serve(self, exchange: Exchange) -> Coroutine[Any, Any, Reply]:
        """Ask the upstream in the client's era when awaited."""
        if exchange.client.era is Era.MODERN:
            return self._serve_modern(exchange)
        if self._config.era == "modern" and exchange.method == "initialize":
            raise UnsupportedVersion(
                f"{self.context.id}: serves revisions without a handshake only",
                data={
                    "supported": list(MODERN_VERSIONS),
                    "requested": exchange.request.params.get("protocolVersion"),
                },
            )
        return self._sessions(exchange)

    async def act(self, action: str, arguments: Mapping[str, Json]) -> Json:
        """
        Start anew with the upstream; what is under way may end where it is. See `Component.act`.

        Raises:
            LookupError: It is not `restart`.
            UpstreamUnavailable: The sink is closed.
        """
        await trio.lowlevel.checkpoint()
        if action != "restart":
            return await super().act(action, arguments)
        if self._connections is None:
            raise self._is_closed()
        self._connections.renew()
        return {"sessions": self._sessions.restart()}

    def _serve_modern(self, exchange: Exchange) -> Coroutine[Any, Any, Reply]:
        if self._config.era == "legacy":
            raise UnsupportedVersion(
                f"{self.context.id}: serves revisions with a handshake only; initialize a session",
                data={"supported": list(LEGACY_VERSIONS), "requested": exchange.client.version},
            )
        if self._modern is None:
            raise self._is_closed()
        return self._modern.call(exchange)

    def _make(self, session: Session) -> LegacySession:
        assert self._upstream is not None
        return LegacySession(self._upstream, session, self.context.random, self.context.log)

    def _followed(self, client: HttpClient, every_s: float) -> FollowedName:
        origin = parse_origin(self._config.url)

        def moved() -> None:
            self.context.log.info("the upstream has moved", host=origin.host)
            client.renew()

        def present(is_there: bool) -> None:
            if is_there:
                self.context.report(State.READY, "")
            else:
                self.context.report(State.DEGRADED, f"{origin.host} leads nowhere")
            for method in LIST_CHANGES:
                self._tell(Notification(method))

        lookup = lookup_of(origin.host, origin.port)
        return FollowedName(lookup, every_s, on_moved=moved, on_presence=present)

    def _tell(self, notification: Notification) -> None:
        """Tell everybody of a change that the upstream cannot tell of itself."""
        self._heard(notification)
        self._translator.tell(notification)
        for session, _ in self._sessions:
            if session.version is not None:
                session.notify(notification)

    def _heard(self, notification: Notification) -> None:
        self._mirrors.heard(notification)
        self.context.changes.announce(self.context.id, notification)

    def _is_closed(self) -> UpstreamUnavailable:
        return UpstreamUnavailable(f"{self.context.id}: is closed, and opens no more sessions")
