"""
An upstream that speaks MCP over a WebSocket with the sub-protocol `mcp`: many exchanges on one connection.

No revision of MCP defines this transport; both ends keep JSON-RPC and the life cycle of MCP. A legacy session has a
connection of its own, all modern clients share one (lines.py). Cancel notices are messages, as on stdio.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Final, Literal, final

from attrs import frozen

from sluiceway.pipeline.model.component import Context, Sink, sink
from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.figures import Figure
from sluiceway.pipeline.model.options import KIB, MIB, SECOND, Duration, Secret, Size, option
from sluiceway.pipeline.model.origin import Origin, parse_origin
from sluiceway.pipeline.model.session import Session
from sluiceway.pipeline.protocol.errors import ConnectFailed
from sluiceway.pipeline.protocol.messages import Reply

from .http_client.client import render_headers
from .http_client.connect import Dialer, make_tls
from .http_upstream.config import TlsConfig
from .lines import Lines
from .outbox import Outbox
from .restarts import RestartConfig
from .translation.config import TranslationConfig
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
@frozen
class WebSocketSinkConfig:
    """Options of the `websocket` sink."""

    url: str = option(doc="The MCP endpoint of the upstream, ws:// or wss://.", example="wss://search.example.com/mcp")
    era: Literal["auto", "legacy", "modern"] = option(
        "auto",
        doc="Which revisions the upstream speaks: with a handshake (up to 2025-11-25), or without (2026-07-28). `auto` "
        "finds out. See `translate` for clients of the other kind.",
    )
    translate: bool = option(
        True,
        doc="Whether clients of revisions that the upstream does not speak are served by translating; else they are "
        "refused. What is lost in translation: docs/eras.md.",
    )
    translation: TranslationConfig = option(
        factory=TranslationConfig,
        doc="What is held at an upstream with handshakes for clients that know none.",
        example={"park_timeout": "2m"},
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
        """Its connections."""
        yield Figure("websocket_connections", self.connections, "gauge", "Connections to the upstream.")
        yield from self._translator.figures()

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
        self._target = self._make_target()
        async with self._lines.open(), self._translator.open():
            yield

    async def __call__(self, exchange: Exchange) -> Reply:
        """Ask the upstream on the caller's connection, opened if need be. Raises as `Lines` does."""
        return await self._translator(exchange)

    def _start(self, session: Session | None) -> Uplink:
        config, target = self._config, self._target
        assert target is not None
        outbox = Outbox(config.max_unsent)
        return Uplink(
            target, self._lines.connection(session, outbox, config.max_pending), outbox,
            idle_s=config.close_when_idle if session is None else None,
            on_loss=partial(self._lines.note_loss, session), log=self.context.log,
        )  # fmt: skip

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
