"""
What an upstream's HTTP response means for an exchange, without I/O.

What the upstream says in JSON-RPC is its word and goes to the client. What it says in HTTP alone is about us, not about
the client: a 401 is about *our* credential, and must never look like one about the client's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs

from sluiceway.pipeline.protocol.codec import decode_upstream
from sluiceway.pipeline.protocol.errors import (
    GatewayError,
    UpstreamClosed,
    UpstreamProtocolError,
    UpstreamUnavailable,
)
from sluiceway.pipeline.protocol.gate import Limits
from sluiceway.pipeline.protocol.messages import ErrorReply, Reply, RequestId, Response

from ..http_client.parser import Head

JSON: Final = "application/json"
EVENTS: Final = "text/event-stream"
_SERVER_ERROR: Final = -32000


def error_in(body: bytes, limits: Limits) -> ErrorReply | None:
    """The JSON-RPC error that the body of an error response is; None if it is none."""
    try:
        message = decode_upstream(body, limits)
    except UpstreamProtocolError:
        return None
    reply = message.reply if isinstance(message, Response) else None
    return reply if isinstance(reply, ErrorReply) else None


def refusal(name: str, head: Head) -> GatewayError:
    """
    The failure that an error response without JSON-RPC in it is.

    Args:
        name: What the upstream is called.
        head: Its response.
    """
    status, retry_after_s = head.status, _retry_after(head.headers)
    if status in (401, 403):
        error: GatewayError = UpstreamUnavailable(
            f"{name}: the upstream refuses the gateway's own credential (HTTP {status}); check headers or oauth"
        )
        error.retryable = False
        return error
    if status in (429, 503):
        busy = UpstreamUnavailable(f"{name}: the upstream is busy (HTTP {status})", retry_after_s=retry_after_s)
        busy.counts = status == 503
        return busy
    if status >= 500:
        return UpstreamClosed(
            f"{name}: the upstream failed (HTTP {status}); the request may have run", retry_after_s=retry_after_s
        )
    if 300 <= status < 400:
        location = head.headers.get("location", "").partition("?")[0][:200]
        return UpstreamProtocolError(
            f"{name}: the upstream redirects (HTTP {status}) to {location!r}; redirects are not followed, put the "
            "address into url"
        )
    return UpstreamProtocolError(f"{name}: the upstream answers HTTP {status} without a JSON-RPC message")


def wrong_type(name: str, head: Head) -> GatewayError:
    """The failure that a response of some other content type is."""
    return UpstreamProtocolError(
        f"{name}: the upstream answers HTTP {head.status} with content type {head.media_type[:60]!r}, neither {JSON} "
        f"nor {EVENTS}"
    )


def cut_off(name: str) -> GatewayError:
    """The failure that an answer without a reply in it is."""
    return UpstreamClosed(f"{name}: the upstream ended its answer without a reply; the request may have run")


def with_status(reply: Reply, status: int) -> Reply:
    """An upstream's error with the HTTP status it came with, so that it can leave with the same."""
    return attrs.evolve(reply, http_status=status) if isinstance(reply, ErrorReply) else reply


def check_answers(name: str, response: Response, request_id: RequestId) -> Reply:
    """
    The reply in a response to this request.

    Raises:
        UpstreamProtocolError: It answers another one.
    """
    answered, reply = response.id, response.reply
    if answered == request_id:  # strings and integers are the only types that ids have
        return reply
    if answered is None and isinstance(reply, ErrorReply):
        return reply  # about a message whose id it could not read: there was only one
    raise UpstreamProtocolError(f"{name}: the upstream answers a request with another id")


def knows_no_session(status: int, reply: Reply) -> bool:
    """
    Whether an error response to a request with a session id says that there is no such session, in the words of the
    examples that many servers are made of; the spec says 404 (2025-11-25, transports, session management).
    """
    said = isinstance(reply, ErrorReply) and reply.code == _SERVER_ERROR and "session" in reply.message.lower()
    return status == 400 and said


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds of a `Retry-After`; its other form, a date, would need a clock that agrees with the upstream's."""
    value = headers.get("retry-after", "")
    return float(value) if value.isascii() and value.isdecimal() and len(value) < 8 else None
