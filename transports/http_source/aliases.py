"""
Paths of their own for single methods, for scripts that speak HTTP but no JSON-RPC. Not part of MCP; off by default.

`POST /tools/call` with the params as body answers with the result. It is the same exchange through the same chain: one
of the modern era without capabilities, or, with an `Mcp-Session-Id`, one of that session.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, final

from sluiceway.pipeline.model.session import Client
from sluiceway.pipeline.protocol.codec import decode_message
from sluiceway.pipeline.protocol.errors import InternalError, InvalidMessage, UnknownMethod
from sluiceway.pipeline.protocol.gate import parse
from sluiceway.pipeline.protocol.mcp import LATEST, METHODS, ErrorCode, MetaKey, meta_of
from sluiceway.pipeline.protocol.messages import ErrorReply, Json, Notification, Reply, Request, encode_json

from ..eras import legacy, modern
from .answers import Answer, HttpError, error_answer, json_answer
from .delivery import Delivery
from .request import HttpRequest
from .response import HttpResponse
from .serving import Serving
from .stream import MessageStream

ALIASES: Final[Mapping[str, str]] = {
    f"/{method}": method
    for method in (
        "tools/list", "tools/call", "resources/list", "resources/templates/list", "resources/read",
        "resources/subscribe", "resources/unsubscribe", "prompts/list", "prompts/get",
    )
}  # fmt: skip
"""Path -> method."""
SAMPLING: Final = "/sampling/createMessage"
"""Sampling goes from server to client in MCP; a path for it has nobody to ask."""

_STATUSES: Final[Mapping[int, int]] = {
    ErrorCode.INVALID_PARAMS: 400,
    ErrorCode.METHOD_NOT_FOUND: 404,
    ErrorCode.RESOURCE_NOT_FOUND: 404,
}


@final
class Aliases:
    """Serves the alias paths of one source."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    async def serve(self, body: bytes, request: HttpRequest, response: HttpResponse) -> None:
        """
        Answer one request to an alias path.

        Raises:
            GatewayError: The body is not an object of params.
            HttpError: There is nothing behind this path.
        """
        if request.path == SAMPLING:
            raise HttpError(501, "sampling goes from an MCP server to its client; no sampling provider is set up here")
        self._serving.refuse_if_draining()
        message = self._message(ALIASES[request.path], body)
        message, client = self._sender(message, request)
        stream = MessageStream("")
        ticket = self._serving.handle(message, client=client, emit=_drop)
        reply: Reply | None = None

        async def run() -> None:
            nonlocal reply
            try:
                reply = await ticket.run()
            finally:
                stream.end()

        def whole() -> Answer:
            return _answer(reply, ticket.exchange.reply_headers)

        self._serving.start(run)
        await Delivery(stream, response, keep_alive_s=math.inf).run(
            request, on_gone=lambda: ticket.cancel("client"), whole=whole, patience_s=math.inf
        )

    def _message(self, method: str, body: bytes) -> Request:
        """The request that the body is the params of, through the same gate as every other."""
        if not isinstance(parse(body or b"{}", self._serving.limits), dict):
            raise InvalidMessage("the body must be the params: one JSON object")
        head = encode_json({"jsonrpc": "2.0", "id": self._serving.context.new_id(), "method": method})
        message = decode_message(b'%b,"params":%b}' % (head[:-1], body or b"{}"), self._serving.limits)
        assert isinstance(message, Request)
        return message

    def _sender(self, message: Request, request: HttpRequest) -> tuple[Request, Client]:
        session_id = request.headers.get(legacy.SESSION_HEADER)
        if session_id is not None:
            session = self._serving.sessions.find(session_id).session
            return message, legacy.client_of(session, request.headers, request.address, request.certificate)
        if not METHODS[message.method].modern:
            raise UnknownMethod(f"{message.method} needs a session; send the mcp-session-id of one")
        claims = {MetaKey.VERSION: LATEST, MetaKey.CLIENT_CAPABILITIES: {}}
        message = message.with_params({**message.params, "_meta": {**meta_of(message.params), **claims}})
        return message, modern.client_of(message, request.headers, request.address, request.certificate)


def _answer(reply: Reply | None, headers: Mapping[str, str]) -> Answer:
    if reply is None:
        return error_answer(InternalError("the exchange ended without an answer"))
    if not isinstance(reply, ErrorReply):
        return json_answer(200, reply.raw, headers)
    error: dict[str, Json] = {"code": reply.code, "message": reply.message}
    if reply.data is not None:
        error["data"] = reply.data
    status = reply.http_status or _STATUSES.get(reply.code, 500)
    return json_answer(status, encode_json({"error": error}), headers)


async def _drop(_: Notification) -> None:
    """An alias answers with one body; what would come before it has no place."""
