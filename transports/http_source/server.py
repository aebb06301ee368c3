"""
The HTTP server of `sluiceway run`: connections of ours, for HTTP/1.1 and for HTTP/2.

hypercorn 0.18 lets one unauthenticated connection end the whole process, cannot be told to leave HTTP/2 alone, and
waits for clients that read nothing. Here every exception of a connection is contained at that connection, HTTP/1.1 and
WebSockets are spoken, over TLS or not, HTTP/2 is spoken over TLS only and by a connection of ours, and nothing a client
does can hold up a shutdown.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, final

import h11
import trio
from hypercorn.config import Config as HypercornConfig

from sluiceway.pipeline.runtime.deadlines import Deadlines

from ..acceptor import Acceptor
from ..kept_tasks import KeptTasks
from ..listening import Listening
from ..tls_handshakes import Handshakes
from ..tls_stream import TlsStream
from ..wire import Wire
from .config import HttpConfig
from .connection import Connection
from .connections import StreamConnection, WireConnection
from .heads import Heads
from .http2.connection import Http2Connection
from .protocol import Upgrade

if TYPE_CHECKING:
    from ..websocket.reception import Reception
    from .endpoint import Endpoint


HTTP2: Final = "h2"
"""Its name in ALPN (RFC 9113 section 3.2)."""
_TLS_VERSIONS: Final = {"TLSv1.2": 0x0303, "TLSv1.3": 0x0304}


def _unwatched(_address: str | None) -> None:
    """Nobody is told."""


@final
class HttpServer(Acceptor):
    """
    Serves HTTP on every connection.

    Args:
        application: Answers requests: those of HTTP/1.1 as they are, those of HTTP/2 as ASGI 3.
        limits: The source's options.
        log: Structured logger.
        now: The date, in seconds since 1970.
        refused: Called with the client's address, where there is one, when what it sent is no request we read.
        websockets: Gets who asks for a WebSocket where there are any; None where there are none.
        listening: Its sockets.
    """

    def __init__(
        self,
        application: Endpoint,
        limits: HttpConfig,
        log: Any,
        now: Callable[[], float] = time.time,
        refused: Callable[[str | None], None] = _unwatched,
        websockets: Reception | None = None,
        *,
        listening: Listening,
    ) -> None:
        super().__init__(
            listening,
            max_connections=limits.max_connections,
            tls=None if limits.tls is None else Handshakes(limits.tls, log, now, _protocols(limits)),
            log=log,
        )
        self.refused = refused
        self._websockets = websockets
        self.application: Final = application
        self.limits = limits
        self.stopping = False
        """Whether responses that are under way are the last of their connections."""
        self.hypercorn = _hypercorn_config(limits)
        self.floods = 0
        """HTTP/2 connections that were ended because their clients sent too much of what costs and carries nothing."""
        self.heads = Heads()
        """What its connections remember of the heads they have read."""
        self.deadlines = Deadlines()
        """Of its connections; works while it serves."""
        self.tasks: KeptTasks
        """Where requests are served; there is none before `serve`."""
        self._connections: set[Connection | Http2Connection] = set()
        self._fewer = trio.Event()

    async def serve(self) -> None:
        """See `Acceptor`. What is served ends with it."""
        async with trio.open_nursery() as nursery:
            self.tasks = KeptTasks(nursery, self.contain)
            nursery.start_soon(self.deadlines.serve)
            try:
                await super().serve()
            finally:
                for connection in list(self._connections):
                    if isinstance(connection, Connection):
                        connection.close()

    def keep(self, stream: trio.abc.Stream) -> bool:
        """See `Acceptor`: a socket needs no task."""
        if self.tls is not None or not isinstance(stream, trio.SocketStream):
            return False
        WireConnection(self, Wire.take(stream.socket))
        return True

    def adopt(self, client: socket.socket) -> None:
        """Serve a client that another worker had. Closed at once where there is no room, or no time."""
        if self.stopping or not self.has_room():
            client.close()
            return
        self.joined()
        WireConnection(self, Wire(client)).rest()

    async def converse(self, stream: trio.abc.Stream) -> None:
        """See `Acceptor`."""
        if self.tls is None or not self.stopping:  # else its handshake took longer than we have
            await self._connection_on(stream).run()

    def _connection_on(self, stream: trio.abc.Stream) -> StreamConnection | Http2Connection:
        if getattr(stream, "protocol", None) == HTTP2:
            return Http2Connection(self, stream, extensions_of(stream))
        return StreamConnection(self, stream)

    @property
    def http2(self) -> list[Http2Connection]:
        """Those of its connections that speak HTTP/2."""
        return [each for each in self._connections if isinstance(each, Http2Connection)]

    def stop_accepting(self) -> None:
        """Close the listening sockets and idle connections; the others close after their current response."""
        self.stopping = True
        super().stop_accepting()
        for connection in list(self._connections):
            connection.drain()

    async def delivered(self) -> None:
        """Wait until every connection that speaks HTTP is closed; those that are still shaking hands do not count."""
        while self._connections:
            self._fewer = trio.Event()
            await self._fewer.wait()

    # What connections report.

    def upgrades(self, request: h11.Request) -> bool:
        """Whether a request is for a WebSocket that is served here."""
        return self._websockets is not None and self._websockets.asks(request)

    async def switch(self, stream: trio.abc.Stream, upgrade: Upgrade) -> None:
        """It is: serve it on one, or refuse."""
        assert self._websockets is not None
        await self._websockets.receive(stream, upgrade.request, upgrade.first)

    def opened(self, connection: Connection | Http2Connection) -> None:
        """It is served now."""
        self._connections.add(connection)

    def closed(self, connection: Connection | Http2Connection) -> None:
        """It is over."""
        self._connections.discard(connection)
        self._fewer.set()


def extensions_of(stream: object) -> dict[str, Any]:
    """What an application is told of a connection that speaks TLS (ASGI's TLS extension, version 0.2)."""
    if not isinstance(stream, TlsStream):
        return {}
    certificate = stream.certificate
    told = {
        "server_cert": None,
        "client_cert_chain": [] if certificate is None else [certificate],
        "client_cert_name": None,
        "client_cert_error": None,
        "tls_version": _TLS_VERSIONS.get(stream.version),
        "cipher_suite": None,
    }
    return {"tls": told}


def _protocols(limits: HttpConfig) -> tuple[str, ...]:
    return (HTTP2, "http/1.1") if limits.http2 else ("http/1.1",)


def _hypercorn_config(limits: HttpConfig) -> HypercornConfig:
    config = HypercornConfig()
    config.include_server_header = False
    config.accesslog = config.errorlog = None
    return config
