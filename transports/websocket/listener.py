"""
A listener of our own for WebSockets: reads one request from each connection, and has it served or refused.

The edge guard sees every request before any parser does, as in the `http` source. Nothing but WebSockets is served.
"""

from __future__ import annotations

from typing import Any, Final, final

import h11
import trio

from ..acceptor import Acceptor
from ..http_source.answers import HttpError, refusal_answer
from ..http_source.edge import inspect_head
from ..listening import Listening
from ..tls_handshakes import Handshakes
from .clients import Clients
from .handshake import parse_head
from .reception import Reception, address_of, refuse

_PIECE: Final = 16 * 1024


@final
class Listener(Acceptor):
    """
    Serves a WebSocket on every connection, and nothing else.

    Args:
        listening: Its sockets.
        clients: Gets everybody who asks for a WebSocket.
        max_connections: Clients at the same time, those included that have not said anything yet.
        head_timeout_s: Seconds a client gets to ask.
        tls: How connections come to speak TLS; None where they do not.
        log: Structured logger.
    """

    def __init__(
        self,
        listening: Listening,
        clients: Clients,
        *,
        max_connections: int,
        head_timeout_s: float,
        tls: Handshakes | None,
        log: Any,
    ) -> None:
        super().__init__(listening, max_connections=max_connections, tls=tls, log=log)
        self._clients = clients
        self._reception = Reception(clients)
        self._head_timeout_s = head_timeout_s

    async def converse(self, stream: trio.abc.Stream) -> None:
        """See `Acceptor`."""
        request, first = None, b""
        try:
            with trio.move_on_after(self._head_timeout_s):
                request, first = await _read_request(stream)
        except HttpError as error:
            self._clients.refused_at_the_edge(address_of(stream))
            await refuse(stream, refusal_answer(error))
        if request is not None:  # else it left, or said nothing in time
            await self._reception.receive(stream, request, first)


async def _read_request(stream: trio.abc.Stream) -> tuple[h11.Request | None, bytes]:
    """
    The head of a request, and what came behind it; nothing if the client leaves.

    Raises:
        HttpError: It is refused at the edge, or no HTTP.
    """
    data = b""
    while True:
        piece = await stream.receive_some(_PIECE)
        if not piece:
            return None, b""
        data += piece
        status = inspect_head(data)
        if status is not None:
            raise HttpError(status, "refused at the edge: this is not a request that every parser reads alike")
        head, end, rest = data.partition(b"\r\n\r\n")
        if end:
            return parse_head(head + end), rest
