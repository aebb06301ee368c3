"""Complete HTTP responses as values: what the endpoint says when it does not stream."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from attrs import Factory, frozen

from sluiceway.pipeline.protocol.codec import encode_message
from sluiceway.pipeline.protocol.errors import (
    CODE_TABLES,
    Forbidden,
    GatewayError,
    MalformedCredentials,
    Misdirected,
    SessionNotFound,
    SluicewayError,
    Unauthenticated,
    render_error,
)
from sluiceway.pipeline.protocol.mcp import Era, ErrorCode
from sluiceway.pipeline.protocol.messages import ErrorReply, Reply, RequestId, Response

from .media import JSON

_TRANSPORT_REASONS: Final = frozenset(
    error.reason for error in (Unauthenticated, MalformedCredentials, Forbidden, Misdirected, SessionNotFound)
)
"""Errors that are HTTP's to tell in every era; other errors of the legacy era travel in a 200."""

_STATUSES: Final[Mapping[int, int]] = {
    ErrorCode.PARSE_ERROR: 400,
    ErrorCode.INVALID_REQUEST: 400,
    ErrorCode.METHOD_NOT_FOUND: 404,
    ErrorCode.HEADER_MISMATCH: 400,
    ErrorCode.MISSING_CLIENT_CAPABILITY: 400,
    ErrorCode.UNSUPPORTED_PROTOCOL_VERSION: 400,
}
"""HTTP status of an error that does not bring its own (2026-07-28, basic/transports/streamable-http)."""


class HttpError(SluicewayError):
    """
    A request that fails as HTTP, before there is a message.

    Args:
        status: Of the response.
        message: A sentence that names the remedy.
        headers: Further response headers, names in lower case.
    """

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers or {}


@frozen
class Answer:
    """A whole response."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = Factory(dict)
    """Names in lower case."""


def http_status(reply: Reply | None, era: Era) -> int:
    """The status that a reply travels with: 202 for none at all, because the client took its request back."""
    if reply is None:
        return 202
    if not isinstance(reply, ErrorReply):
        return 200
    if era is Era.MODERN:
        return reply.http_status or _STATUSES.get(reply.code, 200)
    data = reply.data if isinstance(reply.data, dict) else {}
    of_transport = data.get("origin") == "gateway" and data.get("reason") in _TRANSPORT_REASONS
    return reply.http_status or 200 if of_transport else 200


def json_answer(status: int, body: bytes, headers: Mapping[str, str] | None = None) -> Answer:
    """A JSON body."""
    return Answer(status, body, {"content-type": JSON, **(headers or {})})


def error_answer(
    error: GatewayError, request_id: RequestId | None = None, codes: Mapping[str, int] = CODE_TABLES["spec"]
) -> Answer:
    """The response to a message that never became an exchange, with a code of this table."""
    headers = {}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s)))  # in whole seconds, and not too early
    if isinstance(error, (Unauthenticated, Forbidden)) and error.challenge is not None:
        headers["www-authenticate"] = error.challenge
    answered = request_id if request_id is not None else error.request_id
    return json_answer(error.http_status, encode_message(Response(answered, render_error(error, codes))), headers)


def refusal_answer(error: HttpError) -> Answer:
    """The response to what is not a request we read: an error about no message, so without an id."""
    reply = ErrorReply(ErrorCode.INVALID_REQUEST, error.message, {"origin": "gateway", "reason": "http"})
    return json_answer(error.status, encode_message(Response(None, reply)), error.headers)
