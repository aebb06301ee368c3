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

from attrs import frozen

from sluiceway.pipeline.model.component import Context, Source, source
from sluiceway.pipeline.model.figures import Figure
from sluiceway.pipeline.model.handle import Handle
from sluiceway.pipeline.model.options import option
from sluiceway.pipeline.model.worker import Binding

from .http_source.hosts import HostPolicy
from .listener_config import ListenerConfig, bind_option, is_endpoint_path
from .listening import Listening
from .tls_handshakes import Handshakes, tls_figures
from .websocket.clients import Clients
from .websocket.config import ClientConfig
from .websocket.listener import Listener


@final
@frozen
class WebSocketSourceConfig(ClientConfig, ListenerConfig):
    """Where the source listens, whom it serves, and what a client may cost."""

    bind: str | tuple[str, ...] = bind_option(9000)
    path: str = option("/mcp", doc="Path of the MCP endpoint.")

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        if not is_endpoint_path(self.path):
            raise ValueError(f"path: {self.path!r} is not a path such as /mcp")


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
        policy = HostPolicy(config.binds, config.allowed_hosts, config.allowed_origins)
        self._clients = Clients(context, config, config.path, policy, lambda client: self.identify(client, None))
        binds = config.binds if context.listen else ()
        self._listening = Listening(binds, config.ping_timeout, config.socket_access, context.worker, context.id)
        self._listener = Listener(
            self._listening, self._clients,
            max_connections=config.max_connections, head_timeout_s=config.head_timeout,
            tls=None if config.tls is None else Handshakes(config.tls, context.log, context.now), log=context.log,
        )  # fmt: skip

    @classmethod
    def binding(cls, config: WebSocketSourceConfig) -> Binding:
        """See `Shareable`."""
        return Listening(config.binds, config.ping_timeout, config.socket_access)

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
        if not self.context.listen:
            self.context.log.warning("it has no listener: another server has the sockets; use `websocket` of `http`")
        self._listener.bind()
        try:
            yield
        finally:
            self._listener.close()

    async def serve(self, handle: Handle) -> None:
        """Serve until cancelled."""
        self._clients.connect(handle)
        try:
            await self._listener.serve()
        finally:
            self._clients.connect(None)

    def stop_accepting(self) -> None:
        """Close the listeners, refuse new requests with `Draining`, and leave each client when it has its answers."""
        self._listener.stop_accepting()
        self._clients.stop_accepting()
