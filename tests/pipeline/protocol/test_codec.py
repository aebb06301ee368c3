"""Bytes to messages and back."""

from __future__ import annotations

import gc
import json
from contextlib import suppress
from typing import Any

import pytest

from sluiceway.pipeline.protocol.codec import decode_batch, decode_message, decode_upstream, encode_message
from sluiceway.pipeline.protocol.errors import (
    GatewayError,
    InvalidMessage,
    MessageTooLarge,
    ParseError,
    UpstreamProtocolError,
)
from sluiceway.pipeline.protocol.gate import Limits
from sluiceway.pipeline.protocol.messages import (
    Body,
    ErrorReply,
    Message,
    Notification,
    Request,
    Response,
    Result,
)

MESSAGES: list[Message] = [
    Request(1, "ping"),
    Request("1", "tools/call", {"name": "x", "arguments": {"a": [1.5, None, True, "\u00e9\U0001f600"]}}),
    Notification("notifications/initialized"),
    Notification("notifications/progress", {"progressToken": "t", "progress": 0.5}),
    Response(-5, Result({"content": []})),
    Response("r", Result()),
    Response(2, ErrorReply(-32601, "no such method")),
    Response(3, ErrorReply(42900, "slow down", {"retry_after_ms": 1})),
    Response(None, ErrorReply(-32700, "what?")),
]
"""All kinds, each with and without its optional parts."""


@pytest.mark.parametrize("message", MESSAGES, ids=repr)
def test_every_kind_round_trips_on_both_sides(message: Message) -> None:
    """Encoded and decoded again, as if from a client and as if from an upstream, it is the same."""
    text = encode_message(message)

    assert b"\n" not in text
    assert message == decode_message(text)
    assert message == decode_upstream(text)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (Request(1, "ping"), b'{"jsonrpc":"2.0","id":1,"method":"ping"}'),
        (Request("a", "x", {"b": 1}), b'{"jsonrpc":"2.0","id":"a","method":"x","params":{"b":1}}'),
        (Notification("n"), b'{"jsonrpc":"2.0","method":"n"}'),
        (Notification("n", {"b": 1}), b'{"jsonrpc":"2.0","method":"n","params":{"b":1}}'),
        (Response(1, Result()), b'{"jsonrpc":"2.0","id":1,"result":{}}'),
        (Response(1, ErrorReply(2, "m")), b'{"jsonrpc":"2.0","id":1,"error":{"code":2,"message":"m"}}'),
        (
            Response(None, ErrorReply(2, "m", 3)),
            b'{"jsonrpc":"2.0","id":null,"error":{"code":2,"message":"m","data":3}}',
        ),
    ],
)
def test_encoding_is_compact(message: Message, text: bytes) -> None:
    """Exactly what is needed, in the usual order; an unreadable id is null, as JSON-RPC asks."""
    assert text == encode_message(message)


def test_an_untouched_request_goes_on_byte_for_byte() -> None:
    """Spelling of numbers, order, white space and unknown members survive."""
    text = b'{ "method":"x", "id":1, "params":{"n":1.0e5,"big":123456789012345678901}, "jsonrpc":"2.0", "extra":[] }'
    request = decode_message(text)

    assert text == encode_message(request)


def test_a_changed_request_is_encoded_anew() -> None:
    """`with_params` drops the old text, so what goes on is what the stage meant; big integers survive."""
    request = decode_message(b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"n":123456789012345678901}}')
    assert isinstance(request, Request)

    changed = encode_message(request.with_params({**request.params, "m": 1}))

    assert changed == b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"n":123456789012345678901,"m":1}}'


def test_a_posted_body_cannot_smuggle_a_line() -> None:
    """Line ends between tokens become spaces; one hidden in an argument does not become a message of its own."""
    hidden = b'{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"forbidden"}}'
    text = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x","arguments":\r\n' + hidden + b"\n}}\n"
    request = decode_message(text)

    line = encode_message(request)

    assert (line.count(b"\n"), line.count(b"\r")) == (0, 0)
    assert json.loads(text) == json.loads(line)


