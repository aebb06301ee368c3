"""
HTTP/1.1 on one connection, without I/O: what was read becomes requests, what is answered becomes bytes.

One request is served at a time; what a client sends early waits in the buffer. While a response is under way the
connection goes on reading, so that it sees a client leave even if more was sent. What belongs together is written
together: head and body, last event and end.
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Final, final

import h11

from .edge import Head
from .framing import LAST_CHUNK, Chunks, Sized, chunk
from .heads import Heads, KnownHead
from .inbox import Inbox
from .request import HttpRequest, Remote

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

_CLOSE: Final = b"connection: close\r\n"
_NO_CONTENT: Final = 204
_BODILESS: Final = frozenset({_NO_CONTENT, 304})
_BAD_LINE: Final = re.compile(rb"[\0\r\n]")
_BAD_TEXT: Final = re.compile(r"[\0\r\n]")
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


@final
class RequestStream(HttpRequest):
    """
    One request of a connection and its response: the request that the application sees, and plain ASGI 3.

    Args:
        known: Its head.
        http: The connection's protocol.
        whole: The body, if it came with the head; nothing is received then.
    """

    came_whole = False
    """Whether the body came with the head."""
    started = False
    """Whether some of the response was written."""
    answered = False
    """Whether the response is complete."""
    closes = False
    """Whether the connection ends behind the response: known once its head is."""
    gone = False
    """Whether the client left before that."""
    framing: Chunks | Sized = Sized(0)
    """What is left of the body."""
    _callback: Callable[[], None] | None = None
    _inbox: Inbox | None = None
    _expects = False
    _held: bytes | None = None
    _in_chunks = False
    _silent = False

    def __init__(self, known: KnownHead, http: Http1, whole: bytes | None = None) -> None:
        self.head = known.request
        self.remote = http.remote
        self.whole = whole
        self._head = known.head
        self._http = http
        if whole is not None:
            self.came_whole = True
        else:
            head = known.head
            self.framing = Chunks() if head.chunked else Sized(known.length)
            self.declared = known.length
            self._expects = head.expects and not self.framing.done

    @property
    def inbox(self) -> Inbox:
        """What was read of the body and not taken."""
        if self._inbox is None:
            self._inbox = Inbox(self._http.on_room)
            if self.gone:
                self._inbox.put(_GONE)
        return self._inbox

    def on_gone(self, callback: Callable[[], None]) -> None:
        """See `HttpRequest`."""
        self._callback = callback
        if self.gone:
            callback()

    def leave(self) -> None:
        """The client is gone. Idempotent."""
        if self.gone or self.answered:
            return
        self.gone = True
        if self._inbox is not None:
            self._inbox.put(_GONE)
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()

    async def receive(self) -> Mapping[str, Any]:
        """ASGI's. A client that waits for leave to send the body gets it here."""
        if self._expects:
            self._expects = False
            if self.inbox.is_empty and not self.gone and not self.started:
                await self._http.write(CONTINUE)
        return await self.inbox.receive()

    async def send(self, message: Mapping[str, Any]) -> None:
        """ASGI's: nothing happens after the client left; a head waits for the first piece of the body."""
        if self.gone or self.answered:
            return
        if message["type"] == "http.response.start":
            self._held = self._rendered(message["status"], message["headers"])
            return
        if self._held is None and not self.started:
            raise RuntimeError("a response must begin with its head")
        body, last = message.get("body", b""), not message.get("more_body", False)
        data = b"" if self._silent else self._framed(body, last=last)
        if self._held is not None:
            data, self._held = self._held + data, None
        self.started = True
        if last:
            self.answered = True
            self._callback = None  # nobody cares any more whether the client leaves
        if data:
            await self._http.write(data)

    async def answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """A whole response, in one write: the bytes that `send` makes of its head and its body."""
        if self.gone or self.answered:
            return
        if status in _BODILESS or "connection" in headers or self._head.method == b"HEAD":
            data = self._odd(status, headers, body)
        else:
            end = b"\r\n"
            if self._head.closes or self._http.is_last:
                self.closes, end = True, _CLOSE + end
            length = b"content-length: %d\r\n" % len(body)
            data = b"".join((status_line(status), text_lines(headers), length, date_line(), end, body))
        self.started = self.answered = True
        self._callback = None
        await self._http.write(data)

    def _odd(self, status: int, headers: Mapping[str, str], body: bytes) -> bytes:
        """A whole response that has no body, or knows already what becomes of its connection."""
        lines = [status_line(status), text_lines(headers)]
        if status != _NO_CONTENT:
            lines.append(b"content-length: %d\r\n" % len(body))
        self._end_head(lines, status, sized=True, closes=headers.get("connection") == "close")
        if not self._silent:
            lines.append(body)
        return b"".join(lines)

    def _framed(self, body: bytes, *, last: bool) -> bytes:
        if not self._in_chunks:
            return body
        framed = chunk(body) if body else b""
        return framed + LAST_CHUNK if last else framed

    def _rendered(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
        """The head of the response, and with it how its body is framed."""
        lines = [status_line(status)]
        sized = closes = False
        for name, value in headers:
            lines.append(_field_line(name, value))
            sized = sized or name == b"content-length"
            closes = closes or (name == b"connection" and value == b"close")
        self._end_head(lines, status, sized=sized, closes=closes)
        return b"".join(lines)

    def _end_head(self, lines: list[bytes], status: int, *, sized: bool, closes: bool) -> None:
        """What stands in every head; and what says how the body is framed, and what comes behind it, unless it did."""
        bodiless = status in _BODILESS
        self._silent = bodiless or self._head.method == b"HEAD"
        if not sized and not bodiless:
            self._in_chunks = not self._head.old
            if self._in_chunks:
                lines.append(b"transfer-encoding: chunked\r\n")
        if closes:
            self.closes = True
        elif self._head.closes or self._http.is_last:
            self.closes = True
            lines.append(_CLOSE)
        lines += (date_line(), b"\r\n")


@final
class Upgrade(Exception):
    """
    A client asks for a WebSocket: what it sends from here on is no HTTP.

    Args:
        request: The head of its request.
        first: What was read behind it.
    """

    def __init__(self, request: h11.Request, first: bytes) -> None:
        super().__init__("a request to open a WebSocket")
        self.request = request
        self.first = first


@final
class Http1:
    """
    What a connection has read, and the request of it that is being served.

    Args:
        write: Writes to the connection.
        upgrades: Whether a request is for a WebSocket that is served here.
        heads: Keeps equal heads of different connections once.
        on_room: Called when `is_full` has ended.
        remote: Who sends the requests.
    """

    __slots__ = ("_buffer", "_heads", "_known", "_upgrades", "is_last", "on_room", "remote", "stream", "write")

    def __init__(
        self,
        write: Callable[[bytes], Awaitable[object]],
        upgrades: Callable[[h11.Request], bool],
        heads: Heads,
        on_room: Callable[[], None],
        remote: Remote,
    ) -> None:
        self.stream: RequestStream | None = None
        """The request that is being served; None between requests."""
        self.is_last = False
        """Whether the connection ends behind the response that comes next."""
        self.write: Final = write
        self.on_room: Final = on_room
        self.remote: Final = remote
        self._upgrades = upgrades
        self._heads = heads
        self._known: KnownHead | None = None
        self._buffer = bytearray()

    @property
    def backlog(self) -> int:
        """Bytes read that belong to a later request."""
        return len(self._buffer)

    def forget(self) -> None:
        """The connection is over: what its heads carried, and who its client was, is not for the collector to find."""
        self._known = self.remote.said = self.remote.member = None
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        """Take what was read; `next_request` and `next_body` look at it."""
        self._buffer += data

    def begin(self, data: bytes) -> RequestStream | None:
        """
        Take what was read while no request is being served, and tell the next one: `feed` and `next_request` in one.

        What is one request, no more and no less, and begins like the last one, is not even copied.
        """
        known = self._known
        if known is not None and not self._buffer:
            if not data.startswith(known.raw):
                known = known.begins(data)
            if known is not None and known.end == len(data):
                self._known = known
                self.stream = stream = RequestStream(known, self, data[known.size :])
                return stream
        self._buffer += data
        return self.next_request()

    def next_request(self) -> RequestStream | None:
        """
        The next request, if none is being served and a whole head is there. What has come of its body is with it.

        Raises:
            HeadRefused: What was sent is none.
            Upgrade: It is one to open a WebSocket.
        """
        buffer = self._buffer
        if self.stream is not None or not buffer:
            return None
        known = self._heads.read(buffer, self._known)
        if known is None:
            return None
        self._known = known
        if known.head.switches:
            request = _as_h11(known.head)
            if self._upgrades(request):
                raise Upgrade(request, bytes(buffer[known.size :]))
        end = known.size + known.length
        if not known.head.chunked and len(buffer) >= end:
            self.stream = stream = RequestStream(known, self, bytes(buffer[known.size : end]))
            del buffer[:end]
            return stream
        self.stream = stream = RequestStream(known, self)
        del buffer[: known.size]
        event = self.next_body()
        if event is not None:
            stream.inbox.put(event)
        return stream

    def next_body(self) -> Mapping[str, Any] | None:
        """
        What has come of the body, as an ASGI event; None if nothing has.

        Raises:
            HeadRefused: It is not framed as it should be.
        """
        stream = self.stream
        if stream is None or stream.framing.done:
            return None
        piece = stream.framing.take(self._buffer)
        if not piece and not stream.framing.done:
            return None
        return {"type": "http.request", "body": piece, "more_body": not stream.framing.done}


_GONE: Final[Mapping[str, Any]] = {"type": "http.disconnect"}


def refusal(status: int) -> bytes:
    """The response to what is no request; the connection ends behind it."""
    allow = b"allow: GET, POST, DELETE\r\n" if status == HTTPStatus.METHOD_NOT_ALLOWED else b""
    lines = (status_line(status), b"content-length: 0\r\nconnection: close\r\n", date_line(), allow, b"\r\n")
    return b"".join(lines)


@lru_cache(maxsize=128)
def status_line(status: int) -> bytes:
    """The first line of a response."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return f"HTTP/1.1 {status} {phrase}\r\n".encode("ascii")


def date_line() -> bytes:
    """The `Date` of a response (RFC 9110 section 6.6.1)."""
    return _date_line(int(time.time()))


@lru_cache(maxsize=1)
def _date_line(second: int) -> bytes:
    return f"date: {formatdate(second, usegmt=True)}\r\n".encode("ascii")


def text_lines(headers: Mapping[str, str]) -> bytes:
    """
    The headers of a response.

    Raises:
        ValueError: One of them would end its line, and be read as more than one.
    """
    values = tuple(headers.values())
    if not "".join(values).isprintable() and any(map(_BAD_TEXT.search, values)):
        raise ValueError(f"one of the response headers {', '.join(headers)} has a value that HTTP cannot carry")
    return (_form_of(tuple(headers)) % values).encode("latin-1", "replace")


@lru_cache(maxsize=256)
def _form_of(names: tuple[str, ...]) -> str:
    """Their lines, without their values: most responses have the same headers."""
    for name in names:
        if not _TOKEN.fullmatch(name):
            raise ValueError(f"{name!r} is no name of a response header")
    return "".join(name.replace("%", "%%") + ": %s\r\n" for name in names)


def _field_line(name: bytes, value: bytes) -> bytes:
    """
    A header of a response.

    Raises:
        ValueError: It would end its line, and be read as more than one.
    """
    if _BAD_LINE.search(value) or _BAD_LINE.search(name):
        raise ValueError(f"the response header {name!r} has a value that HTTP cannot carry")
    return b"%b: %b\r\n" % (name, value)


def _as_h11(head: Head) -> h11.Request:
    """A request as those take it who serve WebSockets."""
    version = b"1.0" if head.old else b"1.1"
    return h11.Request(method=head.method, target=head.target, headers=list(head.headers), http_version=version)
