"""
WebSockets that another server holds, over plain ASGI 3: `hypercorn -k trio` is one.

That server makes the handshake, cuts messages that are too long for it, answers pings, and may compress; none of this
is ours then. What is checked before a WebSocket is accepted, and what is said on it, is as on a connection of ours.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, Final, final

import trio

from sluiceway.pipeline.protocol.errors import GatewayError

from ..http_source.answers import Answer, HttpError
from ..http_source.request import Receive, Send, certificate_of, read_headers
from .clients import Clients
from .frames import TOO_BIG
from .handshake import Visit
from .wire import ABNORMAL, Gone, Refused

_CLOSING_S: Final = 2.0


@final
class ScopeSocket:
    """
    A WebSocket as a `Conversation` wants it.

    Args:
        receive: ASGI's. Nobody else may call it.
        send: As ASGI's; raises `trio.BrokenResourceError` if nobody will read what it takes.
        max_message: Bytes of one message of the client.
    """

    def __init__(self, receive: Receive, send: Send, max_message: int) -> None:
        self._receive = receive
        self._send = send
        self._max_message = max_message

    async def receive(self) -> bytes:
        """The next message. Raises `Gone`."""
        event = await self._receive()
        if event["type"] == "websocket.disconnect":
            raise Gone(event.get("code") or ABNORMAL, event.get("reason") or "")
        data: bytes | None = event.get("bytes")
        message = event["text"].encode() if data is None else data
        if len(message) > self._max_message:
            reason = f"a message has at most {self._max_message} bytes here"
            await self.close(TOO_BIG, reason)
            raise Gone(TOO_BIG, reason)
        return message

    async def send(self, messages: Sequence[bytes]) -> None:
        """Send messages as text. Raises `Gone` if the server tells that nobody will read it; not every one does."""
        try:
            for message in messages:
                await self._send({"type": "websocket.send", "text": message.decode(), "bytes": None})
        except trio.BrokenResourceError as error:
            raise Gone(ABNORMAL, "the client is gone") from error

    async def close(self, code: int, reason: str = "") -> None:
        """End it with a close frame, if that can be sent within two seconds. The answer is the server's to wait for."""
        with trio.move_on_after(_CLOSING_S), suppress(trio.BrokenResourceError):
            await self._send({"type": "websocket.close", "code": code, "reason": reason})

    async def leave(self, code: int, reason: str) -> None:
        """End it with a close frame."""
        await self.close(code, reason)


async def serve_scope(clients: Clients, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
    """Serve one WebSocket until it ends, or refuse it. `send` is as `ScopeSocket` takes it."""
    visit = _visit_of(scope)
    try:
        if scope["http_version"] != "1.1":
            raise HttpError(505, "WebSockets are served over HTTP/1.1 here")
        await clients.serve(visit, partial(_accept, receive, send, clients.config.max_message))
    except (HttpError, GatewayError) as error:
        await refuse_scope(scope, receive, send, clients.refusal(error, visit.address))


async def refuse_scope(scope: Mapping[str, Any], receive: Receive, send: Send, answer: Answer) -> None:
    """Answer in HTTP where the server can; else it says 403 for us. Nothing to a client that has left."""
    if (await receive())["type"] != "websocket.connect":
        return
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close", "code": 1000})
        return
    headers = {**answer.headers, "content-length": str(len(answer.body)), "connection": "close"}
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "websocket.http.response.start", "status": answer.status, "headers": raw})
    await send({"type": "websocket.http.response.body", "body": answer.body})


@asynccontextmanager
async def _accept(
    receive: Receive, send: Send, max_message: int, subprotocol: str | None
) -> AsyncIterator[ScopeSocket]:
    if (await receive())["type"] != "websocket.connect":
        raise Refused("it left")
    await send({"type": "websocket.accept", "subprotocol": subprotocol})
    yield ScopeSocket(receive, send, max_message)


def _visit_of(scope: Mapping[str, Any]) -> Visit:
    """The request that the server found in order."""
    headers, repeated = read_headers(scope["headers"])
    client = scope.get("client")
    return Visit(
        scope["path"], scope.get("query_string", b""), headers, frozenset(repeated), tuple(scope["subprotocols"]),
        client[0] if client else None, certificate_of(scope),
    )  # fmt: skip
