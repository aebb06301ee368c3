"""
Server-sent events, read incrementally and without I/O (WHATWG HTML, section 9.2.6).

The three line ends, a byte order mark, comments, and fields without a colon are all as the standard has them. One
thing is added: an event has a maximum size, because a stream that never ends an event must not fill the memory.
"""

from __future__ import annotations

from typing import Final, final

from attrs import define, field, frozen

from ..protocol.errors import UpstreamProtocolError
from ..protocol.gate import DEFAULT_LIMITS

MAX_EVENT: Final = 2 * DEFAULT_LIMITS.max_message_size
"""Default for the most bytes one event may have; the message in it has its own limit."""

_BOM: Final = b"\xef\xbb\xbf"


@final
@frozen
class Event:
    """One dispatched event."""

    name: str
    """Its type; `message` when the stream did not say."""
    data: str
    """Its data lines, joined by newlines."""
    id: str
    """The last event id in force; empty when there was none."""


@final
@define
class EventDecoder:
    """Bytes in, events out."""

    max_event: int = MAX_EVENT
    """Most bytes of one event, its unfinished line included."""
    last_id: str = ""
    """What `Last-Event-ID` should say when the stream is resumed."""
    retry_ms: int | None = None
    """How long the server wants the client to wait before it reconnects; None until it says so."""
    _buffer: bytearray = field(factory=bytearray, init=False)
    _data: list[str] = field(factory=list, init=False)
    _size: int = field(default=0, init=False)
    _name: str = field(default="", init=False)
    _started: bool = field(default=False, init=False)

    def feed(self, chunk: bytes) -> list[Event]:
        """
        Take what was read and return the events it completes, which may be none.

        Raises:
            UpstreamProtocolError: An event is larger than `max_event`.
        """
        self._buffer += chunk
        events = []
        while (line := self._next_line()) is not None:
            event = self._take(line)
            if event is not None:
                events.append(event)
        if len(self._buffer) + self._size > self.max_event:
            raise UpstreamProtocolError(f"an event is larger than {self.max_event} bytes")
        return events

    def reconnect(self) -> None:
        """Forget what was unfinished; a new stream begins. `last_id` and `retry_ms` stay."""
        self._buffer.clear()
        self._data, self._name, self._size, self._started = [], "", 0, False

    def _next_line(self) -> str | None:
        """The next complete line; a CR at the very end waits, for an LF may follow."""
        buffer = self._buffer
        newline, carriage = buffer.find(b"\n"), buffer.find(b"\r")
        if carriage != -1 and (newline == -1 or carriage < newline):
            if carriage == len(buffer) - 1:
                return None
            end, skip = carriage, 2 if newline == carriage + 1 else 1
        elif newline != -1:
            end, skip = newline, 1
        else:
            return None
        line = bytes(buffer[:end])
        del buffer[: end + skip]
        if not self._started:
            self._started = True
            line = line.removeprefix(_BOM)
        return line.decode("utf-8", "replace")

    def _take(self, line: str) -> Event | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
            self._size += len(line)
        elif name == "event":
            self._name = value
        elif name == "id" and "\0" not in value:
            self.last_id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retry_ms = int(value)
        return None

    def _dispatch(self) -> Event | None:
        data, name = self._data, self._name
        self._data, self._name, self._size = [], "", 0
        return Event(name or "message", "\n".join(data), self.last_id) if data else None
