"""
An upstream that speaks MCP over a WebSocket with the sub-protocol `mcp`: many exchanges on one connection.

No revision of MCP defines this transport; both ends keep JSON-RPC and the life cycle of MCP. A legacy session has a
connection of its own, all modern clients share one (lines.py). Cancel notices are messages, as on stdio.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from types import MappingProxyType
from typing import Any, Final, Literal, final

import trio
from attrs import frozen

from sluiceway.pipeline.model.component import Context, Sink, sink
from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.figures import Figure
from sluiceway.pipeline.model.options import KIB, MIB, SECOND, Duration, Size, option
from sluiceway.pipeline.model.origin import Origin, parse_origin
from sluiceway.pipeline.model.session import Session
from sluiceway.pipeline.protocol.errors import ConnectFailed
from sluiceway.pipeline.protocol.mcp import Era
from sluiceway.pipeline.protocol.messages import Json, Reply
from sluiceway.pipeline.runtime.nursery import open_background_nursery

from .http_client.client import render_headers
from .http_upstream.config import ReachConfig
from .http_upstream.oauth import TokenSource
from .http_upstream.reach import make_dialer, make_tokens, make_tokens_client, resolve_headers
from .lines import Lines
from .outbox import Outbox
from .restarts import RestartConfig
from .translation.losses import remarks
from .translation.translator import Translator
from .websocket.uplink import Target, Uplink
from .websocket.wire import WireLimits

_SCHEMES: Final = {"ws": "http", "wss": "https"}
_OURS: Final = frozenset({"host", "connection", "upgrade", "content-length", "transfer-encoding"})
"""Headers that the sink writes itself, besides `sec-websocket-*`."""


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
@frozen(kw_only=True)
class WebSocketSinkConfig(ReachConfig):
    """Options of the `websocket` sink."""

    url: str = option(doc="The MCP endpoint of the upstream, ws:// or wss://.", example="wss://search.example.com/mcp")
    era: Literal["auto", "legacy", "modern"] = option(
        "auto",
        doc="Which revisions the upstream speaks: with a handshake (up to 2025-11-25), or without (2026-07-28). `auto` "
        "finds out. See `translate` for clients of the other kind.",
    )
    connect_timeout: Duration = option(
        Duration(10 * SECOND), gt=0,
        doc="Time for name resolution, TCP, proxy and TLS, and again for the WebSocket's handshake.",
    )  # fmt: skip
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

    def parse_url(self) -> Origin:
        """See `ReachConfig`."""
        return parse_address(self.url)

    def writes_header(self, name: str) -> bool:
        """See `ReachConfig`."""
        return name in _OURS or name.startswith("sec-websocket-")


@final
@sink("websocket")
class WebSocketSink(Sink):
    """Speak to a server over WebSockets."""

    Config = WebSocketSinkConfig
    actions = MappingProxyType(
        {"restart": "Close its connections, politely; the next call opens one, and sessions end with theirs."}
    )

    def __init__(self, config: WebSocketSinkConfig, context: Context) -> None:
        super().__init__(config, context)
        self._config = config
        self._target: Target | None = None
        self._lines: Lines[Uplink] = Lines(
            context, self._start, era=config.era, restart=config.reconnect, max_lines=config.max_connections,
            option="max_connections", noun="connection",
        )  # fmt: skip
        self._translator = Translator(self._lines, context, translate=config.translate, config=config.translation)

    @property
    def connections(self) -> int:
        """Connections there are, those that are being opened or closed included."""
        return len(self._lines)

    def figures(self) -> Iterator[Figure]:
        """Its connections, what was asked on them, and what is translated for clients of the other era."""
        yield Figure("websocket_connections", self.connections, "gauge", "Connections to the upstream.")
        yield from self._lines.figures()
        yield from self._translator.figures()

    def details(self) -> Mapping[str, Json]:
        """For whom it translates."""
        return self._translator.details()

    @classmethod
    def remarks(cls, config: WebSocketSinkConfig) -> Iterator[str]:
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
        config, name = self._config, self.context.id
        client = make_tokens_client(name, config)
        self._target = self._make_target(make_tokens(name, config, client))
        async with open_background_nursery() as nursery:
            if client is not None:
                await nursery.start(client.run)
            try:
                async with self._lines.open(), self._translator.open():
                    yield
            finally:
                if client is not None:
                    client.close()

    def __call__(self, exchange: Exchange) -> Coroutine[Any, Any, Reply]:
        """When awaited, ask the upstream on the caller's connection, opened if need be. Raises as `Lines` does."""
        if exchange.client.era is Era.MODERN and self._lines.is_modern:  # then nothing is translated
            return self._lines(exchange)
        return self._translator(exchange)

    async def act(self, action: str, arguments: Mapping[str, Json]) -> Json:
        """
        Close all connections; returns how many. See `Component.act`.

        Raises:
            LookupError: It is not `restart`.
        """
        await trio.lowlevel.checkpoint()
        if action != "restart":
            return await super().act(action, arguments)
        return {"stopped": self._lines.stop()}

    def _start(self, session: Session | None) -> Uplink:
        config, target = self._config, self._target
        assert target is not None
        outbox = Outbox(config.max_unsent)
        return Uplink(
            target, self._lines.connection(session, outbox, config.max_pending), outbox,
            idle_s=config.close_when_idle if session is None else None,
            on_loss=partial(self._lines.note_loss, session), log=self.context.log,
        )  # fmt: skip

    def _make_target(self, tokens: TokenSource | None) -> Target:
        config, name, origin = self._config, self.context.id, self._config.parse_url()
        headers = resolve_headers(config)
        try:
            render_headers(headers)
        except ValueError as error:  # a secret with a line end in it, for example
            raise ConnectFailed(f"{name}: {error}") from error
        return Target(
            name=name,
            origin=origin,
            dial=make_dialer(name, config, origin),
            headers=tuple(headers.items()),
            tokens=tokens,
            timeout_s=config.connect_timeout,
            limits=WireLimits(config.max_message, config.ping_interval, config.ping_timeout),
        )
