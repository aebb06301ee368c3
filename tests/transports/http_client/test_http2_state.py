"""
What a client does with what a server sends, frame by frame, without I/O: the behaviour that RFC 9113 asks for, as rows.

Where the RFC allows a stream error or a connection error (section 5.4.1), the row has what is done here.
"""

from __future__ import annotations

from collections.abc import Sequence

import hpack
import pytest
from h2.errors import ErrorCodes
from hyperframe.frame import (
    AltSvcFrame,
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from sluiceway.transports.http_client.connection import PeerGone
from sluiceway.transports.http_client.http2_state import CONNECTION_WINDOW, MAX_STREAMS, STREAM_WINDOW, Http2State
from sluiceway.transports.http_client.http2_stream import Http2Stream, MalformedHttp2, fields_of

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FIELDS = fields_of(b"POST /mcp HTTP/1.1\r\nhost: up\r\n", b"", 0, b"http")


def frames_in(data: bytes) -> list[Frame]:
    """What a client said, without its preface."""
    data = data.removeprefix(PREFACE)
    found = []
    while data:
        frame, length = Frame.parse_frame_header(memoryview(data[:9]))
        frame.parse_body(memoryview(data[9 : 9 + length]))
        found.append(frame)
        data = data[9 + length :]
    return found


def block(*fields: tuple[str, str], status: str | None = "200") -> bytes:
    """A field section, without use of the table."""
    encoder = hpack.Encoder()
    return encoder.encode([*([(":status", status)] if status else []), *fields])


def head(stream_id: int = 1, *fields: tuple[str, str], status: str | None = "200", ends: bool = False) -> HeadersFrame:
    return HeadersFrame(stream_id, block(*fields, status=status), flags=["END_HEADERS"] + ["END_STREAM"] * ends)


def wire(*frames: Frame | bytes) -> bytes:
    return b"".join(frame if isinstance(frame, bytes) else frame.serialize() for frame in frames)


def raw(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    """A frame that no library would write."""
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream_id.to_bytes(4) + payload


def started(settings_: dict[int, int] | None = None) -> tuple[Http2State, Http2Stream]:
    """A connection with one request on it, all said."""
    state = Http2State()
    state.take_output()
    state.receive(SettingsFrame(0, settings=settings_ or {}).serialize())
    stream = state.open(FIELDS, lambda: None, has_content=False)
    state.take_output()
    return state, stream


def test_the_preface_forbids_push_and_says_how_much_may_come():
    """Section 3.4 and 6.5.2."""
    said = frames_in(Http2State().take_output())

    assert isinstance(said[0], SettingsFrame)
    assert said[0].settings[SettingsFrame.ENABLE_PUSH] == 0
    assert said[0].settings[SettingsFrame.INITIAL_WINDOW_SIZE] == STREAM_WINDOW
    assert said[0].settings[SettingsFrame.MAX_HEADER_LIST_SIZE] == 65536
    assert isinstance(said[1], WindowUpdateFrame)
    assert said[1].window_increment + 65535 == CONNECTION_WINDOW


CONNECTION_ERRORS: dict[str, tuple[Sequence[Frame | bytes], ErrorCodes]] = {
    "4.1 not frames at all": ([b"HTTP/1.1 400 Bad Request\r\n\r\n"], ErrorCodes.FRAME_SIZE_ERROR),
    "4.2 a frame too long": ([raw(0, 0, 1, bytes(16385))], ErrorCodes.FRAME_SIZE_ERROR),
    "4.2 a GOAWAY too long": ([raw(7, 0, 0, bytes(16385))], ErrorCodes.FRAME_SIZE_ERROR),
    "4.3 a head that cannot be decompressed": (
        [raw(1, 4, 1, b"\xff\xff\xff\xff\xff\xff\xff\xff")],
        ErrorCodes.PROTOCOL_ERROR,
    ),
    "5.1 DATA on a stream never opened": ([DataFrame(3, b"x")], ErrorCodes.PROTOCOL_ERROR),
    "5.1 a head on a stream never opened": ([head(3)], ErrorCodes.PROTOCOL_ERROR),
    "5.1.1 a stream of the peer's own": ([head(2)], ErrorCodes.PROTOCOL_ERROR),
    "6.1 DATA on the connection": ([raw(0, 0, 0, b"x")], ErrorCodes.PROTOCOL_ERROR),
    "6.1 padding longer than the frame": ([raw(0, 8, 1, b"\x09abc")], ErrorCodes.PROTOCOL_ERROR),
    "6.2 a head on the connection": ([raw(1, 4, 0, block())], ErrorCodes.PROTOCOL_ERROR),
    "6.4 RST_STREAM on the connection": ([raw(3, 0, 0, bytes(4))], ErrorCodes.PROTOCOL_ERROR),
    "6.4 RST_STREAM of a wrong length": ([raw(3, 0, 1, bytes(3))], ErrorCodes.FRAME_SIZE_ERROR),
    "6.5 SETTINGS on a stream": ([raw(4, 0, 1, b"")], ErrorCodes.PROTOCOL_ERROR),
    "6.5 SETTINGS of a wrong length": ([raw(4, 0, 0, bytes(5))], ErrorCodes.FRAME_SIZE_ERROR),
    "6.5 an ACK with settings": ([raw(4, 1, 0, bytes(6))], ErrorCodes.PROTOCOL_ERROR),
    "6.5.2 a window above the maximum": (
        [SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 2**31})],
        ErrorCodes.FLOW_CONTROL_ERROR,
    ),
    "6.5.2 a frame size below the minimum": (
        [SettingsFrame(0, settings={SettingsFrame.MAX_FRAME_SIZE: 100})],
        ErrorCodes.PROTOCOL_ERROR,
    ),
    "6.6 a push": ([PushPromiseFrame(1, 2, block(), flags=["END_HEADERS"])], ErrorCodes.PROTOCOL_ERROR),
    "6.7 PING on a stream": ([raw(6, 0, 1, bytes(8))], ErrorCodes.PROTOCOL_ERROR),
    "6.7 PING of a wrong length": ([raw(6, 0, 0, bytes(7))], ErrorCodes.FRAME_SIZE_ERROR),
    "6.9 a window opened by nothing": ([raw(8, 0, 0, bytes(4))], ErrorCodes.PROTOCOL_ERROR),
    "6.9 WINDOW_UPDATE of a wrong length": ([raw(8, 0, 0, bytes(3))], ErrorCodes.FRAME_SIZE_ERROR),
    "6.9.1 the connection's window above the maximum": (
        [WindowUpdateFrame(0, window_increment=2**31 - 1)],
        ErrorCodes.FLOW_CONTROL_ERROR,
    ),
    "6.9.1 more than the stream's window": (
        [head(1), *[DataFrame(1, bytes(16384))] * 9],
        ErrorCodes.FLOW_CONTROL_ERROR,
    ),
    "6.10 CONTINUATION of nothing": ([ContinuationFrame(1, b"")], ErrorCodes.PROTOCOL_ERROR),
    "6.10 something else within a head": (
        [HeadersFrame(1, block()[:1]), PingFrame(0, bytes(8))],
        ErrorCodes.PROTOCOL_ERROR,
    ),
    "6.10 a head of another stream within a head": (
        [HeadersFrame(1, block()[:1]), ContinuationFrame(3, block()[1:], flags=["END_HEADERS"])],
        ErrorCodes.PROTOCOL_ERROR,
    ),
    "8.1 DATA before the head": ([DataFrame(1, b"x")], ErrorCodes.PROTOCOL_ERROR),
    "8.1.1 content longer than its length": (
        [head(1, ("content-length", "1")), DataFrame(1, b"xy")],
        ErrorCodes.PROTOCOL_ERROR,
    ),
    "8.1.1 content shorter than its length": (
        [head(1, ("content-length", "3")), DataFrame(1, b"xy", flags=["END_STREAM"])],
        ErrorCodes.PROTOCOL_ERROR,
    ),
    "10.5.1 a head too large": (
        [HeadersFrame(1, block()), *[ContinuationFrame(1, block(("y", "v" * 15000), status=None))] * 10,
         ContinuationFrame(1, b"", flags=["END_HEADERS"])],
        ErrorCodes.ENHANCE_YOUR_CALM,
    ),
    "10.5.1 a head of endless parts": (
        [HeadersFrame(1, block()), *[ContinuationFrame(1, b"")] * 100],
        ErrorCodes.PROTOCOL_ERROR,
    ),
}  # fmt: skip


