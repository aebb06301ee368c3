"""
The error tree, and the tables that give every error its number.

Two rules (architecture 1.12). What an upstream answers is data: an `ErrorReply`. What the gateway itself decides is
an exception of this tree, turned into an `ErrorReply` once, at the engine's boundary. Every exception says who is to
blame, whether *we* may safely repeat the call (`retryable`, never sent to the client), and its HTTP status.

JSON-RPC and MCP reserve -32768..-32000, so the default table `spec` numbers the gateway's own errors HTTP status x 100
+ n, and uses the reserved codes only with their published meaning. The table `legacy` keeps the numbers older gateways
chose (-32001 time-out and so on) for clients that expect them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from math import ceil
from typing import ClassVar, Final, Self

from .mcp import ErrorCode
from .messages import ErrorReply, Json, RequestId


class Blame(StrEnum):
    """Whose fault a failure is."""

    CLIENT = "client"
    GATEWAY = "gateway"
    UPSTREAM = "upstream"


class SluicewayError(Exception):
    """Root of everything this package raises on purpose."""


class ComponentError(SluicewayError):
    """A component failed outside an exchange: while opening, running or closing."""

    def __init__(self, component: str, phase: str, message: str) -> None:
        super().__init__(f"{component}: {phase}: {message}")
        self.component = component
        """Id of the component."""
        self.phase = phase
        """`open`, `run` or `close`."""


class GatewayError(SluicewayError):
    """
    A failure of one exchange that the gateway itself decided. Abstract: raise the most specific class below it.

    Args:
        message: A sentence that names the thing, the limit and the remedy. The client sees it.
        data: Further members for `error.data`; must be JSON.
        retry_after_s: Seconds after which a repetition can succeed, if known.
    """

    reason: ClassVar[str] = ""
    """Stable machine-readable word, sent as `error.data.reason`."""
    blame: ClassVar[Blame]
    http_status: ClassVar[int] = 500
    retryable: bool = False
    """Safe to repeat by us. Never sent to the client: what is safe for us may not be safe for it."""
    event: str = ""
    """What security events call it, where that is more than `reason` says; never sent to the client."""
    request_id: RequestId | None = None
    """Id of the message this is about, where it could be read and no exchange knows it; set by the codec."""

    def __init__(
        self, message: str, *, data: Mapping[str, Json] | None = None, retry_after_s: float | None = None
    ) -> None:
        if not type(self).reason:
            raise TypeError(f"{type(self).__name__} is abstract; raise one of its subclasses")
        super().__init__(message)
        self.message = message
        self.data: Mapping[str, Json] = data or {}
        self.retry_after_s = retry_after_s

    def with_data(self, **more: Json) -> Self:
        """The same failure with more in `data`. A twin, for exchanges that failed together share one exception."""
        twin = type(self).__new__(type(self), *self.args)
        twin.__dict__.update(self.__dict__)
        twin.data = {**self.data, **more}
        return twin.with_traceback(self.__traceback__)


class ClientFault(GatewayError):
    """The client's message cannot be served as it is."""

    blame = Blame.CLIENT
    http_status = 400


class ParseError(ClientFault):
    """The bytes are not the JSON that the gate accepts."""

    reason = "parse_error"


class InvalidMessage(ClientFault):
    """The JSON is not a valid JSON-RPC message."""

    reason = "invalid_message"


class InvalidParams(ClientFault):
    """The envelope is fine, its params are not."""

    reason = "invalid_params"


class MessageTooLarge(ClientFault):
    """The message exceeds a size limit."""

    reason = "message_too_large"
    http_status = 413


class Unauthenticated(ClientFault):
    """
    Nobody we know.

    Args:
        challenge: Value for `WWW-Authenticate`, if the source speaks HTTP (RFC 9110 section 11.6.1).
    """

    reason = "unauthenticated"
    http_status = 401

    def __init__(self, message: str, *, challenge: str | None = None, data: Mapping[str, Json] | None = None) -> None:
        super().__init__(message, data=data)
        self.challenge = challenge


class MalformedCredentials(Unauthenticated):
    """The credentials are not in the form their scheme prescribes, or given twice (RFC 6750 section 3.1)."""

    reason = "malformed_credentials"
    http_status = 400


