"""
The client's side of an HTTP/2 connection, without I/O (RFC 9113), on the h2 package.

Windows. Each stream may hold as many bytes as its own window, which opens again as they are *consumed*. What all
streams together may send opens again as bytes *arrive*: a stream that nobody reads holds back itself, and no other, and
a connection holds no more than all its streams may.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    Event,
    InformationalResponseReceived,
    RemoteSettingsChanged,
    RequestReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import NoSuchStreamError, ProtocolError, TooManyStreamsError
from h2.settings import SettingCodes, Settings
from hpack import HeaderTuple

from sluiceway.pipeline.model.options import KIB, MIB

from .connection import PeerGone
from .http2_frames import MAX_FRAME, BrokenFrame, FrameSplitter, GoAway, parse_goaway
from .http2_stream import Http2Stream, MalformedHttp2, head_of
from .parser import MAX_HEAD

STREAM_WINDOW: Final = 128 * KIB
"""Bytes of one response that nobody has read yet, at most."""
CONNECTION_WINDOW: Final = 1 * MIB
"""Bytes under way on a connection, at most."""
MAX_STREAMS: Final = 100
"""Requests at the same time on one connection, whatever the peer allows: beyond that another connection is better."""
UNSENT: Final = 64 * KIB
"""Bytes of requests' content that wait for the transport; further ones stay with their exchanges."""
_MAX_ANSWERS: Final = 64 * KIB
"""Bytes of answers to what the peer asked of us (PING, SETTINGS) that it may leave unread."""
_TABLE: Final = 4096
"""Bytes of the header compression's table, however much more the peer allows (RFC 7541 section 4.2)."""
_DEFAULT_WINDOW: Final = 65535
_NOT_PROCESSED: Final = frozenset({ErrorCodes.REFUSED_STREAM, ErrorCodes.HTTP_1_1_REQUIRED})


