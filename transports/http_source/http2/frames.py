"""
The gate before h2: what is refused, dropped or counted frame by frame, before the library looks at it.

h2 4.4 does what RFC 9113 says, but trusts its peer with resources. It waits for a frame of 16 MiB before it finds that
too long, remembers every unknown setting, answers any number of pings, and forgets what it was to send when a client
says GOAWAY in mid-call. The gate knows frame headers and little more. Pure: bytes in, bytes out.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final, final

from h2.errors import ErrorCodes

from .budget import Budget

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MAX_FRAME: Final = 16 * 1024
"""Bytes of payload that a frame may have; the default of RFC 9113, and we never ask for more."""
MAX_BLOCK: Final = 64 * 1024
"""Bytes of one compressed header block, over all of its frames."""
MAX_CONTINUATIONS: Final = 16
"""Frames that may continue a header block."""
CHATTER_BURST: Final = 1000
CHATTER_PER_SECOND: Final = 100
"""Frames that carry nothing (PING, SETTINGS, PRIORITY, WINDOW_UPDATE, empty DATA, unknown): at once, and in the long
run. What is sent to a client earns it window updates on top."""
RESETS_PER_SECOND: Final = 20
"""Streams that may fail, or be cancelled, in the long run; twice as many as may be open at once (CVE-2023-44487)."""

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)

_HEAD: Final = 9
_END_STREAM = _ACK = 0x1
_END_HEADERS: Final = 0x4
_PADDED: Final = 0x8
_KNOWN_SETTINGS: Final = frozenset({1, 2, 3, 4, 5, 6, 8})
_HEADER_TABLE_SIZE: Final = 1
_MAX_TABLE: Final = 4096
"""Bytes that we remember of header fields for a client, however many it offers to."""
_CHATTER: Final = frozenset({PRIORITY, PING, WINDOW_UPDATE})


class FrameRefused(Exception):
    """
    The connection must end.

    Args:
        code: What the peer is told.
        reason: What an operator is told.
    """

    def __init__(self, code: ErrorCodes, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@final
class FrameGate:
    """
    The frames of one client, in order.

    Args:
        max_streams: Requests that may be open at once.
    """

    def __init__(self, max_streams: int) -> None:
        self.chatter = Budget(CHATTER_BURST, CHATTER_PER_SECOND)
        """For frames that carry nothing."""
        self.resets = Budget(2 * max(max_streams, 50), RESETS_PER_SECOND)
        """For streams that come to nothing."""
        self.goaway: int | None = None
        """The error code with which the client said GOAWAY; None as long as it did not."""
        self.greeted = False
        """Whether its preface has come, and the settings that are part of it."""
        self.refused: FrameRefused | None = None
        """Why nothing is taken any more."""
        self._preface = PREFACE
        self._buffer = bytearray()
        self._block: int | None = None
        """The stream whose header block is not complete; None if none is."""
        self._block_size = 0
        self._continuations = 0

    @property
    def heading(self) -> bool:
        """Whether a header block has begun and not ended."""
        return self._block is not None or (len(self._buffer) > 3 and self._buffer[3] == HEADERS)

    def feed(self, data: bytes, now: float) -> bytes:
        """
        Take what was received.

        Args:
            data: As it came, cut anywhere.
            now: Seconds on a clock that never goes back.

        Returns:
            Whole frames, for h2: those before the first that is `refused`.
        """
        passed = bytearray()
        try:
            passed += self._greet(data)
            self._pass_frames(passed, now)
        except FrameRefused as error:
            self.refused = error
        return bytes(passed)

    def _pass_frames(self, passed: bytearray, now: float) -> None:
        buffer = self._buffer
        start = 0
        while len(buffer) - start >= _HEAD:
            length = int.from_bytes(buffer[start : start + 3], "big")
            if length > MAX_FRAME:
                raise FrameRefused(ErrorCodes.FRAME_SIZE_ERROR, f"a frame of {length} bytes; {MAX_FRAME} are allowed")
            end = start + _HEAD + length
            if len(buffer) < end:
                break
            passed += self._examine(bytes(buffer[start:end]), now)
            start = end
        del buffer[:start]

    def _greet(self, data: bytes) -> bytes:
        """What of the data belongs to the preface; the rest goes where frames wait."""
        part = data[: len(self._preface)]
        if not self._preface.startswith(part):
            raise FrameRefused(ErrorCodes.PROTOCOL_ERROR, "it does not begin as HTTP/2 does")
        self._preface = self._preface[len(part) :]
        self._buffer += data[len(part) :]
        return part

    def _examine(self, frame: bytes, now: float) -> bytes:
        """What h2 gets to see of a frame: all of it, nothing, or what it should know."""
        kind, flags = frame[3], frame[4]
        stream_id = int.from_bytes(frame[5:9], "big") & 0x7FFFFFFF
        if not self.greeted:
            if kind != SETTINGS or flags & _ACK:
                raise FrameRefused(ErrorCodes.PROTOCOL_ERROR, "the first frame is not SETTINGS")
            self.greeted = True
        if (self._block is not None) != (kind == CONTINUATION) or (kind == CONTINUATION and self._block != stream_id):
            raise FrameRefused(ErrorCodes.PROTOCOL_ERROR, "a header block is interrupted, or continued out of place")
        if kind in (HEADERS, CONTINUATION):
            self._take_block(frame, kind, flags, stream_id)
        elif kind == PUSH_PROMISE:
            raise FrameRefused(ErrorCodes.PROTOCOL_ERROR, "clients do not push")
        elif kind == RST_STREAM:
            self.spend_reset(now)
        elif kind > CONTINUATION or kind in _CHATTER or (kind == DATA and _is_empty(frame, flags)):
            self._spend(now, 1.0)
        elif kind == SETTINGS:
            self._spend(now, 1.0 + len(frame) / 128)
            return _check_ack(frame) if flags & _ACK else _known_settings(frame)
        elif kind == GOAWAY and stream_id == 0 and len(frame) >= _HEAD + 8:
            self.goaway = int.from_bytes(frame[13:17], "big")
            return b""
        return frame if kind <= CONTINUATION else b""

    def _take_block(self, frame: bytes, kind: int, flags: int, stream_id: int) -> None:
        if kind == HEADERS:
            self._block, self._block_size, self._continuations = stream_id, 0, 0
        else:
            self._continuations += 1
        self._block_size += len(frame) - _HEAD
        if self._block_size > MAX_BLOCK or self._continuations > MAX_CONTINUATIONS:
            raise FrameRefused(ErrorCodes.ENHANCE_YOUR_CALM, "a header block without end")
        if flags & _END_HEADERS:
            self._block = None

    def spend_reset(self, now: float) -> None:
        """
        Count a stream that came to nothing, whoever reset it.

        Raises:
            FrameRefused: Too many of them.
        """
        if not self.resets.spend(now):
            raise FrameRefused(ErrorCodes.ENHANCE_YOUR_CALM, "too many streams come to nothing")

    def _spend(self, now: float, tokens: float) -> None:
        if not self.chatter.spend(now, tokens):
            raise FrameRefused(ErrorCodes.ENHANCE_YOUR_CALM, "too many frames that carry nothing")


def _is_empty(frame: bytes, flags: int) -> bool:
    """Whether DATA neither has a byte nor ends its stream."""
    length = len(frame) - _HEAD
    if flags & _PADDED and length:
        length -= 1 + frame[_HEAD]
    return length <= 0 and not flags & _END_STREAM


def _check_ack(frame: bytes) -> bytes:
    if len(frame) > _HEAD:
        raise FrameRefused(ErrorCodes.FRAME_SIZE_ERROR, "SETTINGS are acknowledged without any")
    return frame


def _known_settings(frame: bytes) -> bytes:
    """The frame without settings nobody knows, which h2 would keep, and without a table of a size it would fill."""
    if (len(frame) - _HEAD) % 6:
        return frame  # for h2 to refuse
    pairs = [(code, value) for code, value in struct.iter_unpack(">HI", frame[_HEAD:]) if code in _KNOWN_SETTINGS]
    known = b"".join(
        struct.pack(">HI", code, min(value, _MAX_TABLE) if code == _HEADER_TABLE_SIZE else value)
        for code, value in pairs
    )
    return len(known).to_bytes(3, "big") + frame[3:_HEAD] + known


def settings_frame(settings: Mapping[int, int]) -> bytes:
    """A SETTINGS frame (RFC 9113 section 6.5)."""
    payload = b"".join(struct.pack(">HI", *each) for each in settings.items())
    return _frame(SETTINGS, payload)


def ping_frame(opaque: bytes) -> bytes:
    """A PING frame (section 6.7) of eight bytes that come back."""
    return _frame(PING, opaque)


def goaway_frame(last_stream_id: int, code: int) -> bytes:
    """A GOAWAY frame (section 6.8)."""
    return _frame(GOAWAY, struct.pack(">II", last_stream_id, code))


def _frame(kind: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, 0)) + bytes(4) + payload
