"""Messages out of a byte stream, however it is cut."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluiceway.pipeline.protocol.codec import StreamDecoder, decode_upstream, encode_message
from sluiceway.pipeline.protocol.errors import GatewayError, MessageTooLarge, ParseError, UpstreamProtocolError
from sluiceway.pipeline.protocol.gate import Limits
from sluiceway.pipeline.protocol.messages import Message, Notification, Request

PING = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'
STATUS = b'{"jsonrpc":"2.0","id":2,"method":"status"}'
INFO = b'{"jsonrpc":"2.0","id":3,"method":"info"}'


def shown(items: list[Message | GatewayError]) -> list[object]:
    """Messages as they are, errors as what a client would see."""
    return [(type(item), str(item), item.request_id) if isinstance(item, GatewayError) else item for item in items]


def decoded(pieces: list[bytes], limits: Limits | None = None) -> list[object]:
    """Everything that comes out of a stream in these pieces."""
    decoder = StreamDecoder(limits=limits or Limits())
    return shown([item for piece in pieces for item in decoder.feed(piece)] + decoder.end())


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    """The stream, cut at these places."""
    edges = [0, *sorted(min(place, len(stream)) for place in places), len(stream)]
    return [stream[start:end] for start, end in itertools.pairwise(edges)]


LINES = st.one_of(
    st.text(max_size=20).map(
        lambda text: encode_message(Request(text, "tools/call", {"name": text, "a": "\u20ac\U0001f600"}))
    ),
    st.sampled_from(
        [
            PING,
            b"",
            b" \t\r",
            b"nonsense",
            b"\xff\xfe",
            PING + b"  " + STATUS,
            PING + STATUS,
            b"{",
            b"x" * 300,
            b"[]",
            PING + b"\r",
        ]
    ),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(LINES, max_size=6), st.lists(st.integers(0, 1200), max_size=12), st.booleans())
def test_any_cut_of_the_stream_gives_the_same_messages(lines: list[bytes], places: list[int], closed: bool) -> None:
    """Also inside UTF-8, inside a line that is too long, and byte by byte."""
    stream = b"\n".join(lines) + (b"\n" if closed else b"")
    limits = Limits(max_message_size=200)
    whole = decoded([stream], limits)

    assert whole == decoded(cut(stream, places), limits)
    assert whole == decoded([stream[i : i + 1] for i in range(len(stream))], limits)


def test_several_messages_in_one_buffer_come_out_in_order() -> None:
    """Separated by line ends or spaces; the last needs no line end (S0-MB-02)."""
    expected = [Request(1, "ping"), Request(2, "status"), Request(3, "info")]

    assert expected == decoded([PING + b"\n" + STATUS + b"\n" + INFO])
    assert expected == decoded([PING + b" " + STATUS + b"\t \r" + INFO + b"  \r\n"])


def test_an_unfinished_line_is_kept_for_the_next_feed() -> None:
    """And shown in the statistics meanwhile (S0-SP-06)."""
    decoder = StreamDecoder(limits=Limits(max_message_size=100))

    assert [Request(1, "ping")] == decoder.feed(PING + b"\n" + STATUS[:25])
    stats = decoder.buffer_stats()
    assert (stats.used, stats.capacity, stats.utilization) == (25, 100, 0.25)
    assert [Request(2, "status")] == decoder.feed(STATUS[25:] + b"\n")
    assert decoder.buffer_stats().used == 0


def test_a_line_over_the_limit_is_one_error_and_the_next_line_works() -> None:
    """The error comes as soon as the limit is passed, and nothing of the line is kept."""
    decoder = StreamDecoder(limits=Limits(max_message_size=50))

    assert decoder.feed(b"x" * 50) == []
    [error] = decoder.feed(b"x")
    assert isinstance(error, MessageTooLarge)
    assert decoder.buffer_stats().used == 0
    assert decoder.feed(b"y" * 1000) == []
    assert [Request(1, "ping")] == decoder.feed(b"z\n" + PING + b"\n")


def test_a_line_of_exactly_the_limit_passes() -> None:
    """The line end does not count."""
    assert [Request(1, "ping")] == decoded([PING + b"\n"], Limits(max_message_size=len(PING)))


def test_a_bad_message_does_not_end_the_stream() -> None:
    """The error carries the id; what follows is read."""
    bad = b'{"jsonrpc":"2.0","id":9,"method":1}'
    decoder = StreamDecoder()

    error, message = decoder.feed(bad + b"\n" + PING + b"\n")

    assert isinstance(error, GatewayError)
    assert error.request_id == 9
    assert message == Request(1, "ping")


@pytest.mark.parametrize("line", [PING + STATUS, PING + b" nonsense", PING + b" {", b"\xff " + PING, b"[" * 5000])
def test_a_line_that_is_not_clearly_several_messages_is_one_error(line: bytes) -> None:
    """Never half of a line: what cannot be told apart for certain is refused whole."""
    decoder = StreamDecoder()
    [error] = decoder.feed(line + b"\n")

    assert isinstance(error, GatewayError)


def test_each_of_several_messages_on_a_line_is_judged_alone() -> None:
    """An invalid one between two valid ones is one error."""
    bad = b'{"jsonrpc":"2.0","id":9,"method":1,"method":2}'
    first, second, third = StreamDecoder().feed(b" ".join([PING, bad, STATUS]) + b"\n")

    assert first == Request(1, "ping")
    assert isinstance(second, GatewayError)
    assert third == Request(2, "status")


def test_an_upstreams_stream_is_read_with_its_decoder() -> None:
    """Lines that are no messages are the upstream's fault, several messages on a line are fine."""
    decoder = StreamDecoder(decode_upstream)
    notice = b'{"jsonrpc":"2.0","method":"notifications/x"}'

    items = decoder.feed(b"starting up...\n" + notice + b" " + notice + b"\n")

    assert isinstance(items[0], UpstreamProtocolError)
    assert [Notification("notifications/x")] * 2 == items[1:]


def test_an_end_in_the_middle_of_a_message_is_an_error() -> None:
    """A torn tail is reported, an empty one is not."""
    decoder = StreamDecoder()
    decoder.feed(PING[:10])

    [error] = decoder.end()

    assert isinstance(error, ParseError)
    assert decoder.end() == []