@pytest.mark.parametrize("row", CONNECTION_ERRORS)
def test_what_breaks_the_rules_ends_the_connection(row):
    """With a GOAWAY that says why; nothing may be said afterwards."""
    frames, code = CONNECTION_ERRORS[row]
    state, stream = started()

    with pytest.raises(MalformedHttp2) as caught:
        state.receive(wire(*frames))

    goaway = frames_in(state.take_output())[-1]
    assert isinstance(goaway, GoAwayFrame)
    assert ErrorCodes(goaway.error_code) == code
    assert state.broken
    assert str(caught.value)
    state.lose("broke the rules")
    assert isinstance(stream.failure, PeerGone) or stream.complete
    with pytest.raises(PeerGone):
        state.open(FIELDS, lambda: None, has_content=False)
    state.ping()
    state.forget(stream)
    state.say_goodbye()
    assert state.take_output() == b""


STREAM_ERRORS: dict[str, HeadersFrame] = {
    "8.2.1 a name in capitals": head(1, ("X-Key", "v")),
    "8.2.1 a name that is no token": head(1, ("x key", "v")),
    "8.2.1 no name": head(1, ("", "v")),
    "8.2.1 a line end in a value": head(1, ("x-key", "v\r\nset-cookie: a")),
    "8.2.1 a nought in a value": head(1, ("x-key", "v\0")),
    "8.2.2 a field of HTTP/1.1": head(1, ("connection", "close")),
    "8.3 an unknown pseudo-field": head(1, (":x", "1")),
    "8.3 a pseudo-field after others": head(1, ("a", "b"), (":status", "200"), status=None),
    "8.3 a status that stands twice": head(1, (":status", "200")),
    "8.3.2 no status": head(1, ("a", "b"), status=None),
    "8.3.2 a status that is none": head(1, status="ok"),
    "8.6 a switch of protocols": head(1, status="101"),
}