class Forbidden(ClientFault):
    """
    Somebody we know who may not do this.

    Args:
        challenge: Value for `WWW-Authenticate`, if the source speaks HTTP, where another token would do (RFC 6750
            section 3.1). Who refuses and cannot know how tokens are got here leaves it out, and names `scopes`.
        scopes: All scopes that this operation needs, for an auth stage further out to make the challenge of; empty
            where no scope would help.
    """

    reason = "forbidden"
    http_status = 403

    def __init__(
        self,
        message: str,
        *,
        challenge: str | None = None,
        scopes: Iterable[str] = (),
        data: Mapping[str, Json] | None = None,
    ) -> None:
        super().__init__(message, data=data)
        self.challenge = challenge
        self.scopes = tuple(scopes)


class Misdirected(ClientFault):
    """The request was addressed to a host that is not served here (RFC 9110 section 15.5.20)."""

    reason = "misdirected"
    http_status = 421


class PinMismatch(ClientFault):
    """The tool is not what was approved; calling it waits for an operator (see the stage `pin`)."""

    reason = "pin_mismatch"
    blame = Blame.GATEWAY
    http_status = 409


class UnknownMethod(ClientFault):
    """No such method here (JSON-RPC 2.0 section 5.1; HTTP 404 since MCP 2026-07-28)."""

    reason = "unknown_method"
    http_status = 404


class SessionNotFound(ClientFault):
    """The session is unknown, ended, or another principal's (MCP 2025-11-25, transports, session management)."""

    reason = "session_not_found"
    http_status = 404


class HeaderMismatch(ClientFault):
    """An `Mcp-*` header is missing, malformed or differs from the body (MCP 2026-07-28, SEP-2243)."""

    reason = "header_mismatch"


class MissingCapability(ClientFault):
    """The client did not declare a capability that this request needs (MCP 2026-07-28)."""

    reason = "missing_capability"


class UnsupportedVersion(ClientFault):
    """The protocol version is not one we speak; `data` lists `supported` and `requested` (MCP 2026-07-28)."""

    reason = "unsupported_version"


class Refused(GatewayError):
    """The gateway could serve this, but not now. Nothing was sent upstream."""

    blame = Blame.GATEWAY
    http_status = 503
    retryable = True


class RateLimited(Refused):
    """Too many requests for one key; `retry_after_s` is exact."""

    reason = "rate_limited"
    http_status = 429


class CapacityExceeded(Refused):
    """A bound on work in flight or waiting was reached."""

    reason = "capacity_exceeded"


class Draining(Refused):
    """The gateway is going away."""

    reason = "draining"


class CircuitOpen(Refused):
    """The upstream failed too often lately; `retry_after_s` says when it is asked again."""

    reason = "circuit_open"


class SlowConsumer(Refused):
    """The client reads more slowly than its exchange produces, and the bound between them is reached."""

    reason = "slow_consumer"
    retryable = False


class AuditUnavailable(Refused):
    """The call cannot be recorded, and the operator wants no call without a record (see the stage `audit`)."""

    reason = "audit_unavailable"
    retryable = False


class UpstreamFault(GatewayError):
    """The upstream failed, not the call."""

    blame = Blame.UPSTREAM
    http_status = 502
    counts: bool = True
    """Whether it says that the upstream is broken, for circuit breakers; False where it is up and turns us away."""


class ConnectFailed(UpstreamFault):
    """The upstream could not be reached or started; nothing was sent."""

    reason = "connect_failed"
    retryable = True


class UpstreamClosed(UpstreamFault):
    """The upstream went away after the request was sent: it may have run."""

    reason = "upstream_closed"


class OutcomeUnknown(UpstreamFault):
    """The upstream went away during a call that must not be sent twice: it may have run, find out before repeating."""

    reason = "outcome_unknown"


class UpstreamProtocolError(UpstreamFault):
    """The upstream sent something that is not MCP."""

    reason = "upstream_protocol_error"


class UpstreamUnavailable(UpstreamFault):
    """The upstream is known to be down; nothing was sent."""

    reason = "upstream_unavailable"
    http_status = 503
    retryable = True


