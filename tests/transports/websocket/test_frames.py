"""Frames without sockets: whole messages, bounds in bytes, and the close frame for what is wrong."""

from __future__ import annotations

import sys

import pytest
from wsproto import ConnectionType
from wsproto.events import AcceptConnection, CloseConnection, Event, Ping, RejectConnection, Request

from sluiceway.transports.websocket.frames import Frames, Texts

HEADERS = [
    (b"host", b"localhost"),
    (b"connection", b"upgrade"),
    (b"upgrade", b"websocket"),
    (b"sec-websocket-version", b"13"),
    (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="),
]


def opened(max_message: int = 1000) -> Frames:
    """A server's end that has accepted."""
    frames = Frames(ConnectionType.SERVER, max_message)
    frames.initiate_upgrade_connection(HEADERS, "/")
    assert [type(event) for event in frames.events()] == [Request]
    frames.send(AcceptConnection())
    return frames


def frame(payload: bytes, opcode: int = 1, *, last: bool = True, masked: bool = True) -> bytes:
    """A frame of up to 65535 bytes, masked with zeros as a client must."""
    mask = 0x80 if masked else 0
    size = bytes([mask | len(payload)]) if len(payload) < 126 else bytes([mask | 126]) + len(payload).to_bytes(2, "big")
    return bytes([(0x80 if last else 0) | opcode]) + size + bytes(4 if masked else 0) + payload


def heard(frames: Frames, *pieces: bytes) -> list[Event | bytes]:
    """What comes of bytes that arrive in pieces: events, and behind those of each piece its messages."""
    events: list[Event | bytes] = []
    for piece in pieces:
        frames.receive_data(piece)
        events.extend(frames.events())
        while frames.held:
            events.append(frames.take())
    return events


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_a_message_is_one_event_however_it_is_cut(size: int) -> None:
    """Into frames by the peer, into segments by the network, through the middle of a character."""
    text = "h\u00e9llo \U0001f600".encode()
    data = b"".join(frame(text[i : i + 1], 1 if i == 0 else 0, last=i == len(text) - 1) for i in range(len(text)))
    events = heard(opened(), *(data[i : i + size] for i in range(0, len(data), size)))

    assert events == [text]


def test_text_and_binary_come_out_alike() -> None:
    """Both are bytes; a ping between the frames of a message is seen at once."""
    data = frame(b"a", last=False) + frame(b"!", 9) + frame(b"b", 0) + frame(b"\xff", 2)

    assert heard(opened(), data) == [Ping(payload=b"!"), b"ab", b"\xff"]


@pytest.mark.parametrize("cut", [False, True])
def test_bytes_are_counted_and_one_too_many_is_1009(cut: bool) -> None:
    """Two bytes of UTF-8 are two; what comes behind is not looked at."""
    exact, over = "\u00e9" * 500, "\u00e9" * 501
    frames = opened(1000)
    assert len(heard(frames, frame(exact.encode()))) == 1
    pieces = [frame(over.encode()[:900], last=False), frame(over.encode()[900:], 0)] if cut else [frame(over.encode())]
    events = heard(frames, *pieces, frame(b"later"), frame(b"", 9))

    assert events == []
    assert frames.failure is not None
    assert frames.failure[0] == 1009
    assert frames.last_word[:1] == b"\x88"
    assert int.from_bytes(frames.last_word[2:4], "big") == 1009


def test_a_message_in_many_tiny_frames_costs_what_it_holds() -> None:
    """Frames of one character, and of none at all, leave no objects behind."""
    frames = opened(1_000_000)
    heard(frames, frame(b"", last=False))
    heard(frames, *(frame("\u20ac".encode(), 0, last=False) for _ in range(2000)))
    heard(frames, *(frame(b"", 0, last=False) for _ in range(2000)))

    assert len(frames._parts) == 6000
    assert sys.getsizeof(frames._parts) < 20_000


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(b"\xff"), 1007),
        (frame(b"x", 3), 1002),
        (frame(b"x", 0), 1002),
        (frame(b"x", masked=False), 1002),
        (bytes([0xC1, 0x80]) + bytes(4), 1002),
    ],
)
def test_what_breaks_the_protocol_is_answered_with_its_code(data: bytes, code: int) -> None:
    """Invalid UTF-8, unknown opcodes, continuations of nothing, frames without a mask, bits of extensions."""
    frames = opened()

    assert heard(frames, data) == []
    assert frames.failure is not None
    assert frames.failure[0] == code
    assert int.from_bytes(frames.last_word[2:4], "big") == code


def test_a_peers_close_frame_is_passed_on_and_a_second_of_ours_is_empty() -> None:
    """Nothing can be said behind a close frame."""
    frames = opened()
    events = heard(frames, frame((1000).to_bytes(2, "big") + b"bye", 8))

    assert events == [CloseConnection(code=1000, reason="bye")]
    assert frames.close_frame(1000, "") != b""
    assert frames.close_frame(1000, "") == b""


def test_messages_leave_together_and_arrive_one_by_one() -> None:
    """Each in a frame of its own; what is held counts until it is taken, or dropped."""
    ours = opened()
    data = ours.send(Texts([b"a", "\u00e9".encode(), b""]))

    assert data == b"\x81\x01a\x81\x02\xc3\xa9\x81\x00"
    theirs = opened()
    theirs.receive_data(frame(b"a") + frame(b"") + frame(b"c"))
    assert list(theirs.events()) == []
    held = theirs.held
    assert [theirs.take(), theirs.take()] == [b"a", b""]
    assert 0 < theirs.held < held
    theirs.drop()
    assert theirs.held == 0


def test_the_body_of_a_refusal_is_not_kept() -> None:
    """It has no bound, and nobody reads it."""
    frames = Frames(ConnectionType.CLIENT, 1000)
    frames.send(Request(host="h", target="/"))
    (refused,) = heard(frames, b"HTTP/1.1 403 No\r\ncontent-length: 5\r\n\r\nhello")

    assert isinstance(refused, RejectConnection)
    assert (refused.status_code, refused.has_body) == (403, False)
