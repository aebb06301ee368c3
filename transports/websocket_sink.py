"""
An upstream that speaks MCP over a WebSocket with the sub-protocol `mcp`: many exchanges on one connection.

No revision of MCP defines this transport; both ends keep JSON-RPC and the life cycle of MCP. Whose connection: a legacy
session has one of its own, opened by its handshake, because a server knows a session by its connection. All modern
clients share one, because their requests carry everything. Cancel notices are messages, as on stdio.

A connection that is lost takes down what is in flight on it. The next use of the shared one opens a new one, after a
pause if it comes too soon; a session ends with its connection, and its client is told to initialize again, for what the
old connection had promised would be silently gone.
"""

from __future__ import annotations

import contextvars
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Final, Literal, final

import trio
from attrs import frozen

from sluiceway.pipeline.model.component import Context, Sink, sink
from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.figures import Figure
from sluiceway.pipeline.model.options import KIB, MIB, SECOND, Duration, Secret, Size, option
from sluiceway.pipeline.model.origin import Origin, parse_origin
from sluiceway.pipeline.model.session import Session
from sluiceway.pipeline.protocol.errors import (
    CapacityExceeded,
    ConnectFailed,
    InvalidMessage,
    SessionNotFound,
    UpstreamUnavailable,
)
from sluiceway.pipeline.protocol.mcp import Era, Kind
from sluiceway.pipeline.protocol.messages import Notification, Reply, Result
from sluiceway.pipeline.runtime.nursery import open_background_nursery

from .http_client.client import render_headers
from .http_client.connect import Dialer, make_tls
from .http_upstream.config import TlsConfig
from .mirrors import Mirrors
from .multiplex import Multiplexer
from .outbox import Outbox
from .restarts import RestartConfig
from .stdio_era import StdioEra
from .stdio_health import Health
from .websocket.uplink import Target, Uplink
from .websocket.wire import WireLimits

_LAST_ANSWERS_S: Final = 1.0
"""How long a session stays after its connection, so that the answers which say so can still leave through it."""
_SCHEMES: Final = {"ws": "http", "wss": "https"}
_OURS: Final = frozenset({"host", "connection", "upgrade", "content-length", "transfer-encoding"})
"""Headers that the sink writes itself, besides `sec-websocket-*`."""


def _nothing() -> None:
    """There is no session to forget."""


