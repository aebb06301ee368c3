"""One connection of our server: reading, writing, and the times a client gets for each."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, final

import trio
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.trio.tcp_server import MAX_RECV, TCPServer
from hypercorn.typing import ConnectionState
from hypercorn.utils import parse_socket_addr

from ..tls_stream import TlsStream
from .protocol import Http1, Tasks, Upgrade

if TYPE_CHECKING:
    from .server import HttpServer

LINGER_S: Final = 1.0
"""How long to read and drop after the last response: closing with unread bytes would reset it away (RFC 9112, 9.6)."""
MAX_BACKLOG: Final = 64 * 1024
"""Bytes of later requests that may be read while one is being served. Who sends more is cut."""
_MAX_LINGER: Final = 8 * 1024 * 1024
_TLS_VERSIONS: Final = {"TLSv1.2": 0x0303, "TLSv1.3": 0x0304}


@final
class Connection(TCPServer):
    """
    A connection from accept to close.

    One cancel scope around each read carries every time limit of the reading side; nothing needs a task of its own.
    Writing is not shielded, and a client that reads nothing is cut by the kernel (TCP_USER_TIMEOUT).

    Args:
        server: Whose connection it is.
        stream: Its bytes. Closed at the end.
    """

    protocol: Http1  # type: ignore[assignment]  # hypercorn's wrapper also does HTTP/2

    def __init__(self, server: HttpServer, stream: Any) -> None:
        super().__init__(server.application, server.hypercorn, server.context, ConnectionState({}), stream)
        self._server = server
        self._reading = trio.CancelScope()
        self._deadline = math.inf
        self._idle = False
        self._closing = False
        self._stopping = False
        self._pending = False
        self._lingered = 0

    @property
    def idle(self) -> bool:
        """Whether no request is being served."""
        return not self.protocol.busy

    def drain(self) -> None:
        """Close at once if the connection is idle; else its current response is its last."""
        if self.idle:
            self.stop()

    def stop(self) -> None:
        """Close as soon as nothing is being read or written: at once if the connection is idle."""
        self._stopping = True
        self._reading.cancel()

    async def run(self) -> None:
        """Serve the connection to its end."""
        socket = getattr(self.stream, "socket", None)
        client = server = None
        if socket is not None:
            try:
                client = parse_socket_addr(socket.family, socket.getpeername())
                server = parse_socket_addr(socket.family, socket.getsockname())
            except OSError:
                return  # gone before it began
        try:
            async with Tasks(self._server.contain) as tasks:
                self.protocol = Http1(  # pyright: ignore[reportIncompatibleVariableOverride]  # ours has its interface
                    self.app, self.config, self.context, tasks, self.state, isinstance(self.stream, TlsStream),
                    client, server, self.protocol_send,
                    resume=self._resume, refused=lambda: self._server.refused(client and client[0]),
                    upgrades=self._server.upgrades, extensions=extensions_of(self.stream),
                )  # fmt: skip
                self._server.opened(self)
                upgrade = await self._read_requests()
                if upgrade is not None:
                    await self._server.switch(self.stream, upgrade)
        finally:
            self._server.closed(self)
            await self._close()  # noqa: ASYNC102  # aclose closes even when it is cancelled

    async def protocol_send(self, event: Event) -> None:
        """Take what the protocol wants done."""
        if isinstance(event, RawData):
            async with self.send_lock:
                try:
                    await self.stream.send_all(event.data)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    self.stop()
                    await self.protocol.handle(Closed())
        elif isinstance(event, Closed):
            await self._begin_close()
        elif isinstance(event, Updated):
            self._idle = event.idle
            self._expect(self._server.limits.idle_timeout if event.idle else math.inf)

    async def _read_requests(self) -> Upgrade | None:
        """Read to the end, or to a request to speak something else."""
        try:
            await self._read_data()
        except Upgrade as upgrade:
            return upgrade
        return None

    async def _read_data(self) -> None:
        self._expect(self._server.limits.head_timeout)
        while not self._stopping:
            if self._pending:
                self._pending = False
                await self.protocol.proceed()
                continue
            data = b""
            with trio.CancelScope(deadline=self._deadline) as self._reading:
                try:
                    data = bytes(await self.stream.receive_some(MAX_RECV))
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    break
            if self._reading.cancelled_caught and self._pending:
                continue
            if not data or not await self._received(data):
                break
        await self.protocol.handle(Closed())
        await self._close()

    async def _received(self, data: bytes) -> bool:
        """Hand on what was read; whether to go on reading."""
        if self._closing:
            self._lingered += len(data)
            return self._lingered <= _MAX_LINGER
        if self._idle:
            self._idle = False
            self._expect(self._server.limits.head_timeout)
        await self.protocol.handle(RawData(data))
        return self.protocol.backlog <= MAX_BACKLOG

    def _expect(self, seconds: float) -> None:
        """Give the client so much time for what comes next."""
        self._deadline = math.inf if seconds == math.inf else trio.current_time() + seconds
        self._reading.deadline = self._deadline

    def _resume(self) -> None:
        self._pending = True
        self._reading.cancel()

    async def _begin_close(self) -> None:
        """Nothing more will be written. Read on for a moment, so that the client gets what was."""
        if self._closing:
            return
        self._closing = True
        await self.protocol.handle(Closed())
        async with self.send_lock:
            try:
                await self.stream.send_eof()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self.stop()
        self._expect(LINGER_S)

    async def _close(self) -> None:
        await self.stream.aclose()


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
