"""
Server-sent events as bytes, without I/O (WHATWG HTML, section 9.2; MCP Streamable HTTP).

Encoding and decoding are separate: the HTTP source writes events, whoever talks to a server reads them.
"""

from __future__ import annotations

from typing import Final, final

from attrs import frozen

from sluiceway.pipeline.protocol.errors import MessageTooLarge

COMMENT: Final = b":\n\n"
"""A line that every reader ignores: keeps a quiet stream open through proxies, and fails fast when nobody is there."""

_BOM: Final = b"\xef\xbb\xbf"


def encode_event(
    data: bytes, *, event_id: str | None = None, retry_ms: int | None = None, kind: str | None = None
) -> bytes:
    """
    One event.

    Args:
        data: JSON. Line ends inside become several `data` lines, which a reader joins with newlines: between tokens
            that is the same JSON.
        event_id: What the reader sends back as `Last-Event-ID`; visible ASCII.
        retry_ms: Milliseconds the reader should wait before it reconnects.
        kind: Its type; the default type, `message`, goes without saying when None.
    """
    if b"\n" in data or b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\ndata: ")
    head = b"" if event_id is None else b"id: %b\n" % event_id.encode()
    if kind is not None:
        head += b"event: %b\n" % kind.encode()
    if retry_ms is not None:
        head += b"retry: %d\n" % retry_ms
    return b"%bdata: %b\n\n" % (head, data)


@final
@frozen
class Event:
    """One event as a reader sees it."""

    data: str
    id: str = ""
    """The latest id of the stream, this event's or an earlier one's; empty when there was none."""
    type: str = "message"
    retry_ms: int | None = None
    """Time to wait before reconnecting, in milliseconds, if this event said so."""


@final
class EventDecoder:
    """
    Events out of a byte stream, however it is cut into pieces.

    Args:
        max_event: Bytes one event may have.
    """

    def __init__(self, max_event: int) -> None:
        self._max_event = max_event
        self._buffer = bytearray()
        self._start = True
        self._after_cr = False
        self._data: list[str] = []
        self._size = 0
        self._id = ""
        self._type = ""
        self._retry_ms: int | None = None
        self._long: bytearray | None = None
        self._in_long_line = False
        self._taken = b""

    def feed(self, data: bytes) -> list[Event]:
        """
        Take what was read; return the events that are complete now.

        Raises:
            MessageTooLarge: An event is longer than `max_event`. The stream cannot be read any further.
        """
        if self._start:
            data = bytes(self._buffer) + data
            if len(data) < len(_BOM) and _BOM.startswith(data):
                self._buffer[:] = data
                return []
            self._start = False
            self._buffer.clear()
            data = data.removeprefix(_BOM)
        events = [event for line in self._lines(data) if (event := self._line(line)) is not None]
        if self._in_long_line:
            self._pass_on(self._buffer)
            self._buffer.clear()
        if self._size + len(self._buffer) > self._max_event:
            raise MessageTooLarge(f"an event has more than {self._max_event} bytes")
        return events

    @property
    def pending(self) -> int:
        """Bytes of the line that is not complete."""
        return len(self._buffer)

    def unfinished(self) -> bytes | None:
        """
        What there is of an event's data, if its only line of data so far is not complete, and its type is `message`.

        Raises nothing, and changes nothing: `begin_long` does.
        """
        name, _, data = bytes(self._buffer).partition(b":")
        plain = name == b"data" and not self._data and self._type in ("", "message")
        return data.removeprefix(b" ") if plain else None

    def begin_long(self) -> None:
        """Give out the data of the event that `unfinished` is about in parts from now on, with `take_long`."""
        self._long, self._in_long_line = bytearray(), True
        self._size += len(self._buffer)
        self._buffer.clear()

    @property
    def in_long(self) -> bool:
        """Whether the event that `begin_long` was about is still to end."""
        return self._long is not None

    def take_long(self) -> bytes:
        """The data that came since `begin_long`, or since the last time; after `in_long` became false the last."""
        taken, self._taken = self._taken, b""
        if self._long is not None:
            taken += bytes(self._long)
            self._long.clear()
        return taken

    def _pass_on(self, line: bytes | bytearray) -> None:
        assert self._long is not None
        self._size += len(line)
        self._long += line

    def _lines(self, data: bytes) -> list[bytes]:
        """
        Complete lines; CR, LF and CRLF all end one, even when CRLF is cut in two.

        Only what is new is looked at: a long line that comes in many pieces costs no more than a short one by byte.
        """
        if self._after_cr and data:
            self._after_cr = False
            data = data.removeprefix(b"\n")
        if not data:
            return []
        first, *more = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._after_cr = data.endswith(b"\r")
        self._buffer += first
        if not more:
            return []
        lines = [bytes(self._buffer), *more[:-1]]
        self._buffer[:] = more[-1]
        return lines

    def _line(self, line: bytes) -> Event | None:
        if self._in_long_line:
            self._in_long_line = False
            self._pass_on(line)
            return None
        if not line:
            return self._dispatch()
        self._size += len(line)
        if self._size > self._max_event:
            raise MessageTooLarge(f"an event has more than {self._max_event} bytes")
        name, _, raw = line.partition(b":")
        value = raw.removeprefix(b" ").decode("utf-8", "replace")
        if name == b"data" and self._long is not None:
            self._long += b"\n" + raw.removeprefix(b" ")
        elif name == b"data":
            self._data.append(value)
        elif name == b"id" and "\0" not in value:
            self._id = value
        elif name == b"event":
            self._type = value
        elif name == b"retry" and value.isascii() and value.isdigit():
            self._retry_ms = int(value[:9])
        return None

    def _dispatch(self) -> Event | None:
        data, kind, retry_ms = self._data, self._type or "message", self._retry_ms
        self._data, self._type, self._retry_ms, self._size = [], "", None, 0
        if self._long is not None:
            self._taken, self._long = bytes(self._long), None
            return None
        return Event("\n".join(data), self._id, kind, retry_ms) if data else None
