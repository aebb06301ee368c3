"""Security events: one for each refusal that matters, none for ordinary errors, and no flood."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from msgspec.structs import replace
from structlog.testing import capture_logs

from sluiceway.pipeline.model.document import Limits
from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.security import Refusal
from sluiceway.pipeline.model.session import Caller, Session
from sluiceway.pipeline.protocol.errors import (
    AuditUnavailable,
    CapacityExceeded,
    CircuitOpen,
    ConnectFailed,
    DeadlineExceeded,
    Draining,
    Forbidden,
    GatewayError,
    HeaderMismatch,
    InternalError,
    InvalidMessage,
    InvalidParams,
    MalformedCredentials,
    MessageTooLarge,
    Misdirected,
    MissingCapability,
    OutcomeUnknown,
    ParseError,
    PinMismatch,
    RateLimited,
    SessionNotFound,
    SlowConsumer,
    Unauthenticated,
    UnknownMethod,
    UnsupportedVersion,
    UpstreamClosed,
    UpstreamProtocolError,
    UpstreamUnavailable,
)
from sluiceway.pipeline.protocol.gate import Limits as GateLimits
from sluiceway.pipeline.protocol.gate import check
from sluiceway.pipeline.protocol.messages import Notification, Reply, Request, Result
from sluiceway.pipeline.runtime.chain import compile_chain
from sluiceway.pipeline.runtime.deadlines import Deadlines
from sluiceway.pipeline.runtime.pipeline import Pipeline
from sluiceway.pipeline.telemetry import security
from sluiceway.pipeline.telemetry.security import EVENTS, MAX_OF_ONE, MAX_OF_TYPE, SecurityEvents
from sluiceway.pipeline.testing import MODERN_CLIENT, legacy_client
from sluiceway.transports.http_client.connect import AddressRefused
from sluiceway.transports.http_client.faults import Faults


def _flagged(error: GatewayError, event: str) -> GatewayError:
    error.event = event
    return error


def _all(root: type[GatewayError] = GatewayError) -> Iterator[type[GatewayError]]:
    for cls in root.__subclasses__():
        if cls.reason:
            yield cls
        yield from _all(cls)


REFUSALS: list[tuple[GatewayError, str, str]] = [
    (Unauthenticated("x"), "authentication_failed", "medium"),
    (MalformedCredentials("x"), "authentication_failed", "medium"),
    (Forbidden("x"), "access_denied", "medium"),
    (RateLimited("x"), "rate_limited", "low"),
    (Misdirected("x"), "foreign_host", "high"),
    (SessionNotFound("x"), "unknown_session", "low"),
    (PinMismatch("x"), "pin_mismatch", "high"),
    (HeaderMismatch("x"), "header_mismatch", "medium"),
    (ParseError("x"), "invalid_message", "low"),
    (InvalidMessage("x"), "invalid_message", "low"),
    (MessageTooLarge("x"), "message_too_large", "low"),
    (AuditUnavailable("x"), "audit_unavailable", "high"),
    (_flagged(InvalidMessage("x"), "ambiguous_message"), "ambiguous_message", "high"),
    (_flagged(ConnectFailed("x"), "address_refused"), "address_refused", "high"),
    (_flagged(UpstreamUnavailable("x"), "quarantined"), "quarantined", "medium"),
    (_flagged(Forbidden("x"), "foreign_origin"), "foreign_origin", "high"),
]
ORDINARY: list[GatewayError] = [
    InvalidParams("x"), UnknownMethod("x"), MissingCapability("x"), UnsupportedVersion("x"), CapacityExceeded("x"),
    Draining("x"), CircuitOpen("x"), SlowConsumer("x"), ConnectFailed("x"), UpstreamClosed("x"), OutcomeUnknown("x"),
    UpstreamProtocolError("x"), UpstreamUnavailable("x"), DeadlineExceeded("x", timeout_s=1), InternalError("x"),
]  # fmt: skip


def test_every_error_is_one_or_the_other():
    """Whoever adds an error says here whether it is a security event."""
    assert {type(error) for error, *_ in REFUSALS} | {type(error) for error in ORDINARY} == {
        cls for cls in _all() if cls.__module__.startswith("sluiceway.pipeline.protocol")
    }
    assert {error.event or error.reason for error, *_ in REFUSALS} | {"foreign_session", "smuggling"} == set(EVENTS)


async def _end(
    error: GatewayError, *, session: Session | None = None, caller: Caller | None = None
) -> list[dict[str, Any]]:
    """What is logged of an exchange that ends with an error."""
    with capture_logs() as lines:

        async def sink(exchange: Exchange) -> Reply:
            if caller is not None:
                exchange.authenticate(caller)
            raise error

        async def emit(_notification: Notification) -> None:
            """Nobody listens."""

        alarm = SecurityEvents(log=structlog.get_logger())
        pipeline = Pipeline("main", compile_chain([], sink), Limits(), Deadlines(), alarm=alarm)
        client = MODERN_CLIENT if session is None else replace(legacy_client(), session=session)
        request = Request("1", "tools/call", {"name": "pay", "arguments": {"password": "canary"}})
        await pipeline.handle(request, client=client, emit=emit, source="public").run()
    return [dict(line) for line in lines if line["event"] == "security event"]


@pytest.mark.parametrize(("error", "type_", "severity"), REFUSALS, ids=lambda value: type(value).__name__)
async def test_a_refusal_is_one_event(error, type_, severity):
    """With its severity, who and what; without params."""
    (line,) = await _end(error, caller=Caller("ana", tenant="acme"))

    assert (line["type"], line["severity"], line["reason"]) == (type_, severity, error.event or error.reason)
    assert (line["principal"], line["tenant"], line["operation"], line["resource"], line["source"]) == (
        "ana", "acme", "tools/call", "pay", "public",
    )  # fmt: skip
    assert "canary" not in str(line)


@pytest.mark.parametrize("error", ORDINARY, ids=lambda error: type(error).__name__)
async def test_an_ordinary_error_is_no_event(error):
    """Nobody is woken up for an upstream that is down."""
    assert await _end(error) == []


async def test_a_session_of_somebody_else_is_another_thing_than_one_that_ended():
    """The client is told the same; who watches is not. An upstream that ended a session of ours is no event."""
    session = Session(id="s", source="public", version="2025-11-25", caller=Caller("ana"))
    foreign = await _end(InternalError("not reached"), session=session, caller=Caller("eve"))
    own = await _end(SessionNotFound("the upstream ended it"), session=session, caller=Caller("ana"))

    assert [(line["type"], line["severity"]) for line in foreign] == [("foreign_session", "high")]
    assert own == []


async def test_a_reply_is_no_event():
    """What an upstream answers is not the gateway's refusal."""

    async def sink(_exchange: Exchange) -> Reply:
        return Result()

    alarmed: list[Refusal] = []

    async def emit(_notification: Notification) -> None:
        """Nobody listens."""

    pipeline = Pipeline("main", compile_chain([], sink), Limits(), Deadlines(), alarm=alarmed.append)
    await pipeline.handle(Request(1, "tools/list"), client=MODERN_CLIENT, emit=emit).run()

    assert alarmed == []


