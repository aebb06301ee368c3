"""How connections get their bytes: called when there are some (TCP, Unix sockets), or from a task that waits (TLS)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final, final

import trio

from ..tls_stream import TlsStream
from ..wire import Wire
from .connection import GONE, MAX_RECV, Connection
from .request import Remote

if TYPE_CHECKING:
    from .protocol import Upgrade
    from .server import HttpServer


_IN_A_ROW: Final = 16
"""Reads before others have their turn, and only one that is full: 64 KiB may be 10,000 chunks, which take 20 ms."""


@final
class WireConnection(Connection):
    """
    A connection on a socket. It has no task.

    Args:
        server: Whose connection it is.
        wire: Its bytes. Closed at the end.
    """

    __slots__ = ("_wire",)

    def __init__(self, server: HttpServer, wire: Wire) -> None:
        self._wire = wire
        super().__init__(server, Remote(_address_of(wire)))
        wire.on_readable = self._read_on

    def _read_on(self) -> None:
        wire = self._wire
        receive = wire.receive_nowait
        try:
            for _ in range(_IN_A_ROW):
                if self.is_paused or self._closed:
                    return
                data = receive(MAX_RECV)
                if data is None:
                    return
                self.feed(data)
                if not wire.has_more:
                    return
                if len(data) == MAX_RECV:
                    break
            self._server.tasks.run(self._read_later)
        except GONE:
            self.close()
        except Exception as error:  # a boundary: a bug in one connection ends that connection
            self._server.contain(error)
            self.close()

    async def _read_later(self) -> None:
        await trio.lowlevel.checkpoint()  # others have their turn
        self._read_on()

    def _send_nowait(self, data: bytes) -> int:
        return self._wire.send_nowait(data)

    async def _send_all(self, data: bytes) -> None:
        await self._wire.send_all(data)

    async def _send_eof(self) -> None:
        await self._wire.send_eof()

    def _shut(self) -> None:
        self._wire.close()
        self._server.closed(self)
        self._server.left()

    def _move(self, mark: str) -> None:
        client = os.dup(self._wire.socket.fileno())
        self.close()
        self._server.application.move(mark, client)

    def _hand_over(self, upgrade: Upgrade) -> None:
        self._wire.on_readable = None
        self._server.tasks.run(self._switch_to, upgrade)

    async def _switch_to(self, upgrade: Upgrade) -> None:
        try:
            await self._server.switch(self._wire, upgrade)
        finally:
            self._shut()


@final
class StreamConnection(Connection):
    """
    A connection on any other stream, which a task reads.

    Args:
        server: Whose connection it is.
        stream: Its bytes. Closed at the end.
    """

    __slots__ = ("_reading", "_room", "_stream", "_upgrade")

    def __init__(self, server: HttpServer, stream: Any) -> None:
        self._stream = stream
        self._reading = trio.CancelScope()
        self._room = trio.Event()
        self._upgrade: Upgrade | None = None
        certificate = stream.certificate if isinstance(stream, TlsStream) else None
        super().__init__(server, Remote(_address_of(stream), certificate))

    async def run(self) -> None:
        """Serve the connection to its end."""
        try:
            with self._reading:
                await self._read()
            if self._upgrade is not None:
                await self._server.switch(self._stream, self._upgrade)
        finally:
            self.close()
            self._server.closed(self)
            await self._stream.aclose()  # noqa: ASYNC102  # aclose closes even when it is cancelled

    async def _read(self) -> None:
        while not self._closed:
            if self.is_paused:
                self._room = trio.Event()
                await self._room.wait()
                continue
            try:
                data = await self._stream.receive_some(MAX_RECV)
            except GONE:
                data = b""
            if not self._closed:  # as it came, perhaps
                self.feed(data)

    def _read_on(self) -> None:
        self._room.set()

    def _send_nowait(self, data: bytes) -> int:
        return 0

    async def _send_all(self, data: bytes) -> None:
        await self._stream.send_all(data)

    async def _send_eof(self) -> None:
        await self._stream.send_eof()

    def _shut(self) -> None:
        self._reading.cancel()

    def _move(self, mark: str) -> None:
        """What TLS has agreed on is known in this process only: each request is passed on."""

    def _hand_over(self, upgrade: Upgrade) -> None:
        self._upgrade = upgrade
        self._reading.cancel()


def _address_of(stream: Any) -> str | None:
    """The remote address without port; None where there is none, or none any more."""
    socket = getattr(stream, "socket", None)
    try:
        name = None if socket is None else socket.getpeername()
    except OSError:
        return None
    return name[0] if isinstance(name, tuple) else None
