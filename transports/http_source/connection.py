"""One connection of our server: reading, writing, and the times a client gets for each."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any, Final, final

import trio
from hypercorn.utils import parse_socket_addr

from ..tcp import receive_from, send_to
from ..tls_stream import TlsStream
from .edge import HeadRefused
from .protocol import Http1, RequestStream, Upgrade, refusal, scope_of
from .request import ON_GONE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .server import HttpServer

MAX_RECV: Final = 64 * 1024
LINGER_S: Final = 1.0
"""How long to read and drop after the last response: closing with unread bytes would reset it away (RFC 9112, 9.6)."""
MAX_BACKLOG: Final = 64 * 1024
"""Bytes of later requests that may be read while one is being served. Who sends more is cut."""
_MAX_LINGER: Final = 8 * 1024 * 1024
_TLS_VERSIONS: Final = {"TLSv1.2": 0x0303, "TLSv1.3": 0x0304}
_GONE: Final = (trio.BrokenResourceError, trio.ClosedResourceError)


@final
class Connection:
    """
    A connection from accept to close.

    One cancel scope around all reading carries every time limit of the reading side: its deadline is moved, and nothing
    needs a task of its own. Each request has a task, in which the application runs, so that the reader sees a client
    leave. Writing is not shielded, and a client that reads nothing is cut by the kernel (TCP_USER_TIMEOUT).

    Args:
        server: Whose connection it is.
        stream: Its bytes. Closed at the end.
    """

    def __init__(self, server: HttpServer, stream: Any) -> None:
        self._server = server
        self._stream = stream
        self._send, self._receive = stream.send_all, stream.receive_some
        if isinstance(stream, trio.SocketStream):
            self._send, self._receive = partial(send_to, stream.socket), partial(receive_from, stream.socket)
        self._protocol = Http1(self._write, server.upgrades)
        self._reading = trio.CancelScope()
        self._writing = trio.Lock()
        self._closing = False
        self._ended = False
        self._lingered = 0
        self._upgrade: Upgrade | None = None
        self._client: Any = None
        self._own: Any = None
        self._scheme = "https" if isinstance(stream, TlsStream) else "http"
        self._extensions: Mapping[str, Any] = extensions_of(stream)

    @property
    def idle(self) -> bool:
        """Whether no request is being served."""
        return self._protocol.stream is None

    def drain(self) -> None:
        """Close at once if the connection is idle; else its current response is its last."""
        if self.idle:
            self.stop()

    def stop(self) -> None:
        """Read no more: the connection closes as soon as nothing is being served."""
        self._reading.cancel()

    async def run(self) -> None:
        """Serve the connection to its end."""
        socket = getattr(self._stream, "socket", None)
        if socket is not None:
            try:
                self._client = parse_socket_addr(socket.family, socket.getpeername())
                self._own = parse_socket_addr(socket.family, socket.getsockname())
            except OSError:
                return  # gone before it began
        try:
            async with trio.open_nursery() as requests:
                self._requests = requests
                self._server.opened(self)
                upgrade = await self._read_requests()
                if upgrade is not None:
                    await self._server.switch(self._stream, upgrade)
        finally:
            self._server.closed(self)
            await self._stream.aclose()  # noqa: ASYNC102  # aclose closes even when it is cancelled

    # The reading side.

    async def _read_requests(self) -> Upgrade | None:
        """Read to the end, or to a request to speak something else."""
        self._expect(self._server.limits.head_timeout)
        try:
            with self._reading:
                await self._read_data()
        except Upgrade as upgrade:
            self._upgrade = upgrade
        if self._upgrade is not None:
            return self._upgrade
        self._ended = True
        self._leave()
        await self._stream.aclose()
        return None

    async def _read_data(self) -> None:
        receive = self._receive
        while True:
            try:
                data = await receive(MAX_RECV)
            except _GONE:
                return
            if not data or not await self._received(data):
                return

    async def _received(self, data: bytes) -> bool:
        """Hand on what was read; whether to go on reading."""
        if self._closing:
            self._lingered += len(data)
            return self._lingered <= _MAX_LINGER
        protocol = self._protocol
        fresh = protocol.stream is None and not protocol.backlog
        protocol.feed(data)
        try:
            if protocol.stream is None:
                if not self._begin_request() and fresh:
                    self._expect(self._server.limits.head_timeout)
            else:
                event = protocol.next_body()
                if event is not None:
                    await protocol.stream.inbox.put(event)
        except HeadRefused as refused:
            await self._refuse(refused.status)
        stream = protocol.stream
        return stream is None or not stream.body.done or protocol.backlog <= MAX_BACKLOG

    def _begin_request(self) -> bool:
        """Start to serve a request, if a head is there; whether it was. Raises `HeadRefused`, or `Upgrade`."""
        stream = self._protocol.next_request()
        if stream is None:
            return False
        self._expect(math.inf)
        self._requests.start_soon(self._serve, stream)
        return True

    async def _refuse(self, status: int) -> None:
        """End the connection for what was sent on it; with an answer, if none is under way."""
        self._server.refused(self._client and self._client[0])
        stream = self._protocol.stream
        self._leave()
        if stream is None or not stream.started:
            await self._write(refusal(status))
        await self._begin_close()

    def _leave(self) -> None:
        """Whoever is being served has nobody to answer."""
        if self._protocol.stream is not None:
            self._protocol.stream.leave()

    def _expect(self, seconds: float) -> None:
        """Give the client so much time for what comes next."""
        self._reading.deadline = math.inf if seconds == math.inf else trio.current_time() + seconds

    # The serving side.

    async def _serve(self, stream: RequestStream) -> None:
        """Serve a request, and those that were sent behind it and have arrived."""
        following: RequestStream | None = stream
        while following is not None:
            await self._serve_one(following)
            following = await self._finish(following)

    async def _serve_one(self, stream: RequestStream) -> None:
        extensions = {**self._extensions, ON_GONE: stream.on_gone}
        scope = scope_of(
            stream.head, scheme=self._scheme, client=self._client, server=self._own, extensions=extensions
        )  # fmt: skip
        try:
            await self._server.application(scope, stream.receive, stream.send)
        except Exception as error:  # a boundary: a bug in one request ends that request
            self._server.contain(error)
        finally:
            stream.inbox.abandon()

    async def _finish(self, stream: RequestStream) -> RequestStream | None:
        """What comes behind a request that was served: the next one that is there already; else the reader goes on."""
        protocol = self._protocol
        if not stream.answered and not stream.started and not stream.gone:
            await self._write(refusal(500))
            stream.closes = True
        whole = stream.answered and stream.body.done
        protocol.stream = None
        if self._closing or self._ended:
            return None
        if not whole or stream.closes or self._server.stopping:
            await self._begin_close()
            return None
        self._expect(self._server.limits.idle_timeout)
        if not protocol.backlog:
            return None
        try:
            following = protocol.next_request()
        except HeadRefused as refused:
            await self._refuse(refused.status)
            return None
        except Upgrade as upgrade:
            self._upgrade = upgrade
            self.stop()
            return None
        self._expect(math.inf if following is not None else self._server.limits.head_timeout)
        return following

    async def _write(self, data: bytes) -> None:
        """Write all of it, unless the client is gone."""
        lock = self._writing
        try:
            lock.acquire_nowait()
        except trio.WouldBlock:
            await lock.acquire()
        try:
            await self._send(data)
        except _GONE:
            self._leave()
            self.stop()
        finally:
            lock.release()

    async def _begin_close(self) -> None:
        """Nothing more will be written. Read on for a moment, so that the client gets what was."""
        if self._closing:
            return
        self._closing = True
        self._leave()
        async with self._writing:
            try:
                await self._stream.send_eof()
            except _GONE:
                self.stop()
        self._expect(LINGER_S)


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
