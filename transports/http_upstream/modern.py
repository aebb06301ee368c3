"""
Modern clients on a modern upstream: a POST for each request, and nothing between two of them.

2026-07-28, basic/transports/streamable-http. Each POST is an exchange of its own, so ids, progress tokens and
subscription ids stay the client's, and a request that no stage changed goes out as the bytes it was. Closing the
connection is the cancel.
"""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from typing import Any, Final, final

import trio

from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.options import MINUTE
from sluiceway.pipeline.model.tools import CALL, LIST
from sluiceway.pipeline.protocol.errors import UnsupportedVersion, UpstreamProtocolError
from sluiceway.pipeline.protocol.mcp import LEGACY_VERSIONS, METHODS, ErrorCode, Kind, MetaKey
from sluiceway.pipeline.protocol.messages import EMPTY, ErrorReply, Notification, Reply, Request, Response, Result
from sluiceway.pipeline.runtime.nursery import unwrap_single

from ..eras.detection import speaks_modern
from ..http_client.client import Use
from ..http_client.response import Response as HttpResponse
from ..mirrors import Mirrors
from .answers import cut_off, error_in, with_status
from .headers import modern_headers
from .long_result import LongResult, conclude
from .upstream import Upstream

_DISCOVER: Final = "server/discover"
_PLAIN: Final = frozenset(row.name for row in METHODS.values() if row.kind is Kind.CALL and row.name != LIST)
"""Methods with one reply, of which a client's HTTP headers say all that the sink would have to know of its tools."""
_REMEMBER_S: Final = 5 * MINUTE
"""How long an upstream counts as legacy only; then it is asked again, for it may have been upgraded."""


