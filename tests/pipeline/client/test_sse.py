"""Server-sent events, read incrementally."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluiceway.pipeline.client.sse import Event, EventDecoder
from sluiceway.pipeline.protocol.errors import UpstreamProtocolError


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: a\n\n", [Event("message", "a", "")]),
        (b"data:a\n\n", [Event("message", "a", "")]),
        (b"data:  a\n\n", [Event("message", " a", "")]),
        (b"data: a\ndata: b\n\n", [Event("message", "a\nb", "")]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", [Event("message", "a", ""), Event("message", "b", "")]),
        (b"data: a\r\rdata: b\r\r.", [Event("message", "a", ""), Event("message", "b", "")]),
        (b"event: ping\ndata: a\n\n", [Event("ping", "a", "")]),
        (b"event: ping\n\ndata: a\n\n", [Event("message", "a", "")]),
        (b"id: 7\ndata: a\n\ndata: b\n\n", [Event("message", "a", "7"), Event("message", "b", "7")]),
        (b"id: 7\n\n", []),
        (b"id: a\0b\ndata: a\n\n", [Event("message", "a", "")]),
        (b"data\n\n", [Event("message", "", "")]),
        (b": comment\n\ndata: a\n\n", [Event("message", "a", "")]),
        (b"other: x\ndata: a\n\n", [Event("message", "a", "")]),
        (b"\xef\xbb\xbfdata: a\n\n", [Event("message", "a", "")]),
        (b"data: a\n", []),
        (b"data: \xff\n\n", [Event("message", "\ufffd", "")]),
    ],
)
def test_a_stream_is_read_as_the_standard_has_it(stream, events):
    """Line ends, fields, ids, names, comments and the byte order mark (WHATWG HTML, section 9.2.6)."""
    assert events == EventDecoder().feed(stream)


@given(st.lists(st.integers(1, 30)))
def test_the_pieces_a_stream_comes_in_do_not_matter(sizes):
    """However it is cut, the same events come out."""
    stream = b"id: 1\r\nevent: x\r\ndata: \xc3\xa4\r\ndata: b\r\n\r\nretry: 5\n: c\n\ndata: z\r\r\ndata: y\n\n"
    decoder = EventDecoder()
    events = []
    for size in sizes:
        piece, stream = stream[:size], stream[size:]
        events += decoder.feed(piece)
    events += decoder.feed(stream)

    assert [Event("x", "ä\nb", "1"), Event("message", "z", "1"), Event("message", "y", "1")] == events


def test_the_wait_before_a_reconnect_and_the_last_id_are_kept_over_a_reconnect():
    """What was unfinished is forgotten, what the next connection needs is not."""
    decoder = EventDecoder()
    decoder.feed(b"id: 3\nretry: 250\nretry: soon\ndata: a\n\ndata: unfinished\ndata: ")
    decoder.reconnect()

    assert [Event("message", "b", "3")] == decoder.feed(b"data: b\n\n")
    assert decoder.retry_ms == 250


@pytest.mark.parametrize("stream", [b"data: " + b"x" * 20, b"data: aaaaaaaa\n" * 2])
def test_an_event_that_does_not_end_is_given_up(stream):
    """Neither one long line nor many lines can fill the memory."""
    with pytest.raises(UpstreamProtocolError, match="larger than 20 bytes"):
        EventDecoder(max_event=20).feed(stream)