@pytest.mark.parametrize("row", STREAM_ERRORS)
def test_a_malformed_response_ends_its_stream_alone(row):
    """Section 8.1.1: with PROTOCOL_ERROR."""
    state, stream = started()
    other = state.open(FIELDS, lambda: None, has_content=False)
    state.take_output()

    state.receive(wire(STREAM_ERRORS[row], head(3, ends=True)))

    (reset,) = frames_in(state.take_output())
    assert isinstance(reset, RstStreamFrame)
    assert (reset.stream_id, reset.error_code) == (1, ErrorCodes.PROTOCOL_ERROR)
    assert isinstance(stream.failure, MalformedHttp2)
    assert (stream.head, other.complete, state.broken) == (None, True, False)


@pytest.mark.parametrize(
    "frame",
    [raw(7, 0, 1, bytes(8)), raw(7, 0, 0, bytes(7))],
    ids=["6.8 on a stream", "6.8 too short"],
)
def test_a_goaway_that_cannot_be_ends_the_connection(frame):
    """It never reaches h2."""
    state, _ = started()
    with pytest.raises(MalformedHttp2, match="GOAWAY"):
        state.receive(frame)
    assert state.broken


def test_what_h2_stumbles_over_ends_the_connection_only(monkeypatch):
    """Whatever it raises."""
    state, _ = started()

    def stumbles(frame: bytes) -> None:
        raise KeyError("oops")

    monkeypatch.setattr(state._h2, "receive_data", stumbles)
    with pytest.raises(MalformedHttp2, match=r"it cannot be read \(KeyError: 'oops'\)"):
        state.receive(head(1).serialize())
    assert state.broken


