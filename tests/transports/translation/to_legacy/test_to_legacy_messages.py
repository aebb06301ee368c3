"""Messages between a modern client and a legacy server, as data."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluiceway.pipeline.protocol.codec import encode_message
from sluiceway.pipeline.protocol.errors import UpstreamProtocolError
from sluiceway.pipeline.protocol.messages import ErrorReply, Request, Result, decode_json
from sluiceway.transports.translation.to_legacy_messages import (
    Completer,
    can_be_asked,
    introduction,
    is_wanted,
    lacking,
    legacy_request,
    modern_question,
    most_verbose,
    pages_to_visit,
)

INFO = {"serverInfo": {"name": "s", "version": "1"}}
META = {"io.modelcontextprotocol/serverInfo": INFO["serverInfo"]}


def test_a_request_keeps_every_byte_that_is_not_about_the_modern_era():
    """Numbers and spaces of arguments least of all."""
    arguments = b'{"n": 1.50, "big": 12345678901234567890123, "s":"\\u00e9"}'
    raw = (
        b'{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"name":"t","arguments":%b,"_meta":'
        b'{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{},'
        b'"io.modelcontextprotocol/clientCapabilities":{},"io.modelcontextprotocol/logLevel":"info",'
        b'"progressToken":"p","x":{"y":  1}}}}' % arguments
    )
    message = decode_json(raw)
    plain = legacy_request(Request("a", "tools/call", message["params"], raw), 7)

    assert arguments in encode_message(plain)
    assert decode_json(encode_message(plain)) == {
        "jsonrpc": "2.0",
        "id": 7,
        "method": "tools/call",
        "params": {
            "name": "t",
            "arguments": message["params"]["arguments"],
            "_meta": {"progressToken": 7, "x": {"y": 1}},
        },
    }
    assert plain.params["_meta"] == {"progressToken": 7, "x": {"y": 1}}
    assert plain.id == 7


def test_a_retry_is_sent_as_the_request_it_repeats():
    """The upstream never hears of answers and states."""
    request = Request(1, "tools/call", {"name": "t", "requestState": "s", "inputResponses": {}})

    assert legacy_request(request, 2).params == {"name": "t"}
    assert b"requestState" not in encode_message(legacy_request(request, 2))


@pytest.mark.parametrize(
    ("raw", "method", "expected"),
    [
        (b"{}", "tools/call", {"resultType": "complete", "_meta": META}),
        (b" { } ", "tools/call", {"resultType": "complete", "_meta": META}),
        (b'{"content":[]}', "tools/call", {"resultType": "complete", "_meta": META, "content": []}),
        (
            b'{"tools":[]}',
            "tools/list",
            {"resultType": "complete", "ttlMs": 0, "cacheScope": "private", "_meta": META, "tools": []},
        ),
        (
            b'{"ttlMs":5,"_meta":{"a":1},"contents":[]}',
            "resources/read",
            {"resultType": "complete", "ttlMs": 5, "cacheScope": "private", "_meta": {**META, "a": 1}, "contents": []},
        ),
        (b'{"result\\u0054ype":"odd"}', "tools/call", {"resultType": "odd", "_meta": META}),
        (b'{"content":[{"text":"\\"_meta\\""}]}', "acme/x", None),
    ],
)
def test_a_result_is_completed_and_says_the_rest_as_it_was(raw, method, expected):
    """Whatever is in it; no member twice."""
    value: Any = expected or {"resultType": "complete", "_meta": META, **decode_json(raw)}
    completed = Completer(INFO).complete(method, Result(raw=raw))

    assert decode_json(completed.body.raw) == value
    assert completed.value == value
    assert completed.body.raw.count(b'"resultType"') == 1


@pytest.mark.parametrize("raw", [b'{"\\ud800":1}', b'{"a\xff":1,"_meta":{}}', b'{"_meta":{"x":"\xff"}}'])
def test_what_no_client_could_read_does_not_pass(raw):
    """It is the upstream's fault, and said to be."""
    with pytest.raises(UpstreamProtocolError, match="UTF-8"):
        Completer(INFO).complete("tools/call", Result(raw=raw))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(["content", "_meta", "resultType", "ttlMs", "cacheScope", "x\u00e9"]) | st.text(max_size=6)


