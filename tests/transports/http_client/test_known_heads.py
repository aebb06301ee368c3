"""Heads that came before: found by their bytes, and never another reading of them than the parser's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluiceway.transports.http_client import known_heads
from sluiceway.transports.http_client.known_heads import MAX_BYTES, MAX_KNOWN, KnownHeads
from sluiceway.transports.http_client.parser import Head, MalformedResponse, ResponseParser

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n"
LINES = st.sampled_from(
    [
        b"content-length: 0",
        b"content-length: 2",
        b"Content-Length:3 ",
        b"content-length: 2, 2",
        b"content-length: +2",
        b"transfer-encoding: chunked",
        b"connection: close",
        b"connection: keep-alive",
        b"connection: upgrade",
        b"upgrade: h2c",
        b"a: b",
        b" folded",
        b"x",
        b"date: now",
        b"Date: Sat, 21 Nov 2026 21:00:00 GMT",
        b"Date: Sat, 21 Nov 2026 21:00:01 GMT",
        b"content-length: 12",
        b"content-length: 02",
        b"content-length: \0",
        b"date: \0",
    ]
)
STARTS = st.sampled_from(
    [
        b"HTTP/1.1 200 OK",
        b"HTTP/1.0 200 OK",
        b"HTTP/1.1 204 No",
        b"HTTP/1.1 304 No",
        b"HTTP/1.1 100 Go",
        b"HTTP/1.1 404",
    ]
)
BODIES = st.sampled_from([b"", b"hi", b"hi!", b"hello, world", b"2\r\nhi\r\n0\r\n\r\n", HEAD, HEAD + b"hi"])
ENDS = st.sampled_from([b"\r\n", b"\n"])


@st.composite
def responses(draw: st.DrawFn) -> bytes:
    """Something like a response, often a broken one."""
    end = draw(ENDS)
    lines = [draw(STARTS), *draw(st.lists(LINES, max_size=4))]
    return end.join(lines) + end + draw(ENDS) + draw(BODIES)


def learned(*responses: bytes) -> KnownHeads:
    """What is known after these came."""
    heads = KnownHeads()
    for data in responses:
        try:
            heads.parse(data)
        except MalformedResponse:
            continue
    return heads


def whole(heads: KnownHeads, data: bytes) -> tuple[Head, bytes | None] | None:
    """Head and body of what is found."""
    found = heads.whole(data)
    return None if found is None else (found.head, found.whole)


def test_a_head_that_came_before_is_found():
    """With the body behind it, whatever that says this time."""
    heads = learned(HEAD + b"hi")

    assert whole(heads, HEAD + b"yo") == (
        Head(200, {"content-type": "application/json", "content-length": "2"}),
        b"yo",
    )


@pytest.mark.parametrize("data", [b"", HEAD[:-2], HEAD, HEAD + b"h", HEAD + b"hi!", HEAD.replace(b"K", b"k") + b"hi"])
def test_what_is_not_one_whole_response_with_a_known_head_is_left_to_the_parser(data):
    """Too short, too long, or another head."""
    assert whole(learned(HEAD + b"hi"), data) is None


@pytest.mark.parametrize(
    "head",
    [
        HEAD.replace(b"content-length: 2", b"connection: close\r\ncontent-length: 2"),
        HEAD.replace(b"content-length: 2", b"a: b"),
        HEAD.replace(b"HTTP/1.1", b"HTTP/1.0"),
        HEAD.replace(b"200 OK", b"100 Go"),
        HEAD.replace(b"\r\n\r\n", b"\r\na: %b\r\n\r\n" % (b"x" * MAX_BYTES)),
    ],
)
def test_a_head_that_will_not_come_again_on_this_connection_is_not_learned(head):
    """Or that is no head of a final response, or a huge one."""
    assert len(learned(head + b"hi")) == 0


@pytest.mark.parametrize("length", [b"transfer-encoding: chunked", b"content-length: 2"])
def test_a_known_head_is_not_read_again_where_a_parser_is_needed(length):
    """For chunks, and for bodies that come in pieces."""
    head = HEAD.replace(b"content-length: 2", length)
    heads = learned(head)

    first, second = heads.parse(head), heads.parse(head)

    assert whole(heads, head) is None
    assert first.head is second.head


def test_a_head_whose_end_has_not_come_is_not_learned():
    """It is parsed, in as many pieces as it comes in."""
    heads = KnownHeads()

    parser = heads.parse(HEAD[:30])
    parser.feed(HEAD[30:] + b"hi")

    assert parser.complete
    assert len(heads) == 0


def test_only_so_many_are_remembered():
    """The one that was learned first makes room."""
    several = [HEAD.replace(b"OK", b"%d" % number) + b"hi" for number in range(MAX_KNOWN + 1)]

    heads = learned(*several)

    assert len(heads) == MAX_KNOWN
    assert whole(heads, several[0]) is None
    assert whole(heads, several[-1]) is not None


def test_a_head_whose_end_is_missing_is_none():
    """Though all that differs from one that is known are the line ends behind it."""
    taken = b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n"
    heads = learned(taken)

    assert [whole(heads, taken[:-missing]) for missing in (4, 3, 2, 1)] == [None] * 4


def test_an_empty_body_is_a_whole_response_too():
    """An acknowledgement."""
    taken = b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n"

    assert whole(learned(taken), taken) == (Head(202, {"content-length": "0"}), b"")


@given(st.lists(responses(), max_size=4), responses(), st.booleans())
def test_nothing_is_found_that_the_parser_would_read_otherwise(before, data, again):
    """Law: what is found is complete, leaves its connection usable, and has the parser's head and body."""
    heads = learned(*before, *[data] * again)

    found = whole(heads, data)

    if found is not None:
        parser = ResponseParser()
        parser.feed(data)
        assert (parser.complete, parser.reusable) == (True, True)
        assert found == (parser.head, parser.take())


