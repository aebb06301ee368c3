"""The message values."""

from __future__ import annotations

import copy

import pytest

from sluiceway.pipeline.protocol.errors import UpstreamProtocolError
from sluiceway.pipeline.protocol.mcp import METHODS, UNKNOWN, Kind
from sluiceway.pipeline.protocol.messages import (
    EMPTY,
    Body,
    ErrorReply,
    Json,
    Notification,
    Request,
    Result,
    decode_json,
    encode_json,
)


def test_a_body_keeps_the_text_it_was_made_of() -> None:
    """Reading the value does not change the text."""
    body = Body(raw=b'{ "a" : 1.0 }')

    assert body.value == {"a": 1.0}
    assert body.raw == b'{ "a" : 1.0 }'


def test_a_body_made_of_a_value_is_encoded_once() -> None:
    """The text is kept."""
    body = Body({"a": [1, "\u00e9"]})

    assert body.raw == '{"a":[1,"\u00e9"]}'.encode()
    assert body.raw is body.raw


def test_an_empty_body_is_an_empty_object() -> None:
    """Neither value nor text given."""
    assert Body().value == {}
    assert Body().raw == b"{}"


@pytest.mark.parametrize("raw", [b'{"a":1,"a":2}', b'{"a":1,"A":2}', b'{"a":1e400}', b'{"a":"\xff"}', b"{"])
def test_a_text_that_parsers_read_differently_cannot_be_read(raw: bytes) -> None:
    """The reader would decide on something other than what the client sees."""
    with pytest.raises(UpstreamProtocolError, match="cannot be inspected"):
        _ = Body(raw=raw).value


def test_bodies_are_compared_by_value_and_cannot_be_hashed() -> None:
    """They may hold lists."""
    assert Body({"a": 1}) == Body(raw=b'{"a":1}')
    assert Body({"a": 1}) != Body({"a": 2})
    assert Body() != {}
    assert repr(Body({"a": 1})) == "Body({'a': 1})"
    with pytest.raises(TypeError):
        hash(Body())


def test_a_request_with_other_params_has_no_raw_text() -> None:
    """The old text would say something else."""
    request = Request(1, "x", {"a": 1}, raw=b"...")

    changed = request.with_params({"a": 2})

    assert changed == Request(1, "x", {"a": 2})
    assert changed.raw is None
    assert request.raw == b"..."


def test_a_request_says_what_follows_from_its_method_and_params() -> None:
    """The row of its method, what it is about, and its metadata."""
    request = Request(1, "tools/call", {"name": "echo", "_meta": {"progressToken": 1}})

    assert request.row is METHODS["tools/call"]
    assert request.target == "echo"
    assert request.meta == {"progressToken": 1}


@pytest.mark.parametrize("params", [{}, {"name": 5, "_meta": []}, {"_meta": None}])
def test_a_request_without_target_and_metadata_says_so(params: dict[str, Json]) -> None:
    """What has the wrong type is as good as absent."""
    request = Request(1, "tools/call", params)

    assert (request.target, request.meta) == (None, {})


def test_a_method_that_nobody_knows_has_a_careful_row() -> None:
    """It is relayed, and never repeated."""
    assert Request(1, "x/y", {"name": "n", "_meta": {"a": 1}}).row is UNKNOWN
    assert Request(1, "x/y", {"name": "n", "_meta": {"a": 1}}).meta == {"a": 1}
    assert Request(1, "notifications/x").row.kind is Kind.NOTIFY


def test_a_notification_says_the_same_of_itself() -> None:
    """Who asks need not know which of the two it has."""
    notification = Notification("notifications/x", {"_meta": {"a": 1}})

    assert (notification.row.kind, notification.target, notification.meta) == (Kind.NOTIFY, None, {"a": 1})


def test_a_request_cannot_be_changed_or_hashed() -> None:
    """It may be in many hands, and its params are a dict."""
    request = Request(1, "x", {"a": 1}, raw=b"...")

    with pytest.raises(AttributeError):
        request.method = "y"  # type: ignore[misc]  # that is what cannot be done
    with pytest.raises(TypeError):
        hash(request)
    assert request != Notification("x", {"a": 1})
    assert request != (1, "x", {"a": 1})
    assert repr(request) == "Request(id=1, method='x', params={'a': 1})"
    assert copy.deepcopy(request) == request


def test_a_result_is_its_own_body() -> None:
    """Text and value are asked of either."""
    result = Result(raw=b'{"a":1}')

    assert (result.raw, result.value) == (b'{"a":1}', {"a": 1})
    assert result.body is result
    assert Result(Body({"a": 1})) == result
    assert Notification("n", result).params == {"a": 1}


def test_a_body_counts_the_text_that_it_holds() -> None:
    """Nothing is made to be counted."""
    body = Body({"a": 1})

    assert body.held == 0
    assert (body.raw, body.held) == (b'{"a":1}', 7)
    assert not hasattr(body, "size")


@pytest.mark.parametrize("body", [Body(raw=b"not JSON"), Result({"a": [1]})])
def test_a_copy_holds_what_the_body_holds(body: Body) -> None:
    """Copying reads nothing."""
    twin = copy.deepcopy(body)

    assert type(twin) is type(body)
    assert twin.held == body.held
    assert twin.raw == body.raw


def test_raw_text_and_http_status_do_not_count_in_comparisons() -> None:
    """They say how a message travelled, not what it says."""
    assert Request(1, "x", raw=b"a") == Request(1, "x", raw=b"b")
    assert ErrorReply(1, "m", http_status=400) == ErrorReply(1, "m")


def test_a_mapping_is_as_good_as_a_body() -> None:
    """Constructors take either."""
    assert Result({"a": 1}).value == {"a": 1}
    assert Notification("n", {"a": 1}).params == {"a": 1}
    assert Notification("n").params == EMPTY


def test_json_of_our_own_round_trips() -> None:
    """Compact and in UTF-8."""
    value = {"a": [1, None, True, "\u00e9", 1.5]}

    assert decode_json(encode_json(value)) == value
    with pytest.raises(TypeError):
        encode_json({"a": object()})