class DeadlineExceeded(GatewayError):
    """
    The exchange's deadline passed; the upstream was told to stop.

    Args:
        timeout_s: The time it was given, in seconds.
    """

    reason = "deadline_exceeded"
    blame = Blame.UPSTREAM
    http_status = 504

    def __init__(self, message: str, *, timeout_s: float) -> None:
        super().__init__(message, data={"timeout_ms": round(timeout_s * 1000)})


class InternalError(GatewayError):
    """A bug of ours. `data.incident` finds its traceback in the log; nothing else of it is shown."""

    reason = "internal_error"
    blame = Blame.GATEWAY


_PUBLISHED: Final[Mapping[str, int]] = {
    ParseError.reason: ErrorCode.PARSE_ERROR,
    InvalidMessage.reason: ErrorCode.INVALID_REQUEST,
    InvalidParams.reason: ErrorCode.INVALID_PARAMS,
    UnknownMethod.reason: ErrorCode.METHOD_NOT_FOUND,
    HeaderMismatch.reason: ErrorCode.HEADER_MISMATCH,
    MissingCapability.reason: ErrorCode.MISSING_CLIENT_CAPABILITY,
    UnsupportedVersion.reason: ErrorCode.UNSUPPORTED_PROTOCOL_VERSION,
    InternalError.reason: ErrorCode.INTERNAL_ERROR,
}
"""Codes whose meaning JSON-RPC or MCP publishes; the same in every table."""

CODE_TABLES: Final[Mapping[str, Mapping[str, int]]] = {
    "spec": {
        **_PUBLISHED,
        MalformedCredentials.reason: 40000,
        Unauthenticated.reason: 40100,
        Forbidden.reason: 40300,
        SessionNotFound.reason: 40400,
        PinMismatch.reason: 40900,
        MessageTooLarge.reason: 41300,
        Misdirected.reason: 42100,
        RateLimited.reason: 42900,
        ConnectFailed.reason: 50200,
        UpstreamClosed.reason: 50201,
        UpstreamProtocolError.reason: 50202,
        OutcomeUnknown.reason: 50203,
        Draining.reason: 50300,
        CapacityExceeded.reason: 50301,
        CircuitOpen.reason: 50302,
        SlowConsumer.reason: 50303,
        UpstreamUnavailable.reason: 50304,
        AuditUnavailable.reason: 50305,
        DeadlineExceeded.reason: 50400,
    },
    "legacy": {
        **_PUBLISHED,
        MalformedCredentials.reason: -32003,
        Unauthenticated.reason: -32003,
        Forbidden.reason: -32003,
        SessionNotFound.reason: -32001,
        PinMismatch.reason: -32003,
        MessageTooLarge.reason: -32600,
        Misdirected.reason: -32600,
        RateLimited.reason: -32004,
        ConnectFailed.reason: -32002,
        UpstreamClosed.reason: -32000,
        UpstreamProtocolError.reason: -32000,
        OutcomeUnknown.reason: -32000,
        Draining.reason: -32000,
        CapacityExceeded.reason: -32000,
        CircuitOpen.reason: -32000,
        SlowConsumer.reason: -32000,
        AuditUnavailable.reason: -32000,
        UpstreamUnavailable.reason: -32002,
        DeadlineExceeded.reason: -32001,
    },
}
"""`error_codes` in YAML chooses one: reason -> JSON-RPC error code."""


def render_error(error: GatewayError, codes: Mapping[str, int] = CODE_TABLES["spec"]) -> ErrorReply:
    """
    Turn an exception into the error a client sees.

    `data` always carries `origin: gateway` and the reason, so that nobody mistakes it for the upstream's word.
    """
    data: dict[str, Json] = {"origin": "gateway", "reason": error.reason, **error.data}
    if error.retry_after_s is not None:
        # up, for who comes back when told to must not be early; but not for the last bits of a float
        data["retry_after_ms"] = max(1, ceil(round(error.retry_after_s * 1000, 6)))
    return ErrorReply(codes[error.reason], error.message, data, http_status=error.http_status)
