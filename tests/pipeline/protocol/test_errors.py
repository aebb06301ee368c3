"""The error tree and its code tables."""

from __future__ import annotations

import pytest

from sluiceway.pipeline.protocol.errors import (
    CODE_TABLES,
    Blame,
    CapacityExceeded,
    CircuitOpen,
    ClientFault,
    ComponentError,
    ConnectFailed,
    DeadlineExceeded,
    GatewayError,
    InternalError,
    OutcomeUnknown,
    RateLimited,
    Refused,
    SlowConsumer,
    Unauthenticated,
    UpstreamClosed,
    UpstreamFault,
    UpstreamUnavailable,
    render_error,
)


def _all(root: type[GatewayError]) -> set[type[GatewayError]]:
    return {root}.union(*(_all(cls) for cls in root.__subclasses__()))


RAISABLE = sorted(
    (cls for cls in _all(GatewayError) if cls.reason and cls.__module__ == GatewayError.__module__),
    key=lambda cls: cls.__name__,
)
"""Those of the protocol; a subclass that a stage makes keeps its reason, and may not have been imported."""


@pytest.mark.parametrize("table", CODE_TABLES)
def test_every_table_numbers_every_reason_and_nothing_else(table: str) -> None:
    """No KeyError when an error is rendered, no row nobody raises."""
    assert {cls.reason for cls in RAISABLE} == set(CODE_TABLES[table])
    assert len({cls.reason for cls in RAISABLE}) == len(RAISABLE)


def test_our_own_errors_stay_out_of_the_reserved_range_by_default() -> None:
    """MCP reserves -32768 to -32000; the rest is HTTP status x 100 + n."""
    for cls in RAISABLE:
        code = CODE_TABLES["spec"][cls.reason]
        if not -32768 <= code <= -32000:
            assert cls.http_status == code // 100, cls


@pytest.mark.parametrize("cls", [GatewayError, ClientFault, Refused, UpstreamFault])
def test_an_abstract_error_cannot_be_raised(cls: type[GatewayError]) -> None:
    """The most specific class is the one to raise."""
    with pytest.raises(TypeError, match="abstract"):
        cls("x")


@pytest.mark.parametrize(
    ("cls", "retryable", "blame"),
    [
        (RateLimited, True, Blame.GATEWAY),
        (CapacityExceeded, True, Blame.GATEWAY),
        (CircuitOpen, True, Blame.GATEWAY),
        (SlowConsumer, False, Blame.GATEWAY),
        (ConnectFailed, True, Blame.UPSTREAM),
        (UpstreamUnavailable, True, Blame.UPSTREAM),
        (UpstreamClosed, False, Blame.UPSTREAM),
        (OutcomeUnknown, False, Blame.UPSTREAM),
        (InternalError, False, Blame.GATEWAY),
        (Unauthenticated, False, Blame.CLIENT),
    ],
)
def test_only_what_never_ran_may_be_repeated(cls: type[GatewayError], retryable: bool, blame: Blame) -> None:
    """Retry and breaker decide by these two."""
    error = cls("x")

    assert (error.retryable, error.blame) == (retryable, blame)


def test_a_rendered_error_says_whose_it_is_and_keeps_its_data() -> None:
    """`origin` and `reason` are always there, `retryable` never."""
    reply = render_error(RateLimited("slow down", data={"limit": 5}, retry_after_s=1.2))

    assert (reply.code, reply.message, reply.http_status) == (42900, "slow down", 429)
    assert reply.data == {"origin": "gateway", "reason": "rate_limited", "limit": 5, "retry_after_ms": 1200}


def test_a_tiny_wait_is_not_rendered_as_none() -> None:
    """Zero would invite an immediate repetition."""
    assert render_error(RateLimited("x", retry_after_s=0.0001)).data["retry_after_ms"] == 1


def test_the_legacy_table_changes_the_code_only() -> None:
    """Older clients know -32001 as a time-out."""
    error = DeadlineExceeded("late", timeout_s=1.5)
    spec, legacy = render_error(error), render_error(error, CODE_TABLES["legacy"])

    assert (spec.code, legacy.code) == (50400, -32001)
    assert spec.data == legacy.data == {"origin": "gateway", "reason": "deadline_exceeded", "timeout_ms": 1500}


def test_a_challenge_is_for_the_header_and_not_for_the_body() -> None:
    """The source turns it into `WWW-Authenticate`."""
    error = Unauthenticated("who are you", challenge='Bearer realm="x"')

    assert error.challenge == 'Bearer realm="x"'
    assert "realm" not in str(render_error(error).data)


def test_a_component_error_names_component_and_phase() -> None:
    """As the operator reads it."""
    error = ComponentError("sinks.a", "open", "no such file")

    assert str(error) == "sinks.a: open: no such file"
    assert (error.component, error.phase) == ("sinks.a", "open")


def test_more_data_makes_a_twin() -> None:
    """Exchanges that failed together share one exception: what is added for one must not show at the others."""
    error = DeadlineExceeded("late", timeout_s=1.5)
    error.retryable = True

    twin = error.with_data(attempts=3)

    assert (twin.data, error.data) == ({"timeout_ms": 1500, "attempts": 3}, {"timeout_ms": 1500})
    assert (type(twin), str(twin), twin.message, twin.retryable) == (DeadlineExceeded, "late", "late", True)
