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

from ..containment import QUIET, Containment
from ..http_source.answers import Answer, HttpError, error_answer, refusal_answer
from ..http_source.edge import inspect_head
from ..listening import Listening
from ..tls_handshakes import Handshakes
from .handshake import Visit, parse_upgrade

_PIECE: Final = 16 * 1024
_LINGER_S: Final = 1.0
_MAX_LINGER: Final = 1024 * 1024
_TOO_MANY: Final = Answer(503, headers={"retry-after": "1"})

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
class Listener:
    """
    Listens, accepts, and keeps count. Bind before serving; close after.

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
        self.tls = tls
        self._listening = listening
        self._serve = serve
        self._max_connections = max_connections
        self._head_timeout_s = head_timeout_s
        self._containment = Containment(log)
        self._accepting = trio.CancelScope()
        self.connections = 0
        """Connections that are open."""
        self.turned_away = 0
        """Connections beyond `max_connections`."""

    @property
    def contained(self) -> int:
        """Exceptions of connections that were contained."""
        return self._containment.count

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
        self._listening.close()

    async def handle(self, stream: trio.abc.Stream) -> None:
        """Serve one connection; every exception of it ends here."""
        if self.connections >= self._max_connections:
            self.turned_away += 1
            if self.tls is None:
                with suppress(*QUIET), trio.move_on_after(_LINGER_S):
                    await _answer(stream, _TOO_MANY)
            await trio.aclose_forcefully(stream)
            return
        self.connections += 1
        try:
            if self.tls is None:
                await self._converse(stream, stream, None)
            else:
                assert isinstance(stream, trio.SocketStream)
                secured = await self.tls.secure(stream)
                if secured is not None:
                    await self._converse(secured, stream, secured.certificate)
        except* Exception as group:  # a boundary: one connection never ends another
            self._containment.take(group)
        finally:
            self.connections -= 1
            await trio.aclose_forcefully(stream)  # noqa: ASYNC102  # closes without waiting

    async def _converse(self, stream: trio.abc.Stream, transport: trio.abc.Stream, certificate: str | None) -> None:
        try:
            head = first = b""
            with trio.move_on_after(self._head_timeout_s):
                head, first = await _read_head(stream)
            if not head:  # it left, or said nothing in time
                return
            await self._serve(Caller(stream, parse_upgrade(head, _address_of(transport), certificate), first))
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
    if not isinstance(stream, trio.SocketStream):
        return None
    try:
        name = stream.socket.getpeername()
    except OSError:
        return None
    return name[0] if isinstance(name, tuple) else None