@pytest.mark.parametrize("text", [b'{"jsonrpc":"2.0","method":"a","method":"b"}', b'{"a":{"b":1,"b":2}}'])
def test_keys_that_are_there_twice_are_an_event_of_their_own(text):
    """Two parsers would read two messages."""
    with pytest.raises(InvalidMessage) as caught:
        check(text, GateLimits())

    assert caught.value.event == "ambiguous_message"


def test_an_address_that_must_not_be_connected_to_is_an_event_of_its_own():
    """Not so one that cannot be reached."""
    with pytest.raises(ConnectFailed) as caught, Faults("up", 1024):
        raise AddressRefused("its name leads to a private address")

    assert caught.value.event == "address_refused"


class Clock:
    at = 0.0

    def __call__(self) -> float:
        return self.at


def _flood(events: SecurityEvents, count: int, **who: Any) -> None:
    for _ in range(count):
        events(Refusal(reason="unauthenticated", **who))


def test_a_flood_from_one_place_is_said_a_few_times_and_counted():
    """The next minute says how many were left out."""
    clock = Clock()
    with capture_logs() as lines:
        events = SecurityEvents(clock, structlog.get_logger())
        _flood(events, 1000, address="203.0.113.7")
        assert len(lines) == MAX_OF_ONE

        _flood(events, 1, address="203.0.113.8")
        clock.at = 61
        _flood(events, 1, address="203.0.113.7")

    assert [line.get("suppressed") for line in lines[MAX_OF_ONE:]] == [1000 - MAX_OF_ONE, None]
    assert {(figure.name, figure.value) for figure in events.figures()} == {
        ("security_events_total", 1002.0), ("security_events_suppressed_total", 1000.0 - MAX_OF_ONE),
    }  # fmt: skip


def test_a_flood_from_everywhere_is_bounded_too(monkeypatch):
    """In lines and in memory; and one type does not silence another."""
    monkeypatch.setattr(security, "MAX_KEYS", 100)
    with capture_logs() as lines:
        events = SecurityEvents(Clock(), structlog.get_logger())
        for n in range(1000):
            _flood(events, 1, address=f"10.0.{n // 250}.{n % 250}")
        said = len(lines)
        events(Refusal(reason="pin_mismatch", principal="ana"))

    assert said == MAX_OF_TYPE
    assert lines[-1]["type"] == "pin_mismatch"
    assert len(events._windows) <= 100


def test_a_principal_is_one_place_wherever_it_comes_from():
    """Who is known counts as who, not as where."""
    with capture_logs() as lines:
        events = SecurityEvents(Clock(), structlog.get_logger())
        for n in range(20):
            events(Refusal(reason="forbidden", principal="eve", address=f"10.0.0.{n}"))

    assert len(lines) == MAX_OF_ONE


def test_secrets_in_a_uri_are_left_out():
    """As far as the names of its arguments tell."""
    with capture_logs() as lines:
        SecurityEvents(Clock(), structlog.get_logger())(
            Refusal(reason="forbidden", resource="https://h/x?token=canary")
        )

    assert lines[0]["resource"] == "https://h/x?token=***"
