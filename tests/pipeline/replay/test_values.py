"""What was written down comes back as what it was."""

from __future__ import annotations

import inspect

import pytest
from msgspec.structs import replace

from sluiceway.pipeline.model.session import ANONYMOUS, Caller, Client
from sluiceway.pipeline.protocol import errors
from sluiceway.pipeline.protocol.errors import (
    DeadlineExceeded,
    Forbidden,
    GatewayError,
    Unauthenticated,
    UpstreamFault,
    UpstreamUnavailable,
    render_error,
)
from sluiceway.pipeline.protocol.failures import blames_upstream, failure_of
from sluiceway.pipeline.protocol.mcp import Era
from sluiceway.pipeline.protocol.messages import ErrorReply, Notification, Request, Result
from sluiceway.pipeline.replay.entries import ErrorData, FailureData, ReplyData
from sluiceway.pipeline.replay.masking import Masking
from sluiceway.pipeline.replay.values import (
    RecordedBug,
    Render,
    caller_of,
    client_of,
    exception_of,
    message_of,
    refusal_of,
    reply_of,
)

RENDER = Render(Masking(b"k" * 32))
CLASSES = [
    each for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, GatewayError) and each.reason
]


def make(cls: type[GatewayError]) -> GatewayError:
    """One of its kind."""
    return cls("why", timeout_s=2.5) if cls is DeadlineExceeded else cls("why")


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_error_comes_back_as_stages_and_clients_know_it(cls):
    """Its class, and all that retries, breakers and replies are made of."""
    error = make(cls)
    error.retry_after_s = 1.5
    back = exception_of(RENDER.failure(error))

    assert type(back) is cls
    assert render_error(back) == render_error(error)
    assert (back.retryable, back.retry_after_s) == (error.retryable, 1.5)
    assert (failure_of(back), blames_upstream(back)) == (failure_of(error), blames_upstream(error))


def test_what_an_error_says_of_itself_comes_back():
    """Not only what its class says."""
    error = UpstreamUnavailable("full", data={"a": 1})
    error.retryable = False
    error.counts = False
    back = exception_of(RENDER.failure(error))

    assert isinstance(back, UpstreamFault)
    assert (back.retryable, back.counts, back.data) == (False, False, {"a": 1})


def test_errors_with_challenges_can_be_raised_again():
    """The boundary asks them for it."""
    for cls in (Unauthenticated, Forbidden):
        back = exception_of(RENDER.failure(cls("who?", challenge="Bearer")))
        assert isinstance(back, Unauthenticated | Forbidden)
        assert back.challenge is None


def test_a_refusal_is_raised_as_its_client_was_told_of_it():
    """With what it says besides, how long to wait, and the challenge."""
    said = {"origin": "gateway", "reason": "forbidden", "retry_after_ms": 1500, "scope": "x"}
    back = refusal_of(ErrorData(40300, "no", said, 403), "Bearer")

    assert isinstance(back, Forbidden)
    assert (back.message, back.data, back.retry_after_s, back.challenge) == ("no", {"scope": "x"}, 1.5, "Bearer")


def test_a_class_that_is_not_ours_comes_back_as_the_one_with_its_reason():
    """Transports have subclasses; stages go by what they inherit."""

    class Lost(UpstreamUnavailable):
        """Of some transport."""

    assert type(exception_of(RENDER.failure(Lost("x")))) is UpstreamUnavailable


def test_a_reason_that_nobody_knows_is_an_internal_error():
    """It came from a plugin."""
    assert type(exception_of(FailureData("Odd", "x", "odd"))) is errors.InternalError


def test_a_bug_comes_back_as_one():
    """The gateway's boundary must take it for a bug, too."""
    back = exception_of(RENDER.failure(KeyError("x")))

    assert isinstance(back, RecordedBug)
    assert (back.kind, str(back)) == ("KeyError", "KeyError: 'x'")


@pytest.mark.parametrize(
    "reply", [Result({"a": [1]}), Result(), ErrorReply(-32603, "broke", {"a": 1}, http_status=500)]
)
def test_a_reply_comes_back(reply):
    """With the HTTP status it travelled with."""
    back = reply_of(RENDER.reply(reply, "tools/call"))
    if isinstance(reply, ErrorReply):
        assert (back, back.http_status) == (reply, 500)
    else:
        assert reply_of(ReplyData(result=dict(reply.value))) == reply


def test_a_result_that_could_not_be_read_is_not_made_up():
    """Whoever plays the tape has to know."""
    with pytest.raises(ValueError, match="does not have this result: twice"):
        reply_of(ReplyData(unreadable="twice"))
    with pytest.raises(ValueError, match="it is empty"):
        reply_of(ReplyData())


def test_messages_come_back():
    """With or without an id, and with its type."""
    for message in (Request(1, "ping"), Request("1", "ping"), Notification("notifications/initialized")):
        assert message_of(RENDER.message(message)) == message


def test_clients_and_callers_come_back():
    """Without session and certificate; nobody stays nobody."""
    client = Client(era=Era.LEGACY, version="2025-06-18", capabilities={"roots": {}}, info={"name": "x"},
                    transport="stdio", address="::1", headers={"host": "a"}, certificate="PEM")  # fmt: skip
    caller = Caller("ana", "acme", frozenset({"a"}), "bearer", frozenset({"r"}), frozenset({"t"}), "c1")
    data = RENDER.client(client, 4)

    assert (data.session, len(data.certificate)) == (4, 64)
    assert client_of(data) == replace(client, certificate=None)
    assert caller_of(RENDER.caller(caller)) == caller
    assert caller_of(RENDER.caller(ANONYMOUS)) is ANONYMOUS
