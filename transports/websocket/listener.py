"""
A listener of our own for WebSockets: accepts connections, reads the request, refuses or serves.

The edge guard sees every request before any parser does, as in the `http` source. Nothing but WebSockets is served.
"""

from __future__ import annotations

import http
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, final

import trio
from attrs import frozen

from sluiceway.pipeline.protocol.errors import GatewayError

from ..acceptor import Acceptor
from ..containment import QUIET
from ..http_source.answers import Answer, HttpError, error_answer, refusal_answer
from ..http_source.edge import inspect_head
from ..listening import Listening
from ..tls_handshakes import Handshakes
from ..tls_stream import TlsStream
from .handshake import Visit, parse_upgrade

_PIECE: Final = 16 * 1024
_LINGER_S: Final = 1.0
_MAX_LINGER: Final = 1024 * 1024

Serve = Callable[["Caller"], Awaitable[None]]
"""Serves a client whose request to open a WebSocket is in order, or raises with what it is refused."""


@final
@frozen
class Caller:
    """A connection on which somebody asked for a WebSocket."""

    stream: trio.abc.Stream
    visit: Visit
    first: bytes
    """What came behind the head of the request."""


@final
class Listener(Acceptor):
    """
    Serves a WebSocket on every connection, and nothing else.

    Args:
        listening: Its sockets.
        serve: Gets every client that asks for a WebSocket, in a task of the client's own.
        max_connections: Clients at the same time, those included that have not said anything yet.
        head_timeout_s: Seconds a client gets to ask.
        tls: How connections come to speak TLS; None where they do not.
        log: Structured logger.
    """

    def __init__(
        self,
        listening: Listening,
        serve: Serve,
        *,
        max_connections: int,
        head_timeout_s: float,
        tls: Handshakes | None,
        log: Any,
    ) -> None:
        super().__init__(listening, max_connections=max_connections, tls=tls, log=log)
        self._serve = serve
        self._head_timeout_s = head_timeout_s

    async def converse(self, stream: trio.abc.Stream) -> None:
        """See `Acceptor`."""
        certificate = stream.certificate if isinstance(stream, TlsStream) else None
        try:
            head = first = b""
            with trio.move_on_after(self._head_timeout_s):
                head, first = await _read_head(stream)
            if not head:  # it left, or said nothing in time
                return
            await self._serve(Caller(stream, parse_upgrade(head, _address_of(stream), certificate), first))
        except HttpError as error:
            await _refuse(stream, refusal_answer(error))
        except GatewayError as error:
            await _refuse(stream, error_answer(error))


async def _read_head(stream: trio.abc.Stream) -> tuple[bytes, bytes]:
    """
    The head of a request with its empty line, and what came behind it; nothing if the client leaves.

    Raises:
        HttpError: It is refused at the edge.
    """
    data = b""
    while True:
        piece = await stream.receive_some(_PIECE)
        if not piece:
            return b"", b""
        data += piece
        status = inspect_head(data)
        if status is not None:
            raise HttpError(status, "refused at the edge: this is not a request that every parser reads alike")
        head, end, rest = data.partition(b"\r\n\r\n")
        if end:
            return head + end, rest


async def _refuse(stream: trio.abc.Stream, answer: Answer) -> None:
    """Answer, and let the client hear it: closing with unread bytes would reset the answer away."""
    with suppress(*QUIET), trio.move_on_after(_LINGER_S):
        await _answer(stream, answer)
        if isinstance(stream, trio.abc.HalfCloseableStream):
            await stream.send_eof()
        left = _MAX_LINGER
        while left > 0 and (data := await stream.receive_some(_PIECE)):
            left -= len(data)


async def _answer(stream: trio.abc.Stream, answer: Answer) -> None:
    status = http.HTTPStatus(answer.status)
    headers = {**answer.headers, "content-length": str(len(answer.body)), "connection": "close"}
    if "upgrade" in headers:
        headers["connection"] = "close, upgrade"
    lines = [f"HTTP/1.1 {status.value} {status.phrase}", *(f"{name}: {value}" for name, value in headers.items())]
    await stream.send_all("\r\n".join([*lines, "", ""]).encode("latin-1") + answer.body)


def _address_of(stream: trio.abc.Stream) -> str | None:
    """The remote address; None where there is none, or none any more."""
    if not isinstance(stream, trio.SocketStream | TlsStream):
        return None
    try:
        name = stream.socket.getpeername()
    except OSError:
        return None
    return name[0] if isinstance(name, tuple) else None