@given(st.dictionaries(NAMES, VALUES, max_size=5), st.sampled_from(["tools/call", "tools/list"]), st.booleans())
def test_what_the_upstream_says_always_stays(value, method, escaped):
    """Only what it does not say is added, however it is spelled."""
    raw = json.dumps(value, ensure_ascii=escaped).encode()
    completed = decode_json(Completer(INFO).complete(method, Result(raw=raw)).body.raw)
    meta = value.get("_meta", {})

    assert {key: completed[key] for key in value if key != "_meta"} == {
        key: each for key, each in value.items() if key != "_meta"
    }
    assert completed["_meta"] == ({**META, **meta} if isinstance(meta, dict) else meta)
    added = {"resultType", "_meta"} | ({"ttlMs", "cacheScope"} if method == "tools/list" else set())
    assert completed.keys() == value.keys() | added


def test_a_server_that_does_not_say_who_it_is_is_not_named():
    """There is nothing to tell."""
    assert Completer().complete("tools/call", Result()).value == {"resultType": "complete"}
    assert Completer({"capabilities": []}).discovered().value["capabilities"] == {}


def test_a_client_without_a_name_gets_one_that_says_so():
    """Legacy revisions require it."""
    assert introduction({}, {"roots": {}}, "v") == {
        "protocolVersion": "v",
        "capabilities": {"roots": {}},
        "clientInfo": {"name": "unnamed", "version": "0"},
    }


@pytest.mark.parametrize(
    ("method", "params", "declared", "expected"),
    [
        ("roots/list", {}, {"roots": {}}, None),
        ("roots/list", {}, {}, {"roots": {}}),
        ("sampling/createMessage", {}, {"sampling": {}}, None),
        ("sampling/createMessage", {"tools": []}, {"sampling": {}}, {"sampling": {"tools": {}}}),
        ("sampling/createMessage", {"toolChoice": {}}, {"sampling": {"tools": {}}}, None),
        ("elicitation/create", {}, {"elicitation": {}}, None),
        ("elicitation/create", {"mode": "form"}, {"elicitation": {"form": {}}}, None),
        ("elicitation/create", {}, {"elicitation": {"url": {}}}, {"elicitation": {"form": {}}}),
        ("elicitation/create", {"mode": "url"}, {"elicitation": {}}, {"elicitation": {"url": {}}}),
        ("elicitation/create", {"mode": "url"}, {"elicitation": {"url": {}}}, None),
        ("elicitation/create", {}, {"elicitation": True}, {"elicitation": {"form": {}}}),
        ("acme/ask", {}, {"acme/ask": {}}, {"acme/ask": {}}),
    ],
)
def test_what_a_client_lacks_for_a_question_is_known(method, params, declared, expected):
    """By mode and by part."""
    assert lacking(method, params, declared) == expected


def test_only_who_declares_something_can_be_asked():
    """A capability is an object."""
    assert can_be_asked({"roots": {}})
    assert not can_be_asked({"roots": None, "experimental": {}})


def test_questions_lose_what_only_legacy_ones_have():
    """What else they say stays."""
    params = {"task": {}, "elicitationId": "e", "x": 1, "_meta": {"progressToken": 1, "y": 2}}

    assert modern_question("elicitation/create", params) == {"x": 1, "_meta": {"y": 2}}
    assert modern_question("sampling/createMessage", {"elicitationId": "e", "_meta": {"progressToken": 1}}) == {
        "elicitationId": "e"
    }


def test_pages_to_visit_are_only_those_that_an_error_names():
    """What is not one is left out."""
    assert pages_to_visit(Result()) is None
    assert pages_to_visit(ErrorReply(-32602, "no")) is None
    assert pages_to_visit(ErrorReply(-32042, "no")) == []
    assert pages_to_visit(ErrorReply(-32042, "no", {"elicitations": [1, {"url": "u"}]})) == [
        {"mode": "url", "url": "u"}
    ]


def test_log_messages_are_wanted_by_severity():
    """One of a level nobody knows is not kept from anybody."""
    assert [is_wanted("warning", {"level": level}) for level in ("info", "warning", "alert", "shout", 7)] == [
        False,
        True,
        True,
        True,
        True,
    ]
    assert not is_wanted(None, {"level": "alert"})
    assert most_verbose(["error", "info", "alert"]) == "info"
