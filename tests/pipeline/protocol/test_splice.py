"""Changing `_meta` of a message."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluiceway.pipeline.protocol.messages import Notification, Request
from sluiceway.pipeline.protocol.splice import with_label, with_meta


def _request(raw: bytes) -> Request:
    message = json.loads(raw)
    return Request(message["id"], message["method"], message.get("params", {}), raw)


def test_what_is_not_changed_stays_as_the_bytes_it_was():
    """Spelling, order and numbers of the arguments, and members that nobody knows."""
    raw = (
        b'{"jsonrpc":"2.0", "id":1,"method":"tools/call","x":[1, 2],"params":{"arguments":{"a" : 1.0,"b":"\\u00e9"},'
        b'"_meta":{"k" : 1e2,"traceparent":"old"},"name":"n"}}'
    )

    changed = with_meta(_request(raw), {"traceparent": "new", "tracestate": "a=1"})

    assert isinstance(changed, Request)
    assert changed.raw is not None
    for part in (b'{"a" : 1.0,"b":"\\u00e9"}', b"1e2", b"[1, 2]"):
        assert part in changed.raw
    assert changed.params == json.loads(changed.raw)["params"]
    assert changed.params["_meta"] == {"k": 100.0, "traceparent": "new", "tracestate": "a=1"}


@pytest.mark.parametrize(
    ("params", "changes", "expected"),
    [
        ({}, {"a": 1}, {"_meta": {"a": 1}}),
        ({"_meta": {"a": 1, "b": 2}}, {"a": None}, {"_meta": {"b": 2}}),
        ({"_meta": {"a": 1}, "x": 1}, {"a": None}, {"x": 1}),
        ({"_meta": 3}, {"a": 1}, {"_meta": {"a": 1}}),
    ],
)
def test_with_and_without_bytes_the_same_comes_out(params, changes, expected):
    """Added, changed, removed; a `_meta` that is no object is replaced."""
    raw = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "m", "params": params}).encode()

    with_bytes = with_meta(_request(raw), changes)
    without = with_meta(Request(1, "m", params), changes)
    notification = with_meta(Notification("m", params), changes)

    assert isinstance(with_bytes, Request)
    assert with_bytes.raw is not None
    assert json.loads(with_bytes.raw)["params"] == expected
    assert with_bytes.params == without.params == notification.params == expected


def test_a_request_without_params_gets_some():
    """They are optional in JSON-RPC."""
    changed = with_meta(_request(b'{"jsonrpc":"2.0","id":1,"method":"ping"}'), {"a": 1})

    assert isinstance(changed, Request)
    assert json.loads(changed.raw or b"")["params"] == {"_meta": {"a": 1}}


def test_no_change_is_the_same_message():
    """Its bytes are not looked at."""
    request = Request(1, "m", {"_meta": {"a": 1}}, b"not looked at")

    assert with_meta(request, {"a": 1, "b": None}) is request


@pytest.mark.parametrize(
    "params",
    [
        b'{"_meta" :\n{ "k":1},"name":"n"}',
        b'{"arguments":{"_meta":{"k":1}},"_meta":{"k":1}}',
        b'{"_meta":{"k":1},"arguments":{"_meta":{"k":1}}}',
        b'{"arguments":{"_meta":{"in":1}},"\\u005fmeta":{"k":1}}',
        b'{"arguments":{"text":"\\"_meta\\":{\\"in\\":1}"},"_meta":{"k":1}}',
        b'{"arguments":["_meta",{"x":1}],"_meta":{"k":1}}',
        b'{"_meta":{"k":1,"deep":{"_meta":{}}}}',
    ],
)
def test_new_members_go_where_they_belong_whatever_looks_like_it(params):
    """The bytes and the decoded params never say different things."""
    raw = b'{"jsonrpc":"2.0","id":1,"method":"m","params":' + params + b"}"

    changed = with_meta(_request(raw), {"new": "x"})

    assert isinstance(changed, Request)
    assert changed.params["_meta"]["new"] == "x"
    assert changed.params["_meta"]["k"] == 1
    assert json.loads(changed.raw or b"")["params"] == changed.params


_json = st.recursive(
    st.none() | st.integers() | st.text(max_size=8) | st.sampled_from(['"_meta"', "_meta", '"_meta":{']),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["_meta", "a", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(_json, st.dictionaries(st.sampled_from(["a", "b", "traceparent"]), st.integers()), st.booleans(), st.booleans())
def test_bytes_and_params_always_agree(arguments, meta, ascii_only, removes):
    """With any arguments, in any spelling."""
    params = {"arguments": arguments, "_meta": meta}
    message = {"jsonrpc": "2.0", "id": 1, "method": "m", "params": params}
    raw = json.dumps(message, ensure_ascii=ascii_only).encode("utf-8", "replace")

    changed = with_meta(_request(raw), {"traceparent": "t", "a": None} if removes else {"traceparent": "t"})

    assert isinstance(changed, Request)
    assert json.loads(changed.raw or b"")["params"] == changed.params
    assert changed.params.get("arguments") == json.loads(raw)["params"]["arguments"]


@given(_json, st.dictionaries(st.sampled_from(["a", "b"]), st.integers()), st.booleans())
def test_a_label_is_one_more_member(arguments, meta, ascii_only):
    """The quick way says, byte for byte, what the other one says."""
    message = {"jsonrpc": "2.0", "id": 1, "method": "m", "params": {"arguments": arguments, "_meta": meta}}
    request = _request(json.dumps(message, ensure_ascii=ascii_only, separators=(",", ":")).encode("utf-8", "replace"))

    labelled, changed = with_label(request, "traceparent", "t"), with_meta(request, {"traceparent": "t"})

    assert isinstance(labelled, Request)
    assert isinstance(changed, Request)
    assert (labelled, labelled.raw) == (changed, changed.raw)


@given(
    st.dictionaries(st.sampled_from(["arguments", "params", "_meta", "a"]), _json, max_size=3),
    st.booleans(),
    st.sampled_from([(",", ":"), (", ", " : ")]),
)
def test_a_label_is_the_first_of_its_kind(params, ascii_only, separators):
    """A request without metadata gets some, and of the rest no byte changes."""
    message = {"jsonrpc": "2.0", "id": 1, "method": "m", "params": params}
    request = _request(json.dumps(message, ensure_ascii=ascii_only, separators=separators).encode("utf-8", "replace"))

    labelled = with_label(request, "traceparent", "t")

    meta = params["_meta"] if isinstance(params.get("_meta"), dict) else {}
    assert isinstance(labelled, Request)
    assert json.loads(labelled.raw or b"")["params"] == labelled.params
    assert labelled.params == {**request.params, "_meta": {**request.meta, "traceparent": "t"}}
    assert labelled.meta == {**meta, "traceparent": "t"}
    assert (labelled.row, labelled.target) == (request.row, request.target)


def test_a_label_where_no_metadata_was_leaves_the_other_bytes():
    """They are pushed to the right."""
    request = _request(b'{"jsonrpc":"2.0","id":1,"method":"m","params": {"name":"n","x":1.0}}')

    labelled = with_label(request, "traceparent", "t")

    assert isinstance(labelled, Request)
    assert labelled.raw == (
        b'{"jsonrpc":"2.0","id":1,"method":"m","params": {"_meta":{"traceparent":"t"},"name":"n","x":1.0}}'
    )


@pytest.mark.parametrize("message", [Notification("n", {"_meta": {"k": 1}}), Request(1, "m", {"_meta": {"k": 1}})])
def test_what_has_no_bytes_can_be_labelled_as_well(message):
    labelled = with_label(message, "traceparent", "t")

    assert labelled.params == {"_meta": {"k": 1, "traceparent": "t"}}
