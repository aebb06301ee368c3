"""
Where one HTTP/2 frame ends and the next begins (RFC 9113 section 4.1), without I/O.

h2 takes any bytes, but what it found in front of a broken frame of the same piece is lost with it, and after a GOAWAY
it takes nothing more at all, though the streams that the peer still serves go on (section 6.8). So it is given whole
frames, and never that one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, final

from attrs import frozen

HEADER: Final = 9
"""Bytes in front of the payload of every frame."""
MAX_FRAME: Final = 16 * 1024
"""Bytes of a payload: what peers may send unless they are told otherwise (section 6.5.2)."""
_GOAWAY: Final = 7
_PROTOCOL_ERROR: Final = 1
_FRAME_SIZE_ERROR: Final = 6
_STREAM_AND_CODE: Final = 8


class BrokenFrame(Exception):
    """
    A frame that cannot be.

    Args:
        text: How, as the end of a sentence.
        code: What to tell the peer (section 7).
    """

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


@final
@frozen
class GoAway:
    """A peer will serve no new streams."""

    last_stream_id: int
    """Streams above it were not and will not be looked at."""
    code: int
    """Zero if nothing is wrong (section 7)."""


def parse_goaway(frame: bytes) -> GoAway | None:
    """
    A whole frame, as a GOAWAY; None if it is another one.

    Raises:
        BrokenFrame: It is one that cannot be.
    """
    if frame[3] != _GOAWAY:
        return None
    if int.from_bytes(frame[5:9]) & 0x7FFFFFFF:
        raise BrokenFrame("a GOAWAY on a stream", _PROTOCOL_ERROR)
    if len(frame) < HEADER + _STREAM_AND_CODE:
        raise BrokenFrame("a GOAWAY that is too short", _FRAME_SIZE_ERROR)
    return GoAway(int.from_bytes(frame[9:13]) & 0x7FFFFFFF, int.from_bytes(frame[13:17]))


@final
class FrameSplitter:
    """Cuts a byte stream into frames. It holds one frame that is not whole yet, and no more."""

    def __init__(self) -> None:
        self._held = b""

    def split(self, data: bytes) -> Iterator[bytes]:
        """
        Take what was read; exhaust the iterator before the next call.

        Yields:
            Whole frames.

        Raises:
            BrokenFrame: The next frame has more than `MAX_FRAME` bytes; its payload is not waited for.
        """
        data = self._held + data if self._held else data
        at, size = 0, len(data)
        while size - at >= HEADER:
            length = int.from_bytes(data[at : at + 3])
            if length > MAX_FRAME:
                raise BrokenFrame(f"a frame of {length} bytes, where {MAX_FRAME} are allowed", _FRAME_SIZE_ERROR)
            end = at + HEADER + length
            if end > size:
                break
            yield data[at:end]
            at = end
        self._held = data[at:]
