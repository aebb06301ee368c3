"""Tests for long responses in pieces."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluiceway.pipeline.protocol.errors import UpstreamProtocolError
from sluiceway.pipeline.protocol.pieces import ResultPieces

TEXTS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(['a"b\\', '{"x":[', "isError", '"isError":true', '"isError": true', "\\\\", "\u2028é"]),
)
VALUES = st.recursive(
    st.one_of(TEXTS, st.integers(-9, 9), st.booleans(), st.none()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(TEXTS, st.sampled_from(["isError", "}", '"'])), inner, max_size=4),
    ),
    max_leaves=24,
)
STYLES = st.sampled_from([{}, {"separators": (",", ":")}, {"indent": 1}, {"ensure_ascii": False}])


def rejoin(data: bytes, cuts: list[int], first: int = 0) -> tuple[ResultPieces, bytes]:
    """Feed `data` in pieces of these lengths, over and over; the first one reaches into the result."""
    at = data.index(b'"result"') + 16 + first
    begun = ResultPieces.begin(data[:at])
    assert begun is not None
    pieces, out = begun
    while at < len(data):
        for length in cuts:
            out += pieces.feed(data[at : at + length])
            at += length
    return pieces, out


@settings(max_examples=600, deadline=None)
@given(
    result=st.dictionaries(TEXTS, VALUES, max_size=4),
    failed=st.booleans(),
    before=st.lists(st.sampled_from(["jsonrpc", "id"]), unique=True),
    style=STYLES,
    cuts=st.lists(st.integers(1, 30), min_size=1, max_size=5),
)
def test_any_split_of_any_result_gives_the_result(result, failed, before, style, cuts):
    """However a response is cut, the same result comes out, with its id and whether it failed."""
    envelope = {"jsonrpc": "2.0", "id": "a-7"}
    full = {"aaaaaaaaaaaa": 1, **result, "isError": failed}
    first = {key: envelope[key] for key in before}
    rest = {key: value for key, value in envelope.items() if key not in before}

    pieces, out = rejoin(json.dumps({**first, "result": full, **rest}, **style).encode(), cuts)

    assert pieces.end() == "a-7"
    assert full == json.loads(out)
    assert pieces.is_error is failed
    assert b"\n" not in out


@settings(max_examples=200, deadline=None)
@given(
    texts=st.lists(st.one_of(TEXTS, st.sampled_from(["\\" * 700, '"' * 350, "{" * 600])), min_size=1, max_size=8),
    times=st.integers(1, 60),
    behind=st.sampled_from(['"x"', "[]", "{}", "7"]),
    cut=st.integers(300, 5000),
)
def test_an_end_far_into_a_piece_is_found(texts, times, behind, cut):
    """Where the result ends in kilobytes of texts, escapes and brackets, it is cut at its last bracket."""
    result = {"aaaaaaaaaaaa": 1, "rows": [{"t": text} for text in texts] * times, "last": json.loads(behind)}

    pieces, out = rejoin(json.dumps({"id": 3, "result": result, "jsonrpc": "2.0"}).encode(), [cut])

    assert pieces.end() == 3
    assert result == json.loads(out)


@pytest.mark.parametrize(
    "head",
    [
        b'{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"no"}}',
        b'{"jsonrpc":"2.0","method":"notifications/progress","params":{}}',
        b'{"jsonrpc":"2.0","id":1,"extra":{},"result":{}}',
        b'{"jsonrpc":"2.0","id":1,"result":[1,2]}',
        b'[{"jsonrpc":"2.0","id":1,"result":{}}]',
        b"not JSON at all",
    ],
)
def test_what_is_no_plain_result_must_be_read_whole(head):
    """Errors, notifications, batches and envelopes with members of their own are not taken in pieces."""
    assert ResultPieces.begin(head) is None


@pytest.mark.parametrize(
    ("tail", "why"),
    [
        (b'"x"', "in the middle of its result"),
        (b'"x"}', "something else stands behind its result"),
        (b'"x"}}, "id": 2', "something else stands behind its result"),
        (b'"x"},"more":1}', "something else stands behind its result"),
        (b'"x"}}{}', "something else stands behind its result"),
        (b'"x"},"id":true}', "something else stands behind its result"),
        (b'"x"}}', "not a JSON-RPC message"),
        (b'"x"},"jsonrpc":"1.0"}', "not a JSON-RPC message"),
        (b'"\xff"},"jsonrpc":"2.0"}', "not UTF-8"),
        (b'"x"}' + b" " * 5000, "more than 4096 bytes stand behind"),
    ],
)
def test_a_broken_envelope_is_noticed_at_the_end(tail, why):
    """Whatever is wrong with the end of a response, or with its envelope, is said."""
    begun = ResultPieces.begin(b'{"id":1,"result":{"a":')
    assert begun is not None
    pieces, _ = begun

    with pytest.raises(UpstreamProtocolError, match=why):
        _finish(pieces, tail)


def _finish(pieces: ResultPieces, tail: bytes) -> None:
    pieces.feed(tail)
    pieces.end()


def test_the_later_of_two_ids_counts():
    """An id in front and one behind: the last one, as in a message that is read whole."""
    begun = ResultPieces.begin(b'{"jsonrpc":"2.0","id":1,"result":{},"id":2}')

    assert begun is not None
    assert begun[0].end() == 2


def test_brackets_that_nest_deeper_than_pairs_are_taken_out():
    """Very deep nesting is walked bracket by bracket, and still gives the right end."""
    deep = b"[" * 3000 + b"]" * 3000
    data = b'{"jsonrpc":"2.0","id":1,"result":{"a":%b,"isError":true},"id":1}' % deep

    pieces, out = rejoin(data, [len(deep) + 10, 1])

    assert out == b'{"a":%b,"isError":true}' % deep
    assert pieces.is_error
    assert pieces.end() == 1


def test_what_somebody_else_says_of_errors_is_not_the_tools_word():
    """`isError` inside of a text, or deeper down, does not make the call a failure."""
    inner = {"content": [{"isError": True, "text": '"isError":true'}]}

    pieces, _ = rejoin(json.dumps({"result": inner, "id": 1, "jsonrpc": "2.0"}, separators=(",", ":")).encode(), [3])

    assert pieces.end() == 1
    assert not pieces.is_error
