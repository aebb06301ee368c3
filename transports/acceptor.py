"""
Accepting connections: how many, over TLS or not, and where their exceptions end.

A source that listens says what it does with a connection. What goes before and comes after is the same for each: no
client can hold up another, end the listener, or stay when it is told to go.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import suppress
from typing import Any, Final

import trio

from .containment import QUIET, Containment
from .listening import Listening
from .tls_handshakes import Handshakes

_LINGER_S: Final = 1.0
_TOO_MANY: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
)


class Acceptor(ABC):
    """
    Listens, accepts, and keeps count. Bind before serving; close after.

    Args:
        listening: Its sockets.
        max_connections: Clients at the same time, those included that have not said anything yet.
        tls: How connections come to speak TLS; None where they do not.
        log: Structured logger.
    """

    def __init__(self, listening: Listening, *, max_connections: int, tls: Handshakes | None, log: Any) -> None:
        self.tls = tls
        """How connections come to speak TLS; None where they do not."""
        self.connections = 0
        """Connections that are open."""
        self.turned_away = 0
        """Connections beyond `max_connections`."""
        self._listening = listening
        self._max_connections = max_connections
        self._containment = Containment(log)
        self._accepting = trio.CancelScope()

    @property
    def addresses(self) -> tuple[str, ...]:
        """What it is bound to, as `host:port` or `unix:path`."""
        return self._listening.addresses

    @property
    def contained(self) -> int:
        """Exceptions of connections that were contained."""
        return self._containment.count

    @abstractmethod
    async def converse(self, stream: trio.abc.Stream) -> None:
        """
        Serve a client, which may speak through TLS. What is raised ends here, and so does the connection.

        Args:
            stream: Its bytes. Closed afterwards, if it was not before.
        """

    def keep(self, stream: trio.abc.Stream) -> bool:
        """
        Serve a client without a task of its own, where that can be done.

        Args:
            stream: Its bytes; whoever keeps it takes them over, and calls `left` at the end.

        Returns:
            Whether it is served so; otherwise it is left as it was, for `converse`.
        """
        return False

    def has_room(self) -> bool:
        """Whether there may be another connection."""
        return self.connections < self._max_connections

    def joined(self) -> None:
        """There is one more connection."""
        self.connections += 1
        self._listening.count(1)

    def left(self) -> None:
        """A connection that was kept is closed."""
        self.connections -= 1
        self._listening.count(-1)

    def bind(self) -> None:
        """
        Open the listening sockets. From now on clients can connect; they wait until `serve`.

        Raises:
            OSError: An address is taken, or not ours; or the certificate cannot be used.
        """
        if self.tls is not None:
            self.tls.certificates.load()
        self._listening.bind()

    def close(self) -> None:
        """Close the listening sockets. Idempotent."""
        self._listening.close()

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

    def stop_accepting(self) -> None:
        """Close the listening sockets."""
        self._accepting.cancel()
        self.close()

    async def handle(self, stream: trio.abc.Stream) -> None:
        """Serve one connection, whoever accepted it; every exception of it ends here. Closes it at the end."""
        if not self.has_room():
            await self._turn_away(stream)
            return
        self.joined()
        kept = False
        try:
            kept = self.keep(stream)
            secured = None if kept else await self._secure(stream)
            if secured is not None:
                await self.converse(secured)
        except* Exception as group:  # a boundary: one connection never ends another
            self.contain(group)
        finally:
            if not kept:
                self.left()
            await trio.aclose_forcefully(stream)  # noqa: ASYNC102  # closes without waiting

    def contain(self, error: Exception) -> None:
        """Count an exception of a connection and log it, once per place it comes from."""
        self._containment.take(error)

    async def _turn_away(self, stream: trio.abc.Stream) -> None:
        self.turned_away += 1
        if self.tls is None:
            with suppress(*QUIET), trio.move_on_after(_LINGER_S):
                await stream.send_all(_TOO_MANY)
        await trio.aclose_forcefully(stream)

    async def _secure(self, stream: trio.abc.Stream) -> trio.abc.Stream | None:
        """The connection as requests come on it; None if it ended before that."""
        if self.tls is None:
            return stream
        assert isinstance(stream, trio.SocketStream)
        return await self.tls.secure(stream)
