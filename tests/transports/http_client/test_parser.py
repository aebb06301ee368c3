"""Responses out of bytes, however they are cut."""

from __future__ import annotations

import pytest

from sluiceway.transports.http_client.parser import MAX_HEAD, Head, MalformedResponse, ResponseParser

PLAIN = b"HTTP/1.1 200 OK\r\nContent-Type: Text/HTML; x\r\nContent-Length: 2\r\nA: b\r\na:  c \r\n\r\nhi"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nh\r\n1\r\ni\r\n0\r\nTrailer: x\r\n\r\n"


def parsed(*pieces: bytes) -> ResponseParser:
    """A parser that was fed."""
    parser = ResponseParser()
    for piece in pieces:
        parser.feed(piece)
    return parser


@pytest.mark.parametrize("data", [PLAIN, CHUNKED])
@pytest.mark.parametrize("step", [1, 7, 1000])
def test_however_it_is_cut_the_same_comes_out(data, step):
    """Byte by byte, or at once."""
    parser = parsed(*(data[start : start + step] for start in range(0, len(data), step)))

    assert parser.complete
    assert parser.reusable
    assert parser.take() == b"hi"
    assert parser.take() == b""


def test_headers_are_folded_to_lower_case_and_joined():
    """RFC 9110 section 5.3; the media type has no parameters."""
    head = parsed(PLAIN).head

    assert head == Head(200, {"content-type": "Text/HTML; x", "content-length": "2", "a": "b, c"})
    assert head.media_type == "text/html"


def test_interim_responses_are_skipped():
    """Their headers are nobody's."""
    parser = parsed(b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n", b"HTTP/1.1 204 No\r\n\r\n")

    assert parser.head == Head(204, {})
    assert parser.reusable


@pytest.mark.parametrize(
    "surplus",
    [
        b"garbage",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno",
        b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
    ],
)
def test_what_follows_a_response_spoils_the_connection(surplus):
    """It is complete, but nobody knows whose the rest is."""
    parser = parsed(PLAIN + surplus)

    assert parser.complete
    assert not parser.reusable
    assert parser.head is not None
    assert parser.head.headers["content-length"] == "2"
    assert parser.take() == b"hi"


@pytest.mark.parametrize(
    "data",
    [
        PLAIN.replace(b"A: b", b"Connection: close"),
        PLAIN.replace(b"HTTP/1.1", b"HTTP/1.0"),
    ],
)
def test_a_peer_that_closes_says_so(data):
    """The connection is used once."""
    parser = parsed(data)

    assert parser.complete
    assert not parser.reusable
    assert not parser.keeps_alive


def test_a_body_without_length_ends_with_the_connection():
    """RFC 9112 section 6.3."""
    parser = parsed(b"HTTP/1.1 200 OK\r\n\r\nbody")

    assert not parser.complete
    assert parser.end()
    assert not parser.reusable
    assert parser.take() == b"body"


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 200 OK\r\n", PLAIN[:-1], CHUNKED[:-2]])
def test_an_end_that_comes_too_early_is_none(data):
    """What has a length must have all of it."""
    parser = parsed(data) if data else ResponseParser()

    assert not parser.end()
    assert parser.started is bool(data)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"SSH-2.0\r\n", "parsed"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n", "parsed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n", "parsed"),
        (b"HTTP/1.1 200 OK\r\nX: y\r\n folded\r\n\r\n", "parsed"),
        (b"HTTP/1.1 200 OK\nX: y\n\n", "parsed"),
        (b"HTTP/1.1 101 S\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "protocols"),
        (b"HTTP/1.1 101 S\r\n\r\n", "protocols"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * (MAX_HEAD + 1) + b"\r\n\r\n", "head"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * (2 * MAX_HEAD), "head"),
    ],
)
def test_what_is_no_response_is_said_to_be_none(data, words):
    """Smuggling, other protocols, endless heads."""
    with pytest.raises(MalformedResponse, match=words):
        parsed(data)


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize(("begun", "more"), [(b"1;", b"x" * 10_000), (b"0\r\n", b"a: b\r\n" * 1000)])
def test_framing_without_content_does_not_go_on_for_ever(known, begun, more):
    """Chunk extensions and trailers, whether the head is known or not."""
    head = CHUNKED.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    parser = ResponseParser(parsed(head).head if known else None)
    parser.feed(head + begun)

    def go_on() -> None:
        for _ in range(50):
            parser.feed(more)

    with pytest.raises(MalformedResponse, match="more than"):
        go_on()


def test_content_in_between_is_no_endless_framing():
    """A long body in many small chunks is as good as any."""
    parser = parsed(CHUNKED.partition(b"\r\n\r\n")[0] + b"\r\n\r\n")

    for _ in range(20):
        parser.feed(b"5;" + b"x" * 20_000 + b"\r\nhello\r\n")
        assert parser.take() == b"hello"


def test_a_head_that_is_known_is_not_read_again():
    """The parser hands out what it was given."""
    head = parsed(PLAIN).head
    parser = ResponseParser(head)

    parser.feed(PLAIN)

    assert parser.head is head
    assert parser.reusable
    assert parser.take() == b"hi"
