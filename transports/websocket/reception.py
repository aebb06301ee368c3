"""From a request on a connection of ours to an open WebSocket, or to an answer that says why not."""

from __future__ import annotations

import http
from contextlib import suppress
from functools import partial
from typing import Final, final

import h11
import trio

from sluiceway.pipeline.protocol.errors import GatewayError

from ..containment import QUIET
from ..http_source.answers import Answer, HttpError
from ..tls_stream import TlsStream
from ..wire import Wire
from .clients import Clients
from .handshake import asks_for_websocket, read_upgrade
from .wire import WireLimits, accept

_PIECE: Final = 16 * 1024
_LINGER_S: Final = 1.0
_MAX_LINGER: Final = 1024 * 1024


@final
class Reception:
    """
    Where connections of ours become WebSockets.

    Args:
        clients: Of the source.
    """

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        config = clients.config
        self._limits = WireLimits(config.max_message, config.ping_interval, config.ping_timeout)

    def asks(self, request: h11.Request) -> bool:
        """Whether a request is for a WebSocket, at the place where there are any. Elsewhere it is one like others."""
        return request.target.partition(b"?")[0] == self._clients.path.encode() and asks_for_websocket(request)

    async def receive(self, stream: trio.abc.Stream, request: h11.Request, first: bytes) -> None:
        """
        Serve whoever sent a request to open a WebSocket, or refuse. The stream is of no further use.

        Args:
            stream: Where the request was read from.
            request: Its head, which the edge guard let pass.
            first: What was read behind it.
        """
        address = address_of(stream)
        try:
            visit = read_upgrade(request, address, stream.certificate if isinstance(stream, TlsStream) else None)
            key = visit.headers["sec-websocket-key"]
            await self._clients.serve(visit, partial(accept, stream, key, first=first, limits=self._limits))
        except (HttpError, GatewayError) as error:
            await refuse(stream, self._clients.refusal(error, address))


async def refuse(stream: trio.abc.Stream, answer: Answer) -> None:
    """Answer, and let the client hear it: closing with unread bytes would reset the answer away."""
    with suppress(*QUIET), trio.move_on_after(_LINGER_S):
        await stream.send_all(_rendered(answer))
        if isinstance(stream, trio.abc.HalfCloseableStream | TlsStream):
            await stream.send_eof()
        left = _MAX_LINGER
        while left > 0 and (data := await stream.receive_some(_PIECE)):
            left -= len(data)


def address_of(stream: trio.abc.Stream) -> str | None:
    """The remote address without port; None where there is none, or none any more."""
    if not isinstance(stream, trio.SocketStream | TlsStream | Wire):
        return None
    try:
        name = stream.socket.getpeername()
    except OSError:
        return None
    return name[0] if isinstance(name, tuple) else None


def _rendered(answer: Answer) -> bytes:
    status = http.HTTPStatus(answer.status)
    headers = {**answer.headers, "content-length": str(len(answer.body)), "connection": "close"}
    if "upgrade" in headers:
        headers["connection"] = "close, upgrade"
    lines = [f"HTTP/1.1 {status.value} {status.phrase}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + answer.body