@given(st.lists(responses(), max_size=3), responses(), st.booleans())
def test_what_is_known_changes_nothing_for_the_parser(before, data, again):
    """Law: whatever came before, a response is read as it would be by a parser of its own."""
    heads = learned(*before, *[data] * again)

    def alone() -> ResponseParser:
        parser = ResponseParser()
        parser.feed(data)
        return parser

    def outcome(read):
        try:
            parser = read()
        except MalformedResponse:
            return "malformed"
        return parser.head, parser.complete, parser.reusable, parser.keeps_alive, parser.end(), parser.take()

    assert outcome(lambda: heads.parse(data)) == outcome(alone)


DATED = b"HTTP/1.1 200 OK\r\nDate: %b\r\nserver: x\r\nContent-Length: %b\r\ncontent-type: application/json\r\n\r\n"
NOON = b"Sat, 21 Nov 2026 12:00:00 GMT"


def test_a_head_that_differs_in_date_and_length_alone_is_found():
    """With its own date and length; then it is known by itself."""
    heads = learned(DATED % (NOON, b"2") + b"hi")

    found = whole(heads, DATED % (NOON.replace(b"12:", b"13:"), b"12") + b"hello, world")

    assert found is not None
    assert found[1] == b"hello, world"
    assert dict(found[0].headers) == {
        "date": "Sat, 21 Nov 2026 13:00:00 GMT",
        "server": "x",
        "content-length": "12",
        "content-type": "application/json",
    }
    assert (found[0].length, found[0].media_type) == (12, "application/json")
    assert len(heads) == 2


@pytest.mark.parametrize("last", [b"Content-Length: %b", b"Date: %b"])
def test_what_changes_may_stand_last_in_the_head(last):
    """As servers written in Go have the length."""
    values = {b"Content-Length: %b": (b"2", b"12"), b"Date: %b": (NOON, NOON.replace(b"12:", b"13:"))}[last]
    head = b"HTTP/1.1 200 OK\r\n%b%b\r\n\r\n"
    first = b"Content-Length: 12\r\n" if last.startswith(b"Date") else b""
    heads = learned(head % (first, last % values[0]) + b"hello, world"[: 12 if first else 2])

    found = whole(heads, head % (first, last % values[1]) + b"hello, world")

    assert found is not None
    assert values[1].decode() in found[0].headers.values()


@pytest.mark.parametrize("goes_on", [b"3", b"\r\ncontent-encoding: gzip", b"\r\nmcp-session-id: abc"])
def test_the_beginning_of_a_head_is_not_taken_for_a_known_one(goes_on):
    """Bytes may stop coming anywhere, also where a head that is known would have ended."""
    known = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2"
    heads, alone = learned(known + b"\r\n\r\nhi"), ResponseParser()
    whole(heads, known)

    parser = heads.parse(known)
    for each in (parser, alone):
        each.feed((known if each is alone else b"") + goes_on + b"\r\n\r\nhi")

    assert (parser.head, parser.complete) == (alone.head, alone.complete)
    assert parser.head is not None
    assert parser.head.length == alone.head.length


def test_a_date_before_chunks_is_found_too():
    """Streams say when they begin."""
    head = DATED.replace(b"Content-Length: %b", b"transfer-encoding: chunked")
    heads, later = learned(head % NOON), head % NOON.replace(b"12:", b"13:")

    assert whole(heads, later) is None

    first, second = heads.parse(later), heads.parse(later)
    assert first.head is second.head
    assert first.head is not None
    assert first.head.headers["date"] == "Sat, 21 Nov 2026 13:00:00 GMT"
    assert len(heads) == 2


SAID = st.one_of(
    st.sampled_from(
        [NOON, b"2", b"0", b"02", b"2 ", b" 2", b"2, 2", b"\0", b"", b"A\r\nB: C", b"A\r\n B", b"2\r\nDate: A B"]
    ),
    st.binary(max_size=12),
    st.integers(0, 20).map(lambda number: b"%d" % number),
    st.from_regex(rb"\A[A-Z][A-Za-z, :0-9]{1,38}[A-Z]\Z"),
)


@given(SAID, SAID, st.integers(0, 20), st.sampled_from([b"Content-Length", b"content-length", b"Content-length"]))
def test_a_head_that_is_nearly_known_says_what_the_parser_says(date, length, size, name):
    """Law: whatever stands in the place of date and length, nothing is found that the parser would read otherwise."""
    heads = learned(DATED % (NOON, b"2") + b"hi")
    data = (DATED % (date, length)).replace(b"Content-Length", name) + b"x" * size

    found = whole(heads, data)

    if found is not None:
        parser = ResponseParser()
        parser.feed(data)
        assert (parser.complete, parser.reusable) == (True, True)
        assert found == (parser.head, parser.take())


def test_the_bounds_are_small():
    """An origin can make us remember this much at most."""
    assert known_heads.MAX_KNOWN * known_heads.MAX_BYTES <= 128 * 1024