def test_an_upstreams_result_cannot_smuggle_a_line() -> None:
    """The same on the way back."""
    response = decode_upstream(b'{"jsonrpc":"2.0","id":1,"result":{\n"a":\r1}}')

    assert encode_message(response) == b'{"jsonrpc":"2.0","id":1,"result":{ "a": 1}}'
    assert encode_message(decode_upstream(b'{"jsonrpc":"2.0","id":1,"result":{\r}}')).endswith(b'"result":{ }}')


def test_a_batch_is_its_messages_in_order() -> None:
    """Each element keeps its own text."""
    call, notice, answer = (encode_message(m) for m in (Request(1, "a"), Notification("b"), Response(1, Result())))
    text = b"[" + call + b",\n " + notice + b", " + answer + b"]"
    messages = decode_batch(text)

    assert [Request(1, "a"), Notification("b"), Response(1, Result())] == messages
    assert isinstance(messages, list)
    assert encode_message(messages[0]) == b'{"jsonrpc":"2.0","id":1,"method":"a"}'


def test_a_batch_reader_takes_a_single_message_too() -> None:
    """A 2025-03-26 client may send either."""
    assert Request(1, "a") == decode_batch(b'{"jsonrpc":"2.0","id":1,"method":"a"}')


def test_a_batch_of_just_the_greatest_size_passes() -> None:
    """And the limit is the caller's."""
    text = b'[{"jsonrpc":"2.0","method":"a"},{"jsonrpc":"2.0","method":"b"}]'

    assert decode_batch(text, Limits(max_batch=2)) == [Notification("a"), Notification("b")]
    with pytest.raises(InvalidMessage, match=r"max_batch \(1\) messages, not 2"):
        decode_batch(text, Limits(max_batch=1))


@pytest.mark.parametrize(
    "text",
    [
        b"[]",
        b'[{"jsonrpc":"2.0","method":"a"},{"jsonrpc":"2.0","method":"b","method":"c"}]',
        b"[" + b",".join([b'{"jsonrpc":"2.0","method":"a"}'] * 1001) + b"]",
    ],
)
def test_what_is_wrong_with_a_batch_as_such_refuses_it_whole(text: bytes) -> None:
    """Empty, a key twice, too many."""
    with pytest.raises(InvalidMessage):
        decode_batch(text)


@pytest.mark.parametrize(
    ("element", "kind", "request_id"),
    [
        (b"1", InvalidMessage, None),
        (b'[{"jsonrpc":"2.0","method":"a"}]', InvalidMessage, None),
        (b'{"jsonrpc":"2.0","method":1}', InvalidMessage, None),
        (b'{"jsonrpc":"2.0","id":7,"method":"a","params":[1]}', InvalidMessage, 7),
        (b'{"jsonrpc":"2.0","id":"q","method":"a","params":{"x":1,"X":2}}', InvalidMessage, "q"),
        (b'{"jsonrpc":"2.0","id":7,"method":"a","params":{"x":1e400}}', ParseError, 7),
        (b'{"jsonrpc":"2.0","id":7,"method":"a","params":{"x":[1]}}', InvalidMessage, 7),
        (b'{"jsonrpc":"2.0","id":7,"result":5}', InvalidMessage, None),
    ],
)
def test_what_is_wrong_with_an_element_stands_in_its_place(
    element: bytes, kind: type[GatewayError], request_id: object
) -> None:
    """The others are messages; the error carries the id if it is a request whose id could be read."""
    good = b'{"jsonrpc":"2.0","id":1,"method":"a"}'
    first, error, last = decode_batch(b"[" + good + b"," + element + b"," + good + b"]", Limits(max_depth=3))  # type: ignore[misc]  # a list

    assert [first, last] == [Request(1, "a"), Request(1, "a")]
    assert (kind, request_id) == (type(error), error.request_id)


def test_what_costs_a_lot_to_compare_is_bounded_in_a_batch_as_in_a_message() -> None:
    """Keys in no Unicode normal form are counted over all elements."""
    odd = "\u212b" * 200  # the angstrom sign, which is another letter in normal form
    element = b'{"jsonrpc":"2.0","method":"a","params":{"%b":1,"x":2}}'
    texts = [element % f"{odd}{number}".encode() for number in range(100)]
    found = decode_batch(b"[" + b",".join(texts) + b"]")
    assert isinstance(found, list)

    assert isinstance(found[0], Notification)
    assert isinstance(found[-1], InvalidMessage)


