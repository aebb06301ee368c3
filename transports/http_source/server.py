"""
The HTTP server of `sluiceway run`: hypercorn's parts under a serve loop of ours.

hypercorn 0.18 lets one unauthenticated connection end the whole process, cannot be told to leave HTTP/2 alone, and
waits for clients that read nothing. Here every exception of a connection is contained at that connection, only
HTTP/1.1 is spoken, over TLS or not, and nothing a client does can hold up a shutdown.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, final

import trio
from hypercorn.config import Config as HypercornConfig
from hypercorn.trio.worker_context import WorkerContext

from ..containment import QUIET, Containment
from ..listening import Listening
from ..tls_handshakes import Handshakes
from .config import HttpConfig
from .connection import Connection
from .edge import MAX_HEAD

_TOO_MANY: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
)


class _Terminated:
    """hypercorn's notion of an event, set without waiting."""

    def __init__(self) -> None:
        self._set = False

    def set_now(self) -> None:
        self._set = True

    def is_set(self) -> bool:
        return self._set


def _unwatched(_address: str | None) -> None:
    """Nobody is told."""


@final
class HttpServer:
    """
    Listens, accepts, and keeps count. Bind before serving; close after.

    Args:
        application: ASGI 3, for scopes of type `http`.
        limits: The source's options.
        log: Structured logger.
        now: The date, in seconds since 1970.
        refused: Called with the client's address, where there is one, when what it sent is no request we read.
    """

    def __init__(
        self,
        application: Callable[..., Awaitable[None]],
        limits: HttpConfig,
        log: Any,
        now: Callable[[], float] = time.time,
        refused: Callable[[str | None], None] = _unwatched,
    ) -> None:
        self.refused = refused
        self.application: Any = application
        self.limits = limits
        self.context = WorkerContext(None)
        self._terminated = _Terminated()
        self.context.terminated = self._terminated  # type: ignore[assignment]  # what hypercorn uses of it
        self.hypercorn = _hypercorn_config(limits)
        self.tls = None if limits.tls is None else Handshakes(limits.tls, log, now)
        """How connections come to speak TLS; None where they do not."""
        self.turned_away = 0
        """Connections beyond `max_connections`."""
        self._containment = Containment(log)
        self._listening = Listening(limits.binds, limits.stall_timeout, limits.socket_access)
        self._connections: set[Connection] = set()
        self._count = 0
        self._accepting = trio.CancelScope()

    @property
    def addresses(self) -> tuple[str, ...]:
        """What it is bound to, as `host:port` or `unix:path`."""
        return self._listening.addresses

    @property
    def contained(self) -> int:
        """Exceptions of connections that were contained."""
        return self._containment.count

    @property
    def connections(self) -> int:
        """Connections that are open."""
        return self._count

    def bind(self) -> None:
        """
        Open the listening sockets. From now on clients can connect; they wait until `serve`.

        Raises:
            OSError: An address is taken, or not ours; or the certificate cannot be used.
        """
        if self.tls is not None:
            self.tls.certificates.load()
        self._listening.bind()

    async def serve(self) -> None:
        """Accept until `stop_accepting`, serve until cancelled."""
        listeners = self._listening.listeners()
        async with trio.open_nursery() as connections:
            if self.tls is not None:
                connections.start_soon(self.tls.certificates.watch)
            with self._accepting:
                if not listeners:
                    await trio.sleep_forever()  # drained before it began
                await trio.serve_listeners(self.handle, listeners, handler_nursery=connections)
            await trio.sleep_forever()

    async def handle(self, stream: trio.abc.Stream) -> None:
        """Serve one connection; every exception of it ends here."""
        if self._count >= self.limits.max_connections:
            self.turned_away += 1
            if self.tls is None:
                with suppress(*QUIET):
                    await stream.send_all(_TOO_MANY)
            await stream.aclose()
            return
        self._count += 1
        try:
            secured = await self._secure(stream)
            if secured is not None:
                await Connection(self, secured).run()
        except* Exception as group:  # a boundary: one connection never ends another
            self.contain(group)
        finally:
            self._count -= 1

    async def _secure(self, stream: trio.abc.Stream) -> trio.abc.Stream | None:
        """The connection as requests come on it; None if it ended before that."""
        if self.tls is None:
            return stream
        assert isinstance(stream, trio.SocketStream)
        secured = await self.tls.secure(stream)
        if secured is not None and self._terminated.is_set():
            await secured.aclose()
            return None
        return secured

    def stop_accepting(self) -> None:
        """Close the listening sockets and idle connections; the others close after their current response."""
        self._terminated.set_now()
        self._accepting.cancel()
        self.close()
        for connection in list(self._connections):
            if connection.idle:
                connection.stop()

    def close(self) -> None:
        """Close the listening sockets. Idempotent."""
        self._listening.close()

    # What connections report.

    def opened(self, connection: Connection) -> None:
        """It is served now."""
        self._connections.add(connection)

    def closed(self, connection: Connection) -> None:
        """It is over."""
        self._connections.discard(connection)

    def contain(self, error: Exception) -> None:
        """Count an exception and log it, once per place it comes from."""
        self._containment.take(error)


def _hypercorn_config(limits: HttpConfig) -> HypercornConfig:
    config = HypercornConfig()
    config.h11_max_incomplete_size = MAX_HEAD
    config.keep_alive_max_requests = 10**9  # hypercorn would close a connection under its client's feet
    config.keep_alive_timeout = limits.idle_timeout
    config.include_server_header = False
    config.accesslog = config.errorlog = None
    return config
