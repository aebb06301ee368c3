"""The JSON-RPC envelope as MCP has it."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from sluiceway.pipeline.protocol.codec import decode_message
from sluiceway.pipeline.protocol.errors import InvalidMessage
from sluiceway.pipeline.protocol.messages import ErrorReply, Notification, Request, Response, Result

BOTH = "a message needs a method, or else either a result or an error"
NO_ID = "id must be a string or an integer within +-(2**53 - 1)"
NO_ERROR = "error must be an object with an integer code and a string message"


def decode(**members: Any) -> object:
    """Decode a message with these members and the version."""
    return decode_message(json.dumps({"jsonrpc": "2.0", **members}).encode())


@pytest.mark.parametrize("request_id", [0, 1, -1, 2**53 - 1, -(2**53 - 1), "", "1", "a\u00e9"])
def test_an_id_keeps_its_exact_type(request_id: str | int) -> None:
    """1 and "1" are different ids."""
    message = decode(id=request_id, method="ping")

    assert isinstance(message, Request)
    assert (type(request_id), request_id) == (type(message.id), message.id)


@pytest.mark.parametrize("request_id", [None, True, 1.0, 1.5, {}, [], 2**53, -(2**53)])
def test_what_is_no_id_is_refused(request_id: Any) -> None:
    """Null, bool, float, object, and integers that not every parser reads exactly (case 20)."""
    with pytest.raises(InvalidMessage, match="id must be") as caught:
        decode(id=request_id, method="ping")

    assert caught.value.request_id is None


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"jsonrpc": "1.0", "method": "ping"}, "jsonrpc"),
        ({"jsonrpc": 2.0, "method": "ping"}, "jsonrpc"),
        ({"method": None}, "method must be a string"),
        ({"method": ["ping"]}, "method must be a string"),
        ({"method": "ping", "result": {}}, "not both"),
        ({"method": "ping", "error": {"code": 1, "message": ""}}, "not both"),
        ({"method": "ping", "params": None}, "params must be an object"),
        ({"method": "ping", "params": []}, "params must be an object"),
        ({"method": "ping", "params": "x"}, "params must be an object"),
        ({}, "needs a method"),
        ({"Method": "ping"}, "'Method'; write it 'method'"),
        ({"method": "ping", "ID": 8}, "'id' and 'ID'"),
        ({"method": "ping", "\uff50arams": {}}, "write it 'params'"),
        ({"method": "tools/call", "params": {"Name": "x"}}, "params has the key 'Name'"),
        ({"method": "tools/call", "params": {"name": "x", "_META": {}}}, "write it '_meta'"),
        ({"method": "x", "params": {"_meta": {"ProgressToken": 1}}}, "params._meta has the key 'ProgressToken'"),
        (
            {"method": "x", "params": {"_meta": {"io.modelcontextprotocol/ProtocolVersion": "2026-07-28"}}},
            "io.modelcontextprotocol/protocolVersion",
        ),
    ],
)
def test_a_malformed_envelope_is_refused_with_the_id_it_asks_with(members: dict[str, Any], reason: str) -> None:
    """Each fault is -32600, says what is wrong, and can be answered to the one who asked."""
    with pytest.raises(InvalidMessage, match=re.escape(reason)) as caught:
        decode(id=7, **members)

    assert caught.value.request_id == 7


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"id": 7, "result": {}, "error": {"code": 1, "message": ""}}, BOTH),
        ({"id": 7, "result": None}, "result must be an object"),
        ({"id": 7, "result": []}, "result must be an object"),
        ({"id": None, "result": {}}, NO_ID),
        ({"result": {}}, NO_ID),
        ({"id": 7, "error": None}, NO_ERROR),
        ({"id": 7, "error": {"code": "1", "message": ""}}, NO_ERROR),
        ({"id": 7, "error": {"code": 1.0, "message": ""}}, NO_ERROR),
        ({"id": 7, "error": {"code": True, "message": ""}}, NO_ERROR),
        ({"id": 7, "error": {"code": 1}}, NO_ERROR),
        ({"id": 1.5, "error": {"code": 1, "message": ""}}, NO_ID),
    ],
)
def test_a_malformed_answer_is_refused_and_not_answered(members: dict[str, Any], reason: str) -> None:
    """Its id names a request of ours; an error with that id would look like an answer to the client."""
    with pytest.raises(InvalidMessage) as caught:
        decode(**members)

    assert reason == str(caught.value)
    assert caught.value.request_id is None


@pytest.mark.parametrize("value", [1, "x", None, True, [], [{"jsonrpc": "2.0", "method": "ping"}]])
def test_a_message_is_one_object(value: Any) -> None:
    """A batch is not a message, and a scalar is none either."""
    with pytest.raises(InvalidMessage, match="one JSON object") as caught:
        decode_message(json.dumps(value).encode())

    assert caught.value.request_id is None


def test_keys_of_a_tools_arguments_are_the_tools_own() -> None:
    """Only the envelope, params and _meta have names that we know; unknown keys pass everywhere."""
    params = {"name": "x", "Custom": 1, "arguments": {"Name": 1, "METHOD": 2}, "_meta": {"x/y": 1, "progressToken": 2}}
    message = decode(id=1, method="tools/call", params=params, extra=1)

    assert message == Request(1, "tools/call", params)


def test_a_meta_that_is_no_object_is_left_to_the_endpoint() -> None:
    """The gateway reads nothing in it, so it has nothing to refuse."""
    assert decode(id=1, method="x", params={"_meta": 5}) == Request(1, "x", {"_meta": 5})


def test_a_message_without_an_id_is_a_notification() -> None:
    """With or without params."""
    assert decode(method="notifications/x") == Notification("notifications/x")
    assert decode(method="notifications/x", params={"a": 1}) == Notification("notifications/x", {"a": 1})


def test_an_answer_is_a_response() -> None:
    """A result, or an error with or without data; only an error may lack an id."""
    error = {"code": -1, "message": "no"}

    assert decode(id="q", result={"a": 1}) == Response("q", Result({"a": 1}))
    assert decode(id=1, error={**error, "data": [1]}) == Response(1, ErrorReply(-1, "no", [1]))
    assert decode(id=None, error=error) == Response(None, ErrorReply(-1, "no"))
    assert decode(error=error) == Response(None, ErrorReply(-1, "no"))


@pytest.mark.parametrize(
    ("member", "fault"),
    [({"jsonrpc": "1.0"}, 'the message needs "jsonrpc": "2.0"'), ({"method": 5}, "method must be a string")],
)
def test_a_request_with_params_needs_the_rest_of_the_envelope(member: dict[str, Any], fault: str) -> None:
    """Also where all of its keys are known, and it is read in one pass."""
    with pytest.raises(InvalidMessage, match=re.escape(fault)) as caught:
        decode(**{"id": 1, "method": "ping", "params": {}, **member})

    assert caught.value.request_id == 1