def parse_address(url: str) -> Origin:
    """
    Take a `ws` or `wss` URL apart.

    Raises:
        ValueError: It is none, or has parts that must not be in it.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in _SCHEMES:
        raise ValueError("url: write ws:// or wss:// and what follows")
    return parse_origin(f"{_SCHEMES[scheme]}://{rest}")


@final
@frozen
class WebSocketSinkConfig:
    """Options of the `websocket` sink."""

    url: str = option(doc="The MCP endpoint of the upstream, ws:// or wss://.", example="wss://search.example.com/mcp")
    era: Literal["auto", "legacy", "modern"] = option(
        "auto",
        doc="Which revisions the upstream speaks: with a handshake (up to 2025-11-25), or without (2026-07-28). `auto` "
        "finds out. Clients of the other kind are refused.",
    )
    headers: Mapping[str, str | Secret] = option(
        factory=dict,
        doc="Headers of the request that opens a connection, such as a credential. Nothing of the client's own headers "
        "is passed on.",
        example={"authorization": {"from_env": "SEARCH_AUTHORIZATION"}},
    )
    tls: TlsConfig = option(
        TlsConfig(), doc="Trust and client certificate for a wss upstream.", example={"ca": "./tls/ca.pem"}
    )
    allow_private: bool = option(
        False,
        doc="Whether the upstream's name may lead to a private, loopback or link-local address. One that the url "
        "itself names is allowed anyway.",
    )
    connect_timeout: Duration = option(
        Duration(10 * SECOND),
        gt=0,
        doc="Time for name resolution, TCP and TLS, and again for the WebSocket's handshake.",
    )
    ping_interval: Duration = option(
        Duration(20 * SECOND), gt=0, doc="Silence after which the upstream is asked with a ping whether it is there."
    )
    ping_timeout: Duration = option(
        Duration(20 * SECOND), gt=0,
        doc="Time after a ping in which the upstream must send something, or read what was sent to it; else the "
        "connection is given up.",
    )  # fmt: skip
    max_message: Size = option(
        Size(16 * MIB), ge=1 * KIB,
        doc="Bytes of a message of the upstream; a longer one ends its connection with code 1009.",
    )  # fmt: skip
    max_pending: int = option(
        1000, ge=1, doc="Requests on one connection that may wait for a reply; above this they are refused."
    )
    max_unsent: Size = option(
        Size(16 * MIB), ge=1 * KIB,
        doc="Bytes on one connection that may wait for the upstream to read them; above this requests are refused.",
    )  # fmt: skip
    max_connections: int = option(
        64, ge=1, doc="Connections at the same time: one for each legacy session, one for all modern clients."
    )
    reconnect: RestartConfig = option(
        RestartConfig(quarantine=Duration(15 * SECOND)),
        doc="When a connection that failed is tried again: after up to 1, 2, 4 .. 60 s, and not at all while the "
        "upstream is quarantined.",
        example={"max": 5, "within": "60s", "quarantine": "15s"},
    )
    close_when_idle: Duration | None = option(
        None, gt=0, doc="Close the connection that all modern clients share when nobody has used it for so long; the "
        "next call opens it again. A session's connection stays until its session ends.", example="10m",
    )  # fmt: skip

    def __attrs_post_init__(self) -> None:
        parse_address(self.url)
        for name, value in self.headers.items():
            if name.lower() in _OURS or name.lower().startswith("sec-websocket-"):
                raise ValueError(f"headers: {name} is written by the sink itself")
            render_headers({name: value if isinstance(value, str) else ""})
        if self.tls.key is not None and self.tls.cert is None:
            raise ValueError("tls: key is of no use without cert")


@final
@sink("websocket")
class WebSocketSink(Sink):
    """Speak to a server over WebSockets."""

    Config = WebSocketSinkConfig

    def __init__(self, config: WebSocketSinkConfig, context: Context) -> None:
        super().__init__(config, context)
        self._config = config
        self._target: Target | None = None
        self._health: Health | None = None
        self._nursery: trio.Nursery | None = None
        self._era = StdioEra(context.id, config.era)
        self._mirrors = Mirrors()
        self._uplinks: dict[Session | None, Uplink] = {}
        self._running: set[Uplink] = set()

    @property
    def connections(self) -> int:
        """Connections there are, those that are being opened or closed included."""
        return len(self._running)

    def figures(self) -> Iterator[Figure]:
        """Its connections."""
        yield Figure("websocket_connections", self.connections, "gauge", "Connections to the upstream.")

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """
        Resolve secrets and read certificates; connections are opened by those who need them.

        Raises:
            ConnectFailed: A certificate cannot be read, or a secret cannot be sent in a header.
            LookupError: A secret cannot be resolved.
        """
        self._target = self._make_target()
        async with open_background_nursery() as nursery:
            self._nursery, self._health = nursery, Health(self.context, self._config.reconnect, nursery)
            try:
                yield
            finally:
                self._nursery = None
                self._health.close()
            for uplink in self._running:
                uplink.stop()
            for uplink in list(self._running):
                await uplink.ended.wait()

    async def __call__(self, exchange: Exchange) -> Reply:
        """
        Ask the upstream on the caller's connection, opened if need be.

        Raises:
            ConnectFailed: It cannot be reached, or opens no WebSocket.
            CapacityExceeded: `max_connections`, `max_pending` or `max_unsent` is reached.
            InvalidMessage: A legacy client asks without a session.
            UnsupportedVersion: A modern client asks a server that speaks legacy revisions only, or the other way.
            SessionNotFound: The session's connection is gone, and the session with it.
            UpstreamUnavailable: It failed too often of late.
            UpstreamFault: The connection was lost, or the answer was not MCP.
        """
        session = exchange.client.session
        if exchange.kind is Kind.NOTIFY:
            await trio.lowlevel.checkpoint()
            self._notify(exchange.request, session)
            return Result()
        if exchange.client.era is Era.MODERN:
            return await self._serve_modern(exchange)
        if session is None:
            await trio.lowlevel.checkpoint()
            if exchange.method == "ping":
                return Result()
            raise InvalidMessage(f"{exchange.method} needs a session; send initialize first")
        if exchange.method == "initialize":
            self._era.check_handshake(exchange)
        return await self._ask(await self._uplink_of(session, exchange.method), exchange)

    async def _serve_modern(self, exchange: Exchange) -> Reply:
        """
        Ask on the connection that all modern clients share.

        Raises:
            UnsupportedVersion: The server speaks legacy revisions only.
            HeaderMismatch: Headers of a call say something else than its arguments.
        """
        self._era.check(exchange)
        ask = partial(self._ask, await self._shared_uplink())
        await self._mirrors.check(exchange, partial(self._era.call, call=ask))
        reply = await self._era.call(exchange, ask)
        self._mirrors.learn(exchange, reply)
        return reply

    async def _ask(self, uplink: Uplink, exchange: Exchange) -> Reply:
        reply = await uplink.connection.call(exchange)
        uplink.proven = True
        assert self._health is not None
        self._health.answered(uplink)
        return reply

    def _notify(self, notification: object, session: Session | None) -> None:
        """Pass a notification on, if there is a connection on which it can mean anything."""
        uplink = self._uplinks.get(session)
        if uplink is not None and not uplink.is_ending:
            assert isinstance(notification, Notification)
            uplink.connection.notify(notification)

    async def _shared_uplink(self) -> Uplink:
        """The connection of all modern clients; opened, when it may be, if there is none."""
        while (uplink := self._uplinks.get(None)) is None or uplink.is_ending:
            if not await self._admit():
                return self._start(None)
        return uplink

    async def _uplink_of(self, session: Session, method: str) -> Uplink:
        while (uplink := self._uplinks.get(session)) is None and method == "initialize" and not session.closed:
            if not await self._admit():
                return self._start(session)
        if uplink is None or uplink.is_ending:
            raise SessionNotFound(f"{self.context.id}: the connection of this session is gone; initialize again")
        return uplink

    async def _admit(self) -> bool:
        """See `Health.admit`."""
        if self._nursery is None or self._health is None:
            raise UpstreamUnavailable(f"{self.context.id}: is closed, and opens no more connections")
        return await self._health.admit()

    def _start(self, session: Session | None) -> Uplink:
        """Begin a connection; only right after `_admit`, with no checkpoint between."""
        config, name, target = self._config, self.context.id, self._target
        assert target is not None
        if self.connections >= config.max_connections:
            raise CapacityExceeded(
                f"{name}: there are {config.max_connections} connections; raise max_connections or end sessions"
            )
        outbox = Outbox(config.max_unsent)
        connection = Multiplexer(
            name, outbox, self.context.log, session=session, max_pending=config.max_pending,
            spawn=self._spawn_apart, announce=self._heard,
        )  # fmt: skip
        uplink = Uplink(
            target, connection, outbox, idle_s=config.close_when_idle if session is None else None,
            on_loss=partial(self._note_loss, session), log=self.context.log,
        )  # fmt: skip
        self._uplinks[session] = uplink
        self._running.add(uplink)
        self._spawn_apart(self._host, uplink, session)
        return uplink

    def _spawn_apart(self, function: Callable[..., Awaitable[None]], *args: object) -> None:
        """Start a task in a context of its own: what an upstream says must not be logged as said by who came first."""
        if self._nursery is not None:
            contextvars.Context().run(self._nursery.start_soon, function, *args)

    def _heard(self, notification: Notification) -> None:
        self._mirrors.heard(notification)
        self.context.changes.announce(self.context.id, notification)

    def _note_loss(self, session: Session | None, uplink: Uplink) -> None:
        if self._health is not None and (session is None or not uplink.proven):
            self._health.died(uplink.end_text, trio.current_time() - uplink.started_at)

    async def _host(self, uplink: Uplink, session: Session | None) -> None:
        """The task of one connection, and what its end means for the session that it belonged to."""
        forget = session.on_close(uplink.stop) if session is not None else _nothing
        try:
            await uplink.run()
        finally:
            forget()
            self._running.discard(uplink)
            if self._uplinks.get(session) is uplink:
                del self._uplinks[session]
        if session is not None and not session.closed:
            await trio.sleep(_LAST_ANSWERS_S)
            session.close()

    def _make_target(self) -> Target:
        config, sink_id, origin = self._config, self.context.id, parse_address(self._config.url)
        headers = {
            key: value.resolve() if isinstance(value, Secret) else value for key, value in config.headers.items()
        }
        files = [None if path is None else str(path) for path in (config.tls.ca, config.tls.cert, config.tls.key)]
        try:
            render_headers(headers)
            tls = make_tls(*files) if origin.tls else None
        except ValueError as error:  # a secret with a line end in it, for example
            raise ConnectFailed(f"{sink_id}: {error}") from error
        except OSError as error:
            raise ConnectFailed(f"{sink_id}: tls: a file cannot be used: {error.strerror or error}") from error
        return Target(
            name=sink_id,
            origin=origin,
            dial=Dialer(origin=origin, timeout_s=config.connect_timeout, tls=tls, allow_private=config.allow_private),
            headers=tuple(headers.items()),
            timeout_s=config.connect_timeout,
            limits=WireLimits(config.max_message, config.ping_interval, config.ping_timeout),
        )