HARMLESS: dict[str, Sequence[Frame | bytes]] = {
    "4.1 frames of unknown kinds": [raw(0xEE, 0xFF, 0, b"x"), raw(0xEF, 0, 1, b"y")],
    "4.1 undefined flags": [raw(6, 0xFE, 0, bytes(8))],
    "5.3 PRIORITY": [PriorityFrame(1, depends_on=0, stream_weight=1), PriorityFrame(7, depends_on=1)],
    "6.4 RST_STREAM of a stream that was reset": [RstStreamFrame(1, error_code=8)],
    "6.4 RST_STREAM of a stream never opened (h2 is lenient)": [RstStreamFrame(5)],
    "5.1 DATA after the end (h2 is lenient)": [head(3), DataFrame(3, b"ok", flags=["END_STREAM"]), DataFrame(3, b"x")],
    "6.5.2 unknown settings": [SettingsFrame(0, settings={0xEE: 5})],
    "6.9 a window of a stream that was reset": [WindowUpdateFrame(1, window_increment=5)],
    "6.1 DATA for a stream that was reset": [DataFrame(1, b"x"), DataFrame(1, b"y", flags=["END_STREAM"])],
    "8.1 a head for a stream that was reset": [head(1), HeadersFrame(1, block(status=None), flags=["END_HEADERS"])],
    "RFC 7838 ALTSVC": [AltSvcFrame(0, b"http://up", b'h3=":1"')],
    "8.3 a pseudo-field among the trailers": [
        head(3),
        DataFrame(3, b"ok"),
        HeadersFrame(3, block(), flags=["END_HEADERS", "END_STREAM"]),
    ],
    "an empty DATA": [head(3), DataFrame(3, b""), DataFrame(3, b"")],
}


@pytest.mark.parametrize("row", HARMLESS)
def test_what_means_nothing_is_read_over(row):
    """One stream was just reset; the next one is answered."""
    state, first = started()
    second = state.open(FIELDS, lambda: None, has_content=False)
    state.forget(first)
    assert second.id == 3
    opened = [frame for frame in HARMLESS[row] if isinstance(frame, HeadersFrame) and frame.stream_id == 3]

    state.receive(wire(*HARMLESS[row]))
    if not second.complete:
        state.receive(wire(*([] if opened else [head(3)]), DataFrame(3, b"ok", flags=["END_STREAM"])))

    assert (second.take(), second.complete, state.broken) == (b"ok", True, False)
    assert not any(isinstance(frame, GoAwayFrame) for frame in frames_in(state.take_output()))


def test_what_came_before_a_broken_frame_counts():
    """Also in the same piece."""
    state, stream = started()
    with pytest.raises(MalformedHttp2):
        state.receive(wire(head(1), DataFrame(1, b"whole", flags=["END_STREAM"]), raw(0, 0, 0, b"x")))
    state.lose("broke the rules")

    assert (stream.take(), stream.complete, stream.failure) == (b"whole", True, None)


@pytest.mark.parametrize("cut", range(1, 60))
def test_bytes_may_be_cut_anywhere(cut):
    """Frames are put together again."""
    state, stream = started()
    data = wire(head(1, ("a", "b")), DataFrame(1, b"body"), GoAwayFrame(0, last_stream_id=1), head(1, ("t", "u"), status=None, ends=True))  # fmt: skip  # noqa: E501
    for at in range(0, len(data), cut):
        state.receive(data[at : at + cut])

    assert stream.head is not None
    assert (stream.head.status, stream.take(), stream.complete) == (200, b"body", True)
    assert state.goaway is not None


