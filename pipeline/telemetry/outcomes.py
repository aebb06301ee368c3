"""How an exchange, or a part of it, ended: the words that logs, metrics and traces share."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, final

import trio
from attrs import frozen

from ..model.exchange import Exchange
from ..protocol.errors import Blame, DeadlineExceeded, GatewayError, InternalError, Refused, UpstreamProtocolError
from ..protocol.messages import ErrorReply, Reply, Result

TOOL_ERROR = "tool_error"
"""`error` of a tool result with `isError`: the call went through, and the tool says that it failed."""


class Outcome(StrEnum):
    """Every exchange ends in exactly one of these ways."""

    SUCCESS = "success"
    ERROR = "error"
    """The upstream failed, or said no; or the gateway has a bug."""
    REFUSED = "refused"
    """The gateway decided against it, for a limit, a rule, or what the request was."""
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    """The client left, the gateway stopped, or another attempt was faster."""


@final
@frozen
class End:
    """An outcome with its cause."""

    outcome: Outcome
    error: str = ""
    """A reason of the gateway's (`rate_limited`), an upstream's code as text, `tool_error`, or an exception's class."""
    text: str = ""
    """What was said of it."""


SUCCESS: Final = End(Outcome.SUCCESS)
"""What nearly everything ends with."""
_TOOL_ERROR = End(Outcome.ERROR, TOOL_ERROR)


def end_of(exchange: Exchange, reply: Reply | None, error: BaseException | None) -> End:
    """
    How something that ran for an exchange ended; for use in a `finally`.

    Args:
        exchange: To tell a deadline that passed from a client that left.
        reply: What was returned; None if nothing was.
        error: What was raised (`sys.exception()`) if nothing was returned.
    """
    if type(reply) is Result:
        return _TOOL_ERROR if exchange.request.method == "tools/call" and is_tool_error(reply) else SUCCESS
    if isinstance(reply, ErrorReply):
        return End(Outcome.ERROR, str(reply.code), reply.message)
    if isinstance(error, GatewayError):
        return End(_outcome(error), error.reason, error.message)
    if not is_cancelled(error):
        return End(Outcome.ERROR, type(error).__name__, str(error))
    if trio.current_time() >= exchange.link.deadline:
        return End(Outcome.TIMEOUT, DeadlineExceeded.reason, "the deadline passed")
    return End(Outcome.CANCELLED)


def is_tool_error(result: Result) -> bool:
    """Whether the result of a `tools/call` says `isError`; a body that cannot contain it is not decoded."""
    if b'"isError"' not in result.raw:
        return False
    try:
        return result.value.get("isError") is True
    except UpstreamProtocolError:  # whoever has to read it will say so
        return False


def is_cancelled(error: BaseException | None) -> bool:
    """Whether an exception is a cancellation: also where a stage's nursery made a group of it."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(trio.Cancelled)[1] is None
    return isinstance(error, trio.Cancelled)


def _outcome(error: GatewayError) -> Outcome:
    if isinstance(error, DeadlineExceeded):
        return Outcome.TIMEOUT
    refused = isinstance(error, Refused) or error.blame is Blame.CLIENT
    return Outcome.REFUSED if refused and not isinstance(error, InternalError) else Outcome.ERROR