@final
class ModernUpstream:
    """
    Args:
        upstream: Where requests go.
        detect: Whether to find out if it speaks modern revisions at all; else it is taken for granted.
        mirrors: What is known of its tools.
    """

    def __init__(self, upstream: Upstream, *, detect: bool, mirrors: Mirrors) -> None:
        self._upstream = upstream
        self._mirrors = mirrors
        self.is_modern = not detect
        """Whether it is known to speak modern revisions."""
        self._legacy_until: float | None = None

    def call(self, exchange: Exchange) -> Coroutine[Any, Any, Reply]:
        """
        When awaited, pass a message on and its notifications back; return its reply, if it has one.

        Raises:
            UnsupportedVersion: The upstream speaks legacy revisions only.
            UpstreamFault: It failed, or does not take the notification.
        """
        request = exchange.request
        is_plain = self.is_modern and exchange.client.transport == "http" and request.method in _PLAIN
        if is_plain and type(request) is Request:
            return self._send(exchange, request)
        return self._notify(exchange) if exchange.kind is Kind.NOTIFY else self._call(exchange)

    async def _call(self, exchange: Exchange) -> Reply:
        request = exchange.request
        assert isinstance(request, Request)
        if not self.is_modern:
            if self._legacy_until is not None and trio.current_time() < self._legacy_until:
                raise self._legacy_only(exchange)
            if exchange.method == _DISCOVER:
                return await self._find_out(exchange, request)
            nameless = exchange.with_client(exchange.client.with_headers({}))
            await self._find_out(nameless, _discover_as(exchange))
        if exchange.kind is Kind.LISTEN:
            return await self._listen(exchange, request)
        reply = await self._send(exchange, request, self._mirrors.headers(exchange))
        if _lacks_headers(exchange, reply) and await self._mirrors.find(exchange, self.call, again=True):
            reply = await self._send(exchange, request, self._mirrors.headers(exchange))
        self._mirrors.learn(exchange, reply)
        return reply

    async def _notify(self, exchange: Exchange) -> Result:
        notification = exchange.request
        assert isinstance(notification, Notification)
        if self._legacy_until is not None and trio.current_time() < self._legacy_until:
            raise self._legacy_only(exchange)
        response = await self._upstream.say(notification, modern_headers(notification, exchange.client))
        if not 200 <= response.head.status < 300:
            raise UpstreamProtocolError(
                f"{self._upstream.name}: the upstream answers a notification with HTTP {response.head.status}"
            )
        return Result()

    async def _send(
        self, exchange: Exchange, request: Request, mirrored: Mapping[str, str] = EMPTY, *, use: Use = Use.CALL
    ) -> Reply:
        upstream = self._upstream
        response = await upstream.post(request, modern_headers(request, exchange.client, mirrored), use=use)
        reply = upstream.reply_in(response, request.id)
        if reply is not None:
            return reply if type(reply) is Result else with_status(reply, response.head.status)
        with response:
            return await self._reply(exchange, request, response)

    async def _reply(self, exchange: Exchange, request: Request, response: HttpResponse) -> Reply:
        """Relay what comes before the reply, and return that."""
        upstream, status = self._upstream, response.head.status
        if not 200 <= status < 300:
            return with_status(await upstream.refusal(response), status)
        incoming = upstream.read(response)
        following = incoming.next_or_long if exchange.takes_pieces else incoming.next
        while (message := await following()) is not None:
            if isinstance(message, Response | LongResult):
                reply = await conclude(exchange, message, upstream.name, request.id)
                response.finish()
                return with_status(reply, status)
            if isinstance(message, Request):
                raise UpstreamProtocolError(
                    f"{upstream.name}: the upstream sends the request {message.method[:60]!r}, which servers of this "
                    "revision must not"
                )
            await exchange.relay(message)
        raise cut_off(upstream.name)

    async def _listen(self, exchange: Exchange, request: Request) -> Reply:
        """A subscription, which ends by itself when the gateway drains."""
        reply: Reply | None = None
        with unwrap_single():
            async with trio.open_nursery() as nursery:

                async def hang_up() -> None:
                    await exchange.draining.wait()
                    nursery.cancel_scope.cancel()

                nursery.start_soon(hang_up)
                reply = await self._send(exchange, request, use=Use.STREAM)
                nursery.cancel_scope.cancel()
        if reply is not None:
            return reply
        return Result({"resultType": "complete", "_meta": {MetaKey.SUBSCRIPTION_ID.value: request.id}})

    async def _find_out(self, exchange: Exchange, question: Request) -> Reply:
        """Ask what the upstream speaks with a `server/discover`; return the reply. Raises as `_judged` does."""
        with await self._upstream.post(question, modern_headers(question, exchange.client)) as response:
            return await self._judged(exchange, question, response)

    async def _judged(self, exchange: Exchange, request: Request, response: HttpResponse) -> Reply:
        """
        The reply to `server/discover`, and what it tells about the upstream.

        Raises:
            UnsupportedVersion: That it is a legacy one.
        """
        upstream, status = self._upstream, response.head.status
        reply: Reply | None
        if 200 <= status < 300:
            reply = await self._reply(exchange, request, response)
        else:
            with upstream.faults:
                reply = error_in(await response.body(upstream.limits.max_message_size), upstream.limits)
        modern = speaks_modern(status, reply)
        if modern is False:
            self._legacy_until = trio.current_time() + _REMEMBER_S
            raise self._legacy_only(exchange)
        if modern is None or reply is None:
            raise upstream.failure(response.head)
        self.is_modern = True
        return with_status(reply, status) if isinstance(reply, ErrorReply) else reply

    def _legacy_only(self, exchange: Exchange) -> UnsupportedVersion:
        return UnsupportedVersion(
            f"{self._upstream.name}: the upstream speaks revisions with a handshake only; initialize a session",
            data={"supported": list(LEGACY_VERSIONS), "requested": exchange.client.version},
        )


def _discover_as(exchange: Exchange) -> Request:
    """Asks what an upstream speaks, in the client's name: what it may do is for the server to know."""
    wanted, meta = (MetaKey.VERSION, MetaKey.CLIENT_CAPABILITIES, MetaKey.CLIENT_INFO), exchange.request.meta
    return Request("discover", _DISCOVER, {"_meta": {key.value: meta[key] for key in wanted if key in meta}})


def _lacks_headers(exchange: Exchange, reply: Reply) -> bool:
    """Whether a call was refused for headers that the sink has to make, and that it may not know of yet."""
    if exchange.method != CALL or exchange.client.transport == "http":
        return False
    return isinstance(reply, ErrorReply) and reply.code == ErrorCode.HEADER_MISMATCH