def test_pings_are_answered_and_settings_acknowledged():
    """At once (sections 6.5.3 and 6.7)."""
    state, _ = started()
    state.receive(
        wire(PingFrame(0, b"12345678"), SettingsFrame(0, settings={1: 100}), PingFrame(0, bytes(8), flags=["ACK"]))
    )

    said = frames_in(state.take_output())
    assert [(type(frame), "ACK" in frame.flags) for frame in said] == [(PingFrame, True), (SettingsFrame, True)]
    assert said[0].opaque_data == b"12345678"


def test_a_peer_that_asks_and_does_not_read_the_answers_is_cut():
    """They are bounded, though nothing is taken (CVE-2019-9512, CVE-2019-9515)."""
    state, _ = started()
    much = wire(*[PingFrame(0, bytes(8))] * 1000)
    for _ in range(3):
        state.receive(much)
    with pytest.raises(MalformedHttp2, match="leaves 65536 bytes of answers unread"):
        state.receive(much)
    assert state.unsent < 70_000


def test_a_peer_that_asks_much_and_reads_is_answered():
    """Only what it leaves unread counts."""
    state, _ = started()
    for _ in range(1000):
        state.receive(wire(*[PingFrame(0, bytes(8))] * 10))
        state.take_output()
    assert not state.broken


def test_the_table_of_the_compression_stays_small_whatever_the_peer_allows():
    """RFC 7541 section 4.2: it is a maximum."""
    state, _ = started({SettingsFrame.HEADER_TABLE_SIZE: 2**30})
    for number in range(2000):
        fields = fields_of(b"POST / HTTP/1.1\r\nhost: up\r\nx-id: %050d\r\n" % number, b"", 0, b"http")
        state.forget(state.open(fields, lambda: None, has_content=False))

    assert state._h2.encoder.header_table.maxsize == 4096


@pytest.mark.parametrize(("allowed", "expected"), [(None, MAX_STREAMS), (5, 5), (2**31, MAX_STREAMS), (0, 0)])
def test_the_peer_says_how_many_requests_at_a_time_and_so_do_we(allowed, expected):
    """The lesser of both."""
    state = Http2State()
    state.receive(
        SettingsFrame(
            0, settings={} if allowed is None else {SettingsFrame.MAX_CONCURRENT_STREAMS: allowed}
        ).serialize()
    )
    assert state.max_streams == expected


def test_a_request_too_many_is_not_sent():
    """A limit that was lowered a moment ago."""
    state = Http2State()
    state.receive(SettingsFrame(0, settings={SettingsFrame.MAX_CONCURRENT_STREAMS: 0}).serialize())
    with pytest.raises(PeerGone) as caught:
        state.open(FIELDS, lambda: None, has_content=False)
    assert caught.value.unsent
    assert state.streams == {}


def test_a_goaway_cannot_promise_more_than_the_one_before():
    """Section 6.8: the last stream may only fall."""
    state, stream = started()
    state.receive(GoAwayFrame(0, last_stream_id=0).serialize())
    assert stream.failure is not None
    state.receive(GoAwayFrame(0, last_stream_id=9).serialize())
    assert state.goaway is not None
    assert state.goaway.last_stream_id == 0
    state.receive(GoAwayFrame(0, last_stream_id=0, error_code=2).serialize())
    assert state.goaway.code == 2


def test_a_stream_whose_window_overflows_is_reset_alone():
    """Section 6.9.1."""
    state, stream = started()
    other = state.open(FIELDS, lambda: None, has_content=False)
    state.receive(WindowUpdateFrame(1, window_increment=2**31 - 1).serialize())

    assert isinstance(stream.failure, PeerGone)
    assert not stream.failure.unsent
    assert (other.failure, state.broken) == (None, False)
    assert [frame.error_code for frame in frames_in(state.take_output()) if isinstance(frame, RstStreamFrame)] == [3]


