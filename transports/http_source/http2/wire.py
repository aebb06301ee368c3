"""
One HTTP/2 connection without its socket: h2 behind the frame gate, and what waits to be written. Pure.

h2's own idea of our limits is left wide open where ours is kept by the caller: it would end the connection over a
stream too many, which a client that has not seen our settings yet may well open.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final, final

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import Event
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings
from hpack.exceptions import HPACKError

from sluiceway.pipeline.model.options import KIB

from ..edge import MAX_HEAD
from .frames import FrameGate, FrameRefused, goaway_frame, ping_frame, settings_frame

CONNECTION_WINDOW: Final = 1024 * 1024
"""Bytes of request bodies that may wait on one connection; of each of its streams, 64 KiB."""
MAX_PIECE: Final = 16 * 1024
"""Bytes of a response that go into one DATA frame."""
HIGH_WATER: Final = 64 * 1024
"""Bytes that wait for the socket, above which responses wait."""
HEARD_ANSWERS: Final = b"answered"
HEARD_GOAWAY: Final = b"draining"
"""What our PINGs ask, and their answers tell."""

_EARNED_BY_KIB: Final = 4
_EARNED_BY_ANSWER: Final = 4
"""Frames that carry nothing which a client may send for what it is sent: it has two windows to open."""
_NO_PRIORITIES: Final = 9
"""SETTINGS_NO_RFC7540_PRIORITIES (RFC 9218): nothing here heeds them."""
_LAST_ID: Final = 2**31 - 1
_CONFIG: Final = H2Configuration(
    client_side=False,
    header_encoding=None,
    validate_inbound_headers=False,  # `fields` does, and ends one request over it instead of all
    normalize_inbound_headers=False,
    validate_outbound_headers=False,
    normalize_outbound_headers=False,
)

Fields = list[tuple[bytes, bytes]]


class _Connection(H2Connection):
    MAX_CLOSED_STREAMS = 1000  # of 65,536: how each of them was closed is remembered for as long as a connection lives


@final
class Wire:
    """
    The server's side of a connection.

    Args:
        max_streams: Requests that may be open at once, as the client is told; who opens more is the caller's to refuse.
    """

    def __init__(self, max_streams: int) -> None:
        self.gate = FrameGate(max_streams)
        self.over = False
        """Whether GOAWAY was said for good. What is said after that comes to nothing."""
        self._h2 = _Connection(config=_CONFIG)
        self._h2.local_settings = Settings(client=False, initial_values={SettingCodes.MAX_CONCURRENT_STREAMS: _LAST_ID})
        self._h2.initiate_connection()
        self._h2.clear_outbound_data_buffer()
        self._out = bytearray(
            settings_frame(
                {
                    SettingCodes.MAX_CONCURRENT_STREAMS: max_streams,
                    SettingCodes.MAX_HEADER_LIST_SIZE: MAX_HEAD,
                    _NO_PRIORITIES: 1,
                }
            )
        )
        self._h2.increment_flow_control_window(CONNECTION_WINDOW - self._h2.inbound_flow_control_window)
        self._collect()

    @property
    def pending(self) -> int:
        """Bytes that wait to be written."""
        return len(self._out)

    def take(self) -> bytes:
        """What is to be written now."""
        data = bytes(self._out)
        self._out.clear()
        return data

    def receive(self, data: bytes, now: float) -> list[Event]:
        """
        Take what was received.

        Args:
            data: As it came.
            now: Seconds on a clock that never goes back.

        Returns:
            What the client said, up to what the gate refused, if it did.

        Raises:
            FrameRefused: The connection must end, for what h2 found; the client is told by what waits to be written.
        """
        try:
            return self._h2.receive_data(self.gate.feed(data, now))
        except ProtocolError as error:  # h2 has put its GOAWAY behind what it had to say
            self.over = True
            code = ErrorCodes(error.error_code)
            if code is ErrorCodes.PROTOCOL_ERROR and isinstance(
                error.__cause__, HPACKError
            ):  # RFC 9113 section 4.3; h2 4.4 says PROTOCOL_ERROR
                code = ErrorCodes.COMPRESSION_ERROR
                self._out += self._h2.data_to_send()[: -len(goaway_frame(0, 0))]
                self._out += goaway_frame(self._h2.highest_inbound_stream_id, code)
            raise FrameRefused(code, str(error)) from error
        finally:
            self._collect()

    def room(self, stream_id: int) -> int:
        """Bytes of a response that the client lets us send now."""
        with suppress(ProtocolError):
            return int(self._h2.local_flow_control_window(stream_id))
        return 0

    def send_head(self, stream_id: int, fields: Fields, *, last: bool = False) -> None:
        """Begin a response, or say something ahead of it. Nothing happens if the stream is closed."""
        if not self.over:
            with suppress(ProtocolError):
                self._h2.send_headers(stream_id, fields, end_stream=last)
            self._collect()

    def send_body(self, stream_id: int, data: bytes | memoryview, *, last: bool) -> None:
        """Send a piece of a response, no more than there is room for. Nothing happens if the stream is closed."""
        if not self.over:
            with suppress(ProtocolError, KeyError):  # h2 has forgotten about a stream that was closed
                self._h2.send_data(stream_id, data, end_stream=last)
            self._collect()
            self.gate.chatter.earn(_EARNED_BY_KIB * len(data) / KIB + _EARNED_BY_ANSWER * last)

    def consume(self, stream_id: int, size: int) -> None:
        """Let the client send as many bytes more: so many of what it sent were taken, or dropped."""
        if size and not self.over:
            with suppress(ProtocolError):
                self._h2.acknowledge_received_data(size, stream_id)
            self._collect()

    def reset(self, stream_id: int, code: ErrorCodes) -> None:
        """End a stream. Nothing happens if it is closed."""
        if not self.over:
            with suppress(ProtocolError):
                self._h2.reset_stream(stream_id, code)
            self._collect()

    def announce_end(self) -> None:
        """
        Ask the client for no more requests, without saying which was the last (RFC 9113 section 6.8).

        Requests that are on their way are still served. When the client has answered the PING that goes with it, there
        are no more of them.
        """
        if not self.over:
            self._out += goaway_frame(_LAST_ID, ErrorCodes.NO_ERROR)
            self.ping(HEARD_GOAWAY)

    def ping(self, opaque: bytes) -> None:
        """Ask the client to send eight bytes back, which it does behind whatever it says to what was sent before."""
        if not self.over:
            self._out += ping_frame(opaque)

    def end(self, code: ErrorCodes) -> None:
        """Say GOAWAY for good. Idempotent."""
        if not self.over:
            self.over = True
            self._out += goaway_frame(self._h2.highest_inbound_stream_id, code)

    def _collect(self) -> None:
        self._out += self._h2.data_to_send()
