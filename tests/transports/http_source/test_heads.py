"""A head that came before, or all but the same one, is read as the first time."""

from __future__ import annotations

import gc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluiceway.transports.http_source.edge import HeadRefused, read_head
from sluiceway.transports.http_source.heads import MAX_REMEMBERED, Heads, KnownHead, request_head_of

FIELDS = st.sampled_from(
    [
        b"Host: a", b"host: b:80", b"Content-Length: %d", b"content-length:%d", b"CONTENT-LENGTH: \t%d \t",
        b"X-Content-Length: %d", b"x: content-length: %d", b"connection: close", b"expect: 100-continue",
        b"accept: */*", b"accept: text/html", b"mcp-method: x", b"x_y: 1", b"transfer-encoding: chunked",
    ]
)  # fmt: skip
LINES = st.sampled_from([b"POST /mcp HTTP/1.1", b"GET /a%20b?c=d HTTP/1.1", b"POST /mcp HTTP/1.0"])
LENGTHS = st.one_of(st.integers(0, 200), st.integers(0, 10**20))


def written(line: bytes, fields: list[bytes], length: int) -> bytes:
    """A head with that length wherever it names one, and something behind it."""
    return b"\r\n".join([line, *(field % length if b"%d" in field else field for field in fields), b"", b"{}"])


def read(heads: Heads, data: bytes, last: KnownHead | None) -> tuple[object, KnownHead | None]:
    """What a head says, or the status it is refused with; and what is remembered of it."""
    try:
        found = heads.read(bytearray(data), last)
    except HeadRefused as refused:
        return refused.status, last
    return found and told(found), found


def told(known: KnownHead) -> object:
    """Everything that a head says."""
    seen, head = known.request, known.head
    sizes = known.raw, known.size, known.length, known.end
    meant = head.method, head.target, head.old, head.chunked, head.closes, head.expects, head.switches
    return meant, sizes, seen.method, seen.path, seen.query, seen.headers, seen.repeated, seen.waits


def afresh(data: bytes) -> object:
    """The same, from somebody who never read anything."""
    try:
        head = read_head(data)
    except HeadRefused as refused:
        return refused.status
    return head and told(KnownHead(data[: head.size], head, request_head_of(head)))


@given(LINES, st.lists(FIELDS, max_size=6), st.lists(LENGTHS, min_size=1, max_size=5))
def test_a_head_is_read_alike_whatever_was_read_before(line: bytes, fields: list[bytes], lengths: list[int]) -> None:
    """Heads that are equal, heads that differ in their length, and heads that are refused for it."""
    heads, last = Heads(), None
    for length in lengths:
        data = written(line, [b"Host: a", *fields], length)
        found, last = read(heads, data, last)

        assert afresh(data) == found


@given(LINES, st.lists(FIELDS, max_size=4), LINES, st.lists(FIELDS, max_size=4), st.integers(0, 99), st.data())
def test_another_head_is_not_taken_for_the_last_one(
    line: bytes, fields: list[bytes], other: bytes, others: list[bytes], length: int, data: st.DataObject
) -> None:
    """However much of it is the same, and however much of it has come."""
    heads = Heads()
    _, last = read(heads, written(line, [b"Host: a", *fields], length), None)
    text = written(other, [b"Host: a", *others], length + 1)
    cut = text[: data.draw(st.integers(1, len(text)))]
    found, _ = read(heads, cut, last)

    assert afresh(cut) == found


HEAD = b"POST /mcp HTTP/1.1\r\nhost: a\r\nauthorization: Bearer secret\r\ncontent-length: 2\r\n\r\n"


def test_equal_heads_are_kept_once_and_go_with_their_last_connection() -> None:
    """They carry credentials."""
    heads = Heads()
    one, other = heads.read(bytearray(HEAD + b"{}"), None), heads.read(bytearray(HEAD), None)

    assert one is other
    assert 1 == len(heads)
    assert one is heads.read(bytearray(HEAD + b"xy"), one)
    del one, other
    gc.collect()
    assert 0 == len(heads)


def test_a_verdict_stays_where_only_the_length_is_another() -> None:
    """And the first head is as it was."""
    heads = Heads()
    first = heads.read(bytearray(HEAD), None)
    assert first is not None
    second = heads.read(bytearray(HEAD.replace(b": 2", b": 31")), first)
    assert second is not None

    assert first.request is second.request
    assert "content-length" not in first.request.headers
    assert (2, 31) == (first.length, second.length)
    assert (first.size + 2, second.size + 31) == (first.end, second.end)


@pytest.mark.parametrize("more", [0, 1])
def test_a_long_head_is_not_remembered_for_others(more: int) -> None:
    """What is shared is small."""
    heads = Heads()
    head = HEAD[:-2] + b"x: %b\r\n\r\n" % (b"x" * (MAX_REMEMBERED - len(HEAD) - 5 + more))
    found = heads.read(bytearray(head), None)

    assert found is not None
    assert 1 - more == len(heads)