@final
class Http2State:
    """
    A connection that has just been opened. What it has to say is in `take_output`, from the beginning on.

    Methods without an error of their own do nothing once the connection is `broken`.
    """

    def __init__(self) -> None:
        config = (
            H2Configuration(  # fields_of writes what is valid, head_of checks: what is not ends one stream, not all
                client_side=True,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
                validate_inbound_headers=False,
            )
        )
        self._h2 = H2Connection(config)
        self._h2.local_settings = Settings(
            client=True,
            initial_values={
                SettingCodes.ENABLE_PUSH: 0,
                SettingCodes.MAX_CONCURRENT_STREAMS: MAX_STREAMS,  # else h2 takes late frames of a reset stream amiss
                SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
                SettingCodes.MAX_FRAME_SIZE: MAX_FRAME,
                SettingCodes.MAX_HEADER_LIST_SIZE: MAX_HEAD,
            },
        )
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(CONNECTION_WINDOW - _DEFAULT_WINDOW)
        self._splitter = FrameSplitter()
        self._output = bytearray()
        self._answers = 0
        self._arrived = 0
        self._leaving: list[Http2Stream] = []
        self.streams: Final[dict[int, Http2Stream]] = {}
        """Those that somebody still wants something from."""
        self.settled = False
        """The peer has sent its settings: it speaks HTTP/2."""
        self.max_streams = MAX_STREAMS
        """Requests at the same time that the peer, and we, allow."""
        self.goaway: GoAway | None = None
        """The peer serves no new streams."""
        self.needs_http1 = False
        """The peer said that it wants HTTP/1.1 for what it was asked (section 7)."""
        self.broken = False
        """Nothing may be said any more."""
        self._collect()

    @property
    def unsent(self) -> int:
        """Bytes that wait for the transport."""
        return len(self._output)

    def take_output(self) -> bytes:
        """What is to be sent now; empty if nothing is."""
        data = bytes(self._output)
        self._output.clear()
        self._answers = 0
        for stream in self._leaving:
            stream.left = True
        self._leaving.clear()
        return data

    def open(self, fields: list[HeaderTuple], wake: Callable[[], None], *, has_content: bool) -> Http2Stream:
        """
        Begin a request.

        Raises:
            PeerGone: No new streams are served; nothing was sent.
        """
        if self.broken or self.goaway is not None:
            raise PeerGone(untouched=True, unsent=True)
        stream_id = self._h2.get_next_available_stream_id()
        try:
            self._h2.send_headers(stream_id, fields, end_stream=not has_content)
        except TooManyStreamsError as error:  # the peer has just lowered its limit
            raise PeerGone(untouched=True, unsent=True) from error
        stream = self.streams[stream_id] = Http2Stream(stream_id, wake)
        if not has_content:
            self._said_all(stream)
        self._collect()
        return stream

    def send(self, stream: Http2Stream, content: memoryview) -> int:
        """
        Send as much of a request's content as the peer takes now, and the transport may have waiting.

        Returns:
            Bytes that were sent. If not all were, the stream is woken when it is worth another try.
        """
        sent = 0
        while sent < len(content) and not (stream.closed or self.broken):
            room = min(self._h2.local_flow_control_window(stream.id), UNSENT - len(self._output))
            size = min(room, self._h2.max_outbound_frame_size, len(content) - sent)
            if size <= 0:
                stream.waits_for_window = True
                break
            ends = sent + size == len(content)
            self._h2.send_data(stream.id, content[sent : sent + size].tobytes(), end_stream=ends)
            if ends:
                self._said_all(stream)
            sent += size
            self._collect()
        return sent

    def wake_senders(self) -> None:
        """Whoever could not send everything may try again."""
        for stream in list(self.streams.values()):
            if stream.waits_for_window:
                stream.waits_for_window = False
                stream.wake()

    def credit(self, stream: Http2Stream) -> None:
        """Let the peer send as much as was consumed, once that is worth saying."""
        if stream.returned >= STREAM_WINDOW // 2 and not (stream.complete or stream.closed or self.broken):
            self._h2.increment_flow_control_window(stream.returned, stream.id)
            stream.returned = 0
            self._collect()

    def forget(self, stream: Http2Stream) -> None:
        """Nobody wants anything from a stream any more; the peer is told to stop unless it has finished."""
        self.streams.pop(stream.id, None)
        if not (stream.complete and stream.said_all) and not stream.closed and not self.broken:
            self._h2.reset_stream(stream.id, ErrorCodes.CANCEL)
            self._collect()
        stream.closed = True

    def ping(self) -> None:
        """Ask the peer for a sign of life."""
        if not self.broken:
            self._h2.ping(b"sluicewy")
            self._collect()

    def say_goodbye(self) -> None:
        """Say that nothing more will come (GOAWAY); the connection is `broken` from then on."""
        if not self.broken:
            self._h2.close_connection()
            self._collect()
            self.broken = True

    def lose(self, how: str) -> None:
        """The transport has ended: so have all streams. `how` is as in `PeerGone`."""
        self.broken = True
        for stream in list(self.streams.values()):
            stream.fail(PeerGone(untouched=stream.head is None, unsent=not stream.left, how=how))

    def receive(self, data: bytes) -> None:
        """
        Take what was read. Streams are woken as they are concerned.

        Raises:
            MalformedHttp2: It breaks the rules. The connection is `broken`; its output says so to the peer.
        """
        before = len(self._output)
        try:
            for frame in self._splitter.split(data):
                goaway = parse_goaway(frame)
                if goaway is not None:
                    self._goes_away(goaway)
                else:
                    for event in self._h2.receive_data(frame):
                        self._happened(event)
        except (ProtocolError, BrokenFrame) as error:
            if isinstance(error, BrokenFrame):
                self._h2.close_connection(error.code)
            self._collect()
            self.broken = True
            raise MalformedHttp2(_text_of(error)) from error
        except (
            Exception
        ) as error:  # a boundary: whatever h2 makes of what a peer sends ends its connection, not the sink
            self.broken = True
            raise MalformedHttp2(f"it cannot be read ({type(error).__name__}: {error})"[:200]) from error
        self._collect()
        self._answers += len(self._output) - before
        if self._answers > _MAX_ANSWERS:
            self.broken = True
            raise MalformedHttp2(f"it asks on and on, and leaves {_MAX_ANSWERS} bytes of answers unread")

    def _happened(self, event: Event) -> None:
        if isinstance(event, DataReceived):
            self._got_data(event)
        elif isinstance(event, RequestReceived):
            raise BrokenFrame("a stream that the peer has opened", ErrorCodes.PROTOCOL_ERROR)
        elif isinstance(event, WindowUpdated):
            self.wake_senders()
        elif isinstance(event, RemoteSettingsChanged):
            self._settle()
        elif isinstance(event, ResponseReceived | InformationalResponseReceived | StreamEnded | StreamReset):
            stream = self.streams.get(event.stream_id or 0)
            if stream is not None:
                self._concerns(stream, event)

    def _concerns(
        self, stream: Http2Stream, event: ResponseReceived | InformationalResponseReceived | StreamEnded | StreamReset
    ) -> None:
        if isinstance(event, StreamEnded):
            stream.complete = True
            stream.wake()
        elif isinstance(event, StreamReset):
            stream.fail(self._reset(stream, event))
        else:
            try:
                head = head_of(event.headers or ())
            except MalformedHttp2 as error:
                self._refuse(stream, error)
                return
            if isinstance(event, ResponseReceived):
                stream.head = head
                stream.wake()
            elif head.status == 101:
                self._refuse(stream, MalformedHttp2("it switches protocols, which HTTP/2 cannot"))

    def _got_data(self, event: DataReceived) -> None:
        size, data = event.flow_controlled_length or 0, event.data or b""
        self._arrived += size
        if self._arrived >= CONNECTION_WINDOW // 2:
            self._h2.increment_flow_control_window(self._arrived)
            self._arrived = 0
        stream = self.streams.get(event.stream_id or 0)
        if stream is not None:
            stream.put(data, size - len(data))

    def _reset(self, stream: Http2Stream, event: StreamReset) -> PeerGone:
        code = event.error_code
        if code == ErrorCodes.HTTP_1_1_REQUIRED:
            self.needs_http1 = True
        refused = code in _NOT_PROCESSED and stream.head is None
        return PeerGone(untouched=refused, unsent=refused, how=f"reset the stream ({_name_of(code)})")

    def _refuse(self, stream: Http2Stream, error: MalformedHttp2) -> None:
        """End a stream whose response makes no sense; the others go on."""
        if not stream.closed:
            self._h2.reset_stream(stream.id, ErrorCodes.PROTOCOL_ERROR)
        stream.fail(error)

    def _goes_away(self, goaway: GoAway) -> None:
        earlier = self.goaway
        if earlier is not None and goaway.last_stream_id > earlier.last_stream_id:  # section 6.8 forbids it
            goaway = GoAway(earlier.last_stream_id, goaway.code)
        self.goaway = goaway
        if goaway.code == ErrorCodes.HTTP_1_1_REQUIRED:
            self.needs_http1 = True
        for stream in list(self.streams.values()):
            if stream.id > goaway.last_stream_id:
                stream.fail(PeerGone(untouched=True, unsent=True, how=f"went away ({_name_of(goaway.code)})"))

    def _settle(self) -> None:
        self.settled = True
        self.max_streams = min(MAX_STREAMS, self._h2.remote_settings.max_concurrent_streams)
        if self._h2.encoder.header_table_size > _TABLE:
            self._h2.encoder.header_table_size = _TABLE
        self.wake_senders()

    def _said_all(self, stream: Http2Stream) -> None:
        stream.said_all = True
        self._leaving.append(stream)

    def _collect(self) -> None:
        self._output += self._h2.data_to_send()


def _text_of(error: Exception) -> str:
    """h2 says of some errors nothing but the stream."""
    if isinstance(error, NoSuchStreamError):
        return f"a frame of stream {error.stream_id}, which is not open"
    return str(error)[:200]


def _name_of(code: int | None) -> str:
    return code.name if isinstance(code, ErrorCodes) else _NAMES.get(code or 0, f"error {code}")


_NAMES: Final = {code.value: code.name for code in ErrorCodes}