@pytest.mark.parametrize("decode", [decode_message, decode_batch])
def test_limits_reach_the_gate(decode: Any) -> None:
    """Size and depth are the caller's."""
    with pytest.raises(MessageTooLarge):
        decode(b'{"jsonrpc":"2.0"}', Limits(max_message_size=3))
    with pytest.raises(InvalidMessage, match="max_depth") as caught:
        decode(b'{"jsonrpc":"2.0","id":4,"method":"x","params":{"a":{}}}', Limits(max_depth=2))
    assert caught.value.request_id == 4


def test_a_number_that_overflows_is_a_parse_error_with_the_id() -> None:
    """It is found after parsing, so whoever asked can be told."""
    with pytest.raises(ParseError) as caught:
        decode_message(b'{"jsonrpc":"2.0","id":"q","method":"x","params":{"a":1e400}}')

    assert caught.value.request_id == "q"


def test_an_upstreams_body_stays_the_bytes_it_was() -> None:
    """Nothing in it is decoded on the way through."""
    body = b'{"n":1.0e5, "n":2, "big":123456789012345678901}'
    response = decode_upstream(b'{"id":1, "result":' + body + b' ,"jsonrpc":"2.0"}')

    assert isinstance(response, Response)
    assert isinstance(response.reply, Result)
    assert body == response.reply.raw
    assert b'{"jsonrpc":"2.0","id":1,"result":' + body + b"}" == encode_message(response)


def test_of_a_repeated_envelope_key_the_last_counts_for_everybody() -> None:
    """The client gets a new envelope around the body we chose, so it cannot see another one."""
    response = decode_upstream(b'{"jsonrpc":"2.0","id":1,"result":{"a":1},"result":{"b":2}}')

    assert encode_message(response) == b'{"jsonrpc":"2.0","id":1,"result":{"b":2}}'


def test_an_upstreams_question_is_encoded_anew() -> None:
    """It has no raw text: duplicates in it are gone before the client sees them, because reading gates it."""
    question = decode_upstream(b'{"jsonrpc":"2.0","id":"q","method":"roots/list","params":{"a":1}}')

    assert question == Request("q", "roots/list", {"a": 1})
    assert isinstance(question, Request)
    assert question.raw is None
    with pytest.raises(UpstreamProtocolError):
        decode_upstream(b'{"jsonrpc":"2.0","id":"q","method":"roots/list","params":{"a":1,"a":2}}')


