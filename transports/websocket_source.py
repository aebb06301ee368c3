"""
`websocket`: the gateway as a WebSocket server with the sub-protocol `mcp`, on a listener of its own.

No revision of MCP defines this transport. As custom transports must, it keeps JSON-RPC and the life cycle of MCP: one
message is one JSON-RPC message, a connection is one legacy session, and requests of 2026-07-28 carry everything
themselves and can stand on any connection. As on stdio, `notifications/cancelled` is what cancels a request; and so
does the end of the connection, for there is nobody left to answer.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import final

import trio
from attrs import frozen

from sluiceway.pipeline.model.component import Context, Source, source
from sluiceway.pipeline.model.figures import Figure
from sluiceway.pipeline.model.handle import Handle
from sluiceway.pipeline.model.options import KIB, MIB, SECOND, Duration, Size, option
from sluiceway.pipeline.model.session import Client
from sluiceway.pipeline.protocol.errors import Draining
from sluiceway.pipeline.protocol.mcp import Era

from .http_source.hosts import HostPolicy
from .listening import Listening, SocketAccess, check_binds
from .server_tls import ServerTlsConfig
from .tls_handshakes import Handshakes, tls_figures
from .websocket.conversation import ClientLimits, Conversation
from .websocket.handshake import Visit, check_visit, choose_subprotocol, is_endpoint_path
from .websocket.listener import Caller, Listener
from .websocket.wire import Refused, WireLimits, accept


@final
@frozen
class WebSocketSourceConfig:
    """Where the source listens, whom it serves, and what a client may cost."""

    bind: str | tuple[str, ...] = option(
        "127.0.0.1:9000",
        doc="Address to listen on: `host:port` or `unix:path`, or a list of them. Port 0 takes a free one.",
        example=["127.0.0.1:9000", "[::1]:9000"],
    )
    path: str = option("/mcp", doc="Path of the MCP endpoint.")
    socket_access: SocketAccess = option(
        "owner",
        doc="Whose processes may connect to Unix sockets of the source: those of the gateway's own user, of the "
        "socket's group as well, or everybody's.",
    )
    tls: ServerTlsConfig | None = option(
        None,
        doc="Speak TLS (`wss://`) on the addresses. The certificate is read again when its files change.",
        example={"cert": "./tls/gateway.pem", "key": {"from_file": "./tls/gateway.key"}},
    )
    allowed_hosts: tuple[str, ...] = option(
        (),
        doc="Host names under which clients may address the source, with or without port; `*` for any. Loopback names "
        "are always allowed on a loopback address, and IP addresses elsewhere as long as the list is empty.",
        example=["gateway.example.com"],
    )
    allowed_origins: tuple[str, ...] = option(
        (),
        doc="Origins whose pages may open a WebSocket; `*` for any. Those of loopback names are always allowed on a "
        "loopback address.",
        example=["https://assistant.example.com"],
    )
    max_message: Size = option(
        Size(4 * MIB), ge=1 * KIB, doc="Bytes a message may have; a longer one ends the connection with code 1009."
    )
    max_in_flight_per_connection: int = option(
        64, ge=1, doc="Requests of one connection under way at once; above this they are refused."
    )
    max_unread: Size = option(
        Size(16 * MIB), ge=1 * KIB,
        doc="Bytes that may wait for a client to read them; above this its exchanges wait, and one that then goes on "
        "to send what is refused is cut.",
    )  # fmt: skip
    max_connections: int = option(
        4096, ge=1, doc="Connections at the same time; further ones are answered 503 and closed."
    )
    head_timeout: Duration = option(
        Duration(10 * SECOND), gt=0, doc="Time a client gets to ask for a WebSocket once it is connected."
    )
    ping_interval: Duration = option(
        Duration(20 * SECOND), gt=0, doc="Silence after which a client is asked with a ping whether it is there."
    )
    ping_timeout: Duration = option(
        Duration(20 * SECOND), gt=0,
        doc="Time after a ping in which a client must send something, or read what was sent to it; else it is cut.",
    )  # fmt: skip

    def __attrs_post_init__(self) -> None:
        check_binds(self.binds)
        if not is_endpoint_path(self.path):
            raise ValueError(f"path: {self.path!r} is not a path such as /mcp")

    @property
    def binds(self) -> tuple[str, ...]:
        """The addresses, always as a tuple."""
        return (self.bind,) if isinstance(self.bind, str) else self.bind


@final
@source("websocket")
class WebSocketSource(Source):
    """
    Clients on WebSockets, of every revision, with as many requests at a time as they like on one connection.

    `Host` and `Origin` are checked before a WebSocket is opened, and so is who the client is, if the pipeline has an
    auth stage: from the headers of its request, which every exchange on the connection then carries.
    """

    Config = WebSocketSourceConfig

    def __init__(self, config: WebSocketSourceConfig, context: Context) -> None:
        super().__init__(config, context)
        self._config = config
        self._policy = HostPolicy(config.binds, config.allowed_hosts, config.allowed_origins)
        binds = config.binds if context.listen else ()
        self._listening = Listening(binds, config.ping_timeout, config.socket_access)
        self._listener = Listener(
            self._listening, self._serve_client,
            max_connections=config.max_connections, head_timeout_s=config.head_timeout,
            tls=None if config.tls is None else Handshakes(config.tls, context.log, context.now), log=context.log,
        )  # fmt: skip
        self._handle: Handle | None = None
        self._clients: set[Conversation] = set()
        self._draining = False

    @property
    def addresses(self) -> tuple[str, ...]:
        """What the source is bound to while it is open, as `host:port` or `unix:path`."""
        return self._listening.addresses

    @property
    def urls(self) -> tuple[str, ...]:
        """Where clients find the endpoint, as far as the source is bound to TCP ports."""
        scheme = "ws" if self._config.tls is None else "wss"
        return tuple(f"{scheme}://{each}{self._config.path}" for each in self.addresses if not each.startswith("unix:"))

    def figures(self) -> Iterator[Figure]:
        """Connections, and those that were not served."""
        listener = self._listener
        yield Figure("mcp_active_connections", listener.connections, "gauge", "Connections of clients.")
        yield Figure("websocket_turned_away_total", listener.turned_away, "counter", "Beyond max_connections.")
        yield Figure("websocket_contained_total", listener.contained, "counter", "Exceptions of connections.")
        if listener.tls is not None:
            yield from tls_figures(listener.tls)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """
        Hold the listening sockets.

        Raises:
            OSError: An address is taken, or not ours; or the certificate cannot be used.
        """
        self._listener.bind()
        try:
            yield
        finally:
            self._listener.close()

    async def serve(self, handle: Handle) -> None:
        """Serve until cancelled."""
        self._handle = handle
        try:
            await self._listener.serve()
        finally:
            self._handle = None

    def stop_accepting(self) -> None:
        """Close the listeners, refuse new requests with `Draining`, and leave each client when it has its answers."""
        self._draining = True
        self._listener.stop_accepting()
        for client in self._clients:
            client.stop_accepting()

    async def serve_stream(self, stream: trio.abc.Stream) -> None:
        """Serve one connection that somebody else accepted. Closes it at the end."""
        await self._listener.handle(stream)

    async def _serve_client(self, caller: Caller) -> None:
        """
        Serve whoever asked for a WebSocket.

        Raises:
            HttpError: The request is refused.
            GatewayError: Likewise, by a rule of the gateway or by an auth stage.
        """
        config, visit = self._config, caller.visit
        check_visit(visit, config.path, self._policy)
        subprotocol = choose_subprotocol(visit.offered)
        await self.identify(_visitor(visit), None)
        if self._draining or self._handle is None:
            raise Draining("the gateway is shutting down; try again elsewhere or later", retry_after_s=1.0)
        client = Conversation(
            self.context, self._handle, visit,
            ClientLimits(config.max_message, config.max_in_flight_per_connection, config.max_unread),
        )  # fmt: skip
        limits = WireLimits(config.max_message, config.ping_interval, config.ping_timeout)
        self._clients.add(client)
        try:
            key = visit.headers["sec-websocket-key"]
            async with accept(caller.stream, key, subprotocol, first=caller.first, limits=limits) as wire:
                await client.serve(wire)
        except Refused:
            pass  # it left
        finally:
            self._clients.discard(client)


def _visitor(visit: Visit) -> Client:
    """The sender of a request to open a WebSocket."""
    return Client(
        era=Era.MODERN, version=None, transport="websocket",
        address=visit.address, headers=visit.headers, certificate=visit.certificate,
    )  # fmt: skip
