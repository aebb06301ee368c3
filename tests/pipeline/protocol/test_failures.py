"""What every outcome counts as: the table of errors, and what repetition, fallback and breaker make of them."""

from __future__ import annotations

import pytest

from sluiceway.pipeline.protocol.errors import (
    CapacityExceeded,
    CircuitOpen,
    ConnectFailed,
    DeadlineExceeded,
    Draining,
    Forbidden,
    GatewayError,
    InvalidParams,
    OutcomeUnknown,
    RateLimited,
    SlowConsumer,
    UnknownMethod,
    UpstreamClosed,
    UpstreamProtocolError,
    UpstreamUnavailable,
)
from sluiceway.pipeline.protocol.failures import Failure, blames_upstream, failure_of, name_of, retry_after_of
from sluiceway.pipeline.protocol.messages import ErrorReply, Reply, Result


def _flagged(error: GatewayError, **flags: bool) -> GatewayError:
    for name, value in flags.items():
        setattr(error, name, value)
    return error


TABLE: list[tuple[Reply | GatewayError, Failure | None, bool]] = [
    (ConnectFailed("x"), Failure.UNREACHABLE, True),
    (UpstreamUnavailable("x"), Failure.UNREACHABLE, True),
    (_flagged(UpstreamClosed("x"), retryable=True), Failure.UNREACHABLE, True),
    (CircuitOpen("x"), Failure.UNREACHABLE, False),
    (RateLimited("x"), Failure.REFUSED, False),
    (CapacityExceeded("x"), Failure.REFUSED, False),
    (Draining("x"), Failure.REFUSED, False),
    (SlowConsumer("x"), None, False),
    (UpstreamClosed("x"), Failure.LOST, True),
    (OutcomeUnknown("x"), Failure.LOST, True),
    (DeadlineExceeded("x", timeout_s=1), Failure.TIMEOUT, True),
    (UpstreamProtocolError("x"), Failure.GARBLED, True),
    (_flagged(UpstreamUnavailable("HTTP 401"), retryable=False), None, False),
    (_flagged(UpstreamUnavailable("HTTP 429"), counts=False), Failure.UNREACHABLE, False),
    (Forbidden("x"), None, False),
    (UnknownMethod("x"), None, False),
    (InvalidParams("x"), None, False),
    (Result({"isError": True}), None, False),
    (ErrorReply(-32603, "broke"), Failure.ERROR, True),
    (ErrorReply(1, "broke", http_status=500), Failure.ERROR, True),
    (ErrorReply(1, "busy", http_status=503), Failure.LOST, True),
    (ErrorReply(50400, "late", http_status=504), Failure.LOST, True),
    (ErrorReply(42900, "slow down", http_status=429), None, False),
    (ErrorReply(40100, "who?", http_status=401), None, False),
    (ErrorReply(-32601, "no such method", http_status=500), None, False),
    (ErrorReply(-32602, "bad"), None, False),
    (ErrorReply(-32020, "header"), None, False),
    (ErrorReply(-32022, "version"), None, False),
    (ErrorReply(-32002, "not found"), None, False),
]


@pytest.mark.parametrize(("outcome", "failure", "counts"), TABLE, ids=lambda value: repr(value)[:40])
def test_every_outcome_has_its_kind(outcome: Reply | GatewayError, failure: Failure | None, counts: bool) -> None:
    """The kind decides about repetition, the blame about the breaker."""
    assert (failure_of(outcome), blames_upstream(outcome)) == (failure, counts)


@pytest.mark.parametrize(
    ("outcome", "seconds"),
    [
        (RateLimited("x", retry_after_s=1.5), 1.5),
        (ConnectFailed("x"), None),
        (ErrorReply(1, "x", {"retry_after_ms": 250}), 0.25),
        (ErrorReply(1, "x", {"retry_after_ms": True}), None),
        (ErrorReply(1, "x", {"retry_after_ms": -1}), None),
        (ErrorReply(1, "x", {"retry_after_ms": 1e300}), None),
        (ErrorReply(1, "x", "retry_after_ms"), None),
        (Result(), None),
    ],
)
def test_a_wish_to_be_asked_later_is_heard(outcome: Reply | GatewayError, seconds: float | None) -> None:
    """From our own errors, and from another gateway's; rubbish is none."""
    assert retry_after_of(outcome) == seconds


def test_names_hold_no_text_of_the_upstreams() -> None:
    """Decisions and logs get a reason or a code."""
    outcomes = [ConnectFailed("secret"), ErrorReply(-32603, "secret"), Result({"secret": 1})]

    assert [name_of(outcome) for outcome in outcomes] == ["connect_failed", "error -32603", "result"]
