"""
What kind of failure an outcome is: the one place where retry, circuit breaker, hedge and fallback agree about it.

An outcome is what came out of an inner chain: a reply, or a `GatewayError` it raised. Two questions matter. Was the
request sent? What was not sent can be repeated, whatever it is; what was sent may have run. And who is to blame? A
breaker counts what says that the upstream is broken (protocol.md section 6: connecting, time-outs, 5xx, -32603; never
`isError`, -32601, -32602, -3202x, 401, 403, or a client that left).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from .errors import (
    Blame,
    CircuitOpen,
    DeadlineExceeded,
    GatewayError,
    OutcomeUnknown,
    Refused,
    UpstreamClosed,
    UpstreamFault,
    UpstreamProtocolError,
)
from .mcp import ErrorCode
from .messages import ErrorReply, Reply, Result


class Failure(StrEnum):
    """Kinds of failures, as options name them."""

    UNREACHABLE = "unreachable"
    """The upstream could not be reached, or is known to be down; nothing was sent."""
    REFUSED = "refused"
    """A limit inside the gateway refused; nothing was sent."""
    LOST = "lost"
    """The upstream, or something before it, went away after the request was sent: it may have run."""
    TIMEOUT = "timeout"
    """A time-out ended it; it may have run."""
    ERROR = "error"
    """The upstream answered that it broke: HTTP 500 or -32603. It may have run."""
    GARBLED = "garbled"
    """What the upstream answered is not MCP. It may have run."""


UNSENT: Final = frozenset({Failure.UNREACHABLE, Failure.REFUSED})
"""Failures after which every request can be sent again: no upstream has seen it."""

_CLIENTS_FAULT: Final = frozenset(
    {
        ErrorCode.PARSE_ERROR,
        ErrorCode.INVALID_REQUEST,
        ErrorCode.METHOD_NOT_FOUND,
        ErrorCode.INVALID_PARAMS,
        ErrorCode.HEADER_MISMATCH,
        ErrorCode.MISSING_CLIENT_CAPABILITY,
        ErrorCode.UNSUPPORTED_PROTOCOL_VERSION,
    }
)
"""Codes that say that the request is wrong, whatever the HTTP status beside them."""

_NOT_THERE: Final = frozenset({502, 503, 504})
"""HTTP statuses with which something before the upstream says that it is not there (RFC 9110 section 15.6)."""


def failure_of(outcome: Reply | GatewayError) -> Failure | None:
    """
    What kind of failure an outcome is; None if it is an answer, or a refusal that no repetition changes.

    A refusal of the gateway's own credential (HTTP 401, 403) is none of these: it is up, and will refuse again.
    """
    if isinstance(outcome, Result):
        return None
    if isinstance(outcome, ErrorReply):
        return _failure_of_error(outcome)
    if isinstance(outcome, Refused):
        if isinstance(outcome, CircuitOpen):
            return Failure.UNREACHABLE
        return Failure.REFUSED if outcome.retryable else None
    if isinstance(outcome, DeadlineExceeded):
        return Failure.TIMEOUT
    if outcome.retryable:
        return Failure.UNREACHABLE
    if isinstance(outcome, UpstreamClosed | OutcomeUnknown):
        return Failure.LOST
    return Failure.GARBLED if isinstance(outcome, UpstreamProtocolError) else None


def _failure_of_error(error: ErrorReply) -> Failure | None:
    status = error.http_status or 200
    if error.code in _CLIENTS_FAULT:
        return None
    if status in _NOT_THERE:
        return Failure.LOST
    return Failure.ERROR if status >= 500 or error.code == ErrorCode.INTERNAL_ERROR else None


def blames_upstream(outcome: Reply | GatewayError) -> bool:
    """Whether an outcome says that the upstream is broken: what a circuit breaker counts."""
    if failure_of(outcome) is None:
        return False
    if isinstance(outcome, UpstreamFault):
        return outcome.counts
    return not isinstance(outcome, GatewayError) or outcome.blame is Blame.UPSTREAM


def retry_after_of(outcome: Reply | GatewayError) -> float | None:
    """Seconds after which whoever failed wants to be asked again, if it says so (`Retry-After`, `retry_after_ms`)."""
    if isinstance(outcome, GatewayError):
        return outcome.retry_after_s
    data = outcome.data if isinstance(outcome, ErrorReply) else None
    wanted = data.get("retry_after_ms") if isinstance(data, dict) else None
    if isinstance(wanted, bool) or not isinstance(wanted, int | float) or not 0 <= wanted < 1e12:
        return None
    return wanted / 1000


def name_of(outcome: Reply | GatewayError) -> str:
    """A short name for logs and decisions: a reason or a code, and nothing that an upstream has written."""
    if isinstance(outcome, GatewayError):
        return outcome.reason
    return f"error {outcome.code}" if isinstance(outcome, ErrorReply) else "result"
