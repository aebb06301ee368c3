"""The message values."""

from __future__ import annotations

import pytest

from sluiceway.pipeline.protocol.errors import UpstreamProtocolError
from sluiceway.pipeline.protocol.messages import (
    EMPTY,
    Body,
    ErrorReply,
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
