"""What we build validates against the published JSON Schemas of all five revisions."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sluiceway.pipeline.protocol.codec import encode_message
from sluiceway.pipeline.protocol.errors import (
    CODE_TABLES,
    DeadlineExceeded,
    GatewayError,
    HeaderMismatch,
    InvalidMessage,
    InvalidParams,
    MissingCapability,
    ParseError,
    UnknownMethod,
    UnsupportedVersion,
    render_error,
)
from sluiceway.pipeline.protocol.mcp import LATEST, LEGACY_VERSIONS, MODERN_VERSIONS
from sluiceway.pipeline.protocol.messages import Message, Notification, Request, Response, Result

Validate = Callable[..., None]
REVISIONS = (*LEGACY_VERSIONS, *MODERN_VERSIONS)


def _raisable(root: type[GatewayError]) -> list[type[GatewayError]]:
    return [cls for sub in root.__subclasses__() for cls in (sub, *_raisable(sub)) if cls.reason]


ERRORS = sorted(set(_raisable(GatewayError)), key=lambda cls: cls.__name__)


def _raised(cls: type[GatewayError]) -> GatewayError:
    if cls is DeadlineExceeded:
        return DeadlineExceeded("too late", timeout_s=30)
    return cls("what, why and what to do")


@pytest.mark.parametrize("revision", REVISIONS)
@pytest.mark.parametrize("table", CODE_TABLES)
@pytest.mark.parametrize("error", ERRORS, ids=lambda cls: cls.__name__)
def test_every_error_is_a_valid_error_response(
    validate_message: Validate, error: type[GatewayError], table: str, revision: str
) -> None:
    """Every class, in both code tables."""
    text = encode_message(Response("id", render_error(_raised(error), CODE_TABLES[table])))

    validate_message(text, revision)
    validate_message(text, revision, "JSONRPCErrorResponse" if revision >= "2025-11" else "JSONRPCError")


@pytest.mark.parametrize("revision", REVISIONS)
@pytest.mark.parametrize(
    "message",
    [
        Request(1, "ping"),
        Request("a", "tools/call", {"name": "x", "arguments": {"n": 1}}),
        Notification("notifications/initialized"),
        Notification("notifications/progress", {"progressToken": 1, "progress": 0.5}),
        Response("a", Result({"resultType": "complete", "content": []})),
    ],
    ids=repr,
)
def test_every_kind_of_message_is_valid(validate_message: Validate, message: Message, revision: str) -> None:
    """Requests, notifications and results, with and without a body."""
    validate_message(encode_message(message), revision)


@pytest.mark.parametrize("revision", LEGACY_VERSIONS)
def test_an_empty_result_is_valid_for_a_legacy_client(validate_message: Validate, revision: str) -> None:
    """A modern one needs a `resultType`, which is the sink's to say."""
    validate_message(encode_message(Response(1, Result())), revision)


@pytest.mark.parametrize(
    ("error", "definition"),
    [
        (ParseError("x"), "ParseError"),
        (InvalidMessage("x"), "InvalidRequestError"),
        (UnknownMethod("x"), "MethodNotFoundError"),
        (InvalidParams("x"), "InvalidParamsError"),
    ],
)
def test_a_reserved_code_keeps_its_published_meaning(
    validate_message: Validate, error: GatewayError, definition: str
) -> None:
    """The JSON-RPC codes, against the definitions of the errors themselves."""
    text = encode_message(Response(1, render_error(error)))
    validate_message(text.partition(b'"error":')[2][:-1], LATEST, definition)


@pytest.mark.parametrize(
    ("error", "definition"),
    [
        (HeaderMismatch("x"), "HeaderMismatchError"),
        (
            MissingCapability("x", data={"requiredCapabilities": {"sampling": {}}}),
            "MissingRequiredClientCapabilityError",
        ),
        (
            UnsupportedVersion("x", data={"supported": list(MODERN_VERSIONS), "requested": "1999-01-01"}),
            "UnsupportedProtocolVersionError",
        ),
    ],
)
def test_mcps_own_errors_have_their_published_shape(
    validate_message: Validate, error: GatewayError, definition: str
) -> None:
    """Codes -32020 to -32022 with the data that 2026-07-28 asks for, inside a whole response."""
    validate_message(encode_message(Response(1, render_error(error))), LATEST, definition)


def test_the_checker_refuses_what_is_no_message(validate_message: Validate) -> None:
    """A checker that accepts everything would prove nothing."""
    for revision in REVISIONS:
        with pytest.raises(ValueError, match="valid"):
            validate_message(b'{"jsonrpc":"2.0","id":1.5,"method":7}', revision)
