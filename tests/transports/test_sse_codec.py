"""Server-sent events, encoded and decoded."""

from __future__ import annotations

import json

import pytest

from sluiceway.pipeline.protocol.errors import MessageTooLarge
from sluiceway.transports.sse_codec import COMMENT, Event, EventDecoder, encode_event


def decode(*pieces):
    decoder = EventDecoder(1000)
    return [event for piece in pieces for event in decoder.feed(piece)]


def test_an_event_is_one_data_line():
    """S4-SE-04: `data: ...` and an empty line; an id only when there is one."""
    assert b'data: {"a":1}\n\n' == encode_event(b'{"a":1}')
    assert b"id: s_1\ndata: {}\n\n" == encode_event(b"{}", event_id="s_1")
    assert b"id: s_0\nretry: 500\ndata: \n\n" == encode_event(b"", event_id="s_0", retry_ms=500)


@pytest.mark.parametrize("text", [b'{\n"a": 1}', b'{\r\n"a":\r1\n}', b"\n{}\n"])
def test_line_ends_become_data_lines_and_the_same_json_comes_back(text):
    """A pretty-printed body stays one event with the same meaning."""
    [event] = decode(encode_event(text))

    assert json.loads(text) == json.loads(event.data)


STREAM = (
    b"\xef\xbb\xbf: hello\n\nid: 1\nevent: x\ndata: a\ndata:b\n\n"
    b"data\n\nretry: 250\nid: 2\n\ndata: c\r\n\r\nid: bad\0id\nretry: x\nfoo: bar\ndata:  d\r\r"
)
EVENTS = [
    Event("a\nb", "1", "x"),
    Event("", "1"),
    Event("c", "2", retry_ms=None),
    Event(" d", "2"),
]


def test_the_format_is_read_as_the_standard_says():
    """Comments, byte order mark, names, kept ids, ignored fields, all three line ends."""
    assert EVENTS == decode(STREAM)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 50])
def test_pieces_do_not_matter(size):
    """However a stream is cut, even inside CRLF or the byte order mark, the same events come out."""
    assert EVENTS == decode(*(STREAM[i : i + size] for i in range(0, len(STREAM), size)))


def test_retry_belongs_to_its_event():
    """Milliseconds; only digits count."""
    assert [Event("a", retry_ms=100), Event("b")] == decode(b"retry: 100\ndata: a\n\ndata: b\n\n")


def test_comments_are_no_events():
    """Keep-alives go unseen."""
    assert [] == decode(COMMENT, COMMENT)


@pytest.mark.parametrize("data", [b"data: " + b"x" * 1001, b"data: aaaaaaaaa\n" * 100, b":" + b"x" * 2000 + b"\n"])
def test_an_event_has_a_greatest_size(data):
    """In one line or many, finished or not."""
    with pytest.raises(MessageTooLarge, match="1000 bytes"):
        decode(data)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 40])
def test_the_data_of_a_long_event_is_given_out_in_parts(size):
    """An event that is too long to be held: its data in parts, then whatever follows, however the stream is cut."""
    decoder = EventDecoder(100_000)
    assert [] == decoder.feed(b"id: 7\nevent: message\ndata: 012")
    assert decoder.unfinished() == b"012"

    decoder.begin_long()
    rest, data, events = b'345\\n6789\r\ndata: more\nid: 8\n\ndata: next\n\ndata: {"a"', b"", []
    for at in range(0, len(rest), size):
        events += decoder.feed(rest[at : at + size])
        data += decoder.take_long()

    assert data == b"345\\n6789\nmore"
    assert not decoder.in_long
    assert events == [Event("next", "8")]
    assert decoder.unfinished() == b'{"a"'


@pytest.mark.parametrize("start", [b"event: other\ndata: x", b"data: whole\ndata: x", b"id: x", b": comment"])
def test_other_beginnings_are_no_long_event(start):
    """Events of other types, data in several lines and other fields are read whole."""
    decoder = EventDecoder(100_000)
    decoder.feed(start)

    assert decoder.unfinished() is None


def test_a_long_event_has_a_greatest_size_too():
    """What was given out counts."""
    decoder = EventDecoder(1000)
    decoder.feed(b"data: " + b"x" * 900)
    decoder.begin_long()

    with pytest.raises(MessageTooLarge, match="1000 bytes"):
        decoder.feed(b"x" * 200)