@pytest.mark.parametrize(
    ("text", "request_id"),
    [
        (b"Listening on port 3000", None),
        (b"", None),
        (b"[]", None),
        (b"7", None),
        (b'{"jsonrpc":"2.0","id":1}', 1),
        (b'{"jsonrpc":"1.0","id":1,"result":{}}', 1),
        (b'{"id":1,"result":{}}', 1),
        (b'{"jsonrpc":"2.0","id":1,"result":[]}', 1),
        (b'{"jsonrpc":"2.0","id":1,"result":null}', 1),
        (b'{"jsonrpc":"2.0","id":1,"result":{},"error":{"code":1,"message":""}}', 1),
        (b'{"jsonrpc":"2.0","id":"a","method":"x","result":{}}', "a"),
        (b'{"jsonrpc":"2.0","id":"a","method":"x","error":{"code":1,"message":""}}', "a"),
        (b'{"jsonrpc":"2.0","id":1,"error":{"code":"1","message":""}}', 1),
        (b'{"jsonrpc":"2.0","id":1,"error":"no"}', 1),
        (b'{"jsonrpc":"2.0","id":1,"method":"x","params":[]}', 1),
        (b'{"jsonrpc":"2.0","id":1,"method":7}', 1),
        (b'{"jsonrpc":"2.0","id":null,"result":{}}', None),
        (b'{"jsonrpc":"2.0","id":1.5,"result":{}}', None),
        (b'{"jsonrpc":"2.0","id":9007199254740992,"result":{}}', None),
        (b'{"jsonrpc":"2.0","id":1,"result":{"a":"\xff"}}', 1),
        (rb'{"jsonrpc":"2.0","id":1,"result":{"a":"\ud800"}}', None),
        (rb'{"jsonrpc":"2.0","id":1,"result":{"a":"\uDC00"}}', None),
        (rb'{"jsonrpc":"2.0","id":1,"result":{"a":"\ud800\u0041"}}', None),
        (rb'{"jsonrpc":"2.0","id":1,"result":{"\uDfFf":1}}', None),
        (b'{"jsonrpc":"2.0","id":1,"result":{"a":"\x01"}}', None),
        (b'{"jsonrpc":"2.0","id":1,"result":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}", None),
    ],
)
def test_what_an_upstream_must_not_send_is_its_fault(text: bytes, request_id: Any) -> None:
    """Every fault is one kind of error, and names the request when its id can still be read."""
    with pytest.raises(UpstreamProtocolError, match="not a JSON-RPC message") as caught:
        decode_upstream(text)

    assert request_id == caught.value.request_id


def test_an_upstreams_message_over_the_limit_is_its_fault() -> None:
    """The size comes first and is in the text."""
    with pytest.raises(UpstreamProtocolError, match="17 bytes; max_message_size is 16"):
        decode_upstream(b'{"jsonrpc":"2.0"}', Limits(max_message_size=16))


def test_escaped_characters_from_an_upstream_pass() -> None:
    """A surrogate pair is fine; only half of one is not."""
    text = rb'{"jsonrpc":"2.0","id":1,"result":{"a":"\ud83d\ude00 \u00e9"}}'

    response = decode_upstream(text)

    assert response == Response(1, Result({"a": "\U0001f600 \u00e9"}))
    assert text == encode_message(response)


def test_reading_an_upstreams_body_gates_it() -> None:
    """A stage that inspects sees what the client will see, or nothing."""
    response = decode_upstream(b'{"jsonrpc":"2.0","id":1,"result":{"tools":[],"tools":[1]}}')
    assert isinstance(response, Response)
    assert isinstance(response.reply, Result)

    with pytest.raises(UpstreamProtocolError, match="duplicate"):
        _ = response.reply.value


def test_a_megabyte_request_is_read_whole() -> None:
    """Large is not special below the limit (S0-SP-04, S0-SP-07)."""
    params = {"name": "process_large_dataset", "arguments": {"data": ["x" * 100] * 10_000}}
    text = encode_message(Request(1, "tools/call", params))
    assert len(text) > 1_000_000

    assert Request(1, "tools/call", params) == decode_message(text)


def test_a_body_compares_by_value() -> None:
    """Text and value of the same object are the same body."""
    assert Body(raw=b'{"a": 1}') == Body({"a": 1})


def test_elements_of_a_batch_keep_their_own_text():
    """On one line each, for what leaves over a line-based transport, and byte for byte otherwise."""
    first = b'{"jsonrpc":"2.0",\r\n "id":1,"method":"a","params":{"x":1.50}}'
    second = b'{"jsonrpc":"2.0","id":2,"method":"b"}'
    messages = decode_batch(b"[" + first + b",\n" + second + b"]")

    assert isinstance(messages, list)
    assert [first.replace(b"\r\n", b"  "), second] == [message.raw for message in messages]


def test_an_upstream_message_that_is_nothing_says_what_is_missing():
    """Neither a method nor exactly one of result and error."""
    with pytest.raises(UpstreamProtocolError, match=r": it has no method, and not exactly one of result and error$"):
        decode_upstream(b'{"jsonrpc":"2.0","id":1}')


def test_what_is_no_message_is_gone_with_its_error():
    """No frame of the error holds it, and with it all of the data, until the collector comes."""
    gc.disable()
    try:
        with suppress(UpstreamProtocolError):
            decode_upstream(b"{x}")
        before = {id(each) for each in gc.get_objects() if isinstance(each, UpstreamProtocolError)}
        with suppress(UpstreamProtocolError):
            decode_upstream(b"{x}")
        left = [each for each in gc.get_objects() if isinstance(each, UpstreamProtocolError) and id(each) not in before]
    finally:
        gc.enable()

    assert left == []