def test_bytes_for_streams_that_are_gone_are_given_back():
    """Else a connection would run dry by and by."""
    state, stream = started()
    state.receive(head(1).serialize())
    state.forget(stream)
    for _ in range(4 * CONNECTION_WINDOW // 16384):
        state.receive(DataFrame(1, bytes(8000)).serialize())
        state.take_output()
        assert state._h2.inbound_flow_control_window > CONNECTION_WINDOW // 4


kinds = st.sampled_from(range(12))
rubbish = st.builds(raw, kinds, st.integers(0, 255), st.integers(0, 9), st.binary(max_size=40))


@given(
    st.lists(st.one_of(rubbish, st.sampled_from([wire(head(1)), wire(DataFrame(1, b"x")), wire(head(3, ends=True))])))
)
@settings(max_examples=300, deadline=None)
def test_rubbish_ends_a_connection_and_nothing_worse(pieces):
    """Whatever comes, there is either an answer or a `MalformedHttp2`."""
    state, stream = started()
    other = state.open(FIELDS, lambda: None, has_content=False)
    try:
        for piece in pieces:
            state.receive(piece)
            state.wake_senders()
            stream.take()
            state.credit(stream)
    except MalformedHttp2:
        assert state.broken
    state.take_output()
    for each in (stream, other):
        state.forget(each)
    state.say_goodbye()
    state.lose("left")
    assert state.streams == {}


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_bytes_that_are_no_frames_are_refused(data):
    """Or waited for, if they might become some."""
    state = Http2State()
    try:
        state.receive(data)
    except MalformedHttp2:
        assert state.broken


@pytest.mark.parametrize("size", [0, 1, 1000, 16384, 16385, 65535, 65536, 200_000])
def test_content_goes_out_in_frames_that_the_peer_takes(size):
    """As its windows, and the room in front of the transport, allow."""
    state = Http2State()
    state.receive(SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 2**20}).serialize())
    state.receive(WindowUpdateFrame(0, window_increment=2**20).serialize())
    state.take_output()
    woken = 0

    def wake() -> None:
        nonlocal woken
        woken += 1

    stream = state.open(FIELDS, wake, has_content=size > 0)
    rest, sent = memoryview(bytes(size)), b""
    while rest:
        rest = rest[state.send(stream, rest) :]
        assert state.unsent <= 64 * 1024 + 200
        assert stream.waits_for_window is bool(rest)
        sent += state.take_output()
        assert stream.left is not bool(rest)
        state.wake_senders()
    sent += state.take_output()

    data = [frame for frame in frames_in(sent) if isinstance(frame, DataFrame)]
    assert sum(len(frame.data) for frame in data) == size
    assert all(len(frame.data) <= 16384 for frame in data)
    assert stream.left
    assert (woken > 0) is (size > 65000)


def test_fields_of_a_connection_are_not_sent_and_only_what_stays_the_same_is_indexed():
    """Section 8.2.2; of what stays the same, no secrets (RFC 7541 section 7.1.3)."""
    head = b"POST /p HTTP/1.1\r\nhost: up:8080\r\nUpgrade: h2c\r\nX-Same: 1\r\nAuthorization:  Bearer x \r\n"
    fields = fields_of(head, b"Keep-Alive: 5\r\nmcp-name: n\r\n", 3, b"https")

    assert [(*each, each.indexable) for each in fields] == [
        (b":method", b"POST", True),
        (b":scheme", b"https", True),
        (b":authority", b"up:8080", True),
        (b":path", b"/p", True),
        (b"x-same", b"1", True),
        (b"authorization", b"Bearer x", False),
        (b"mcp-name", b"n", False),
        (b"content-length", b"3", False),
    ]
