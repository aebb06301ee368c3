"""
HTTP/1.1 on one connection, without I/O: what was read becomes requests, what is answered becomes bytes.

One request is served at a time; what a client sends early waits in the buffer. While a response is under way the
connection goes on reading, so that it sees a client leave even if more was sent. What belongs together is written
together: head and body, last event and end.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from itertools import starmap
from typing import Any, Final, final

import h11

from .edge import Head
from .framing import LAST_CHUNK, Chunks, Sized, chunk
from .heads import Heads, KnownHead
from .inbox import Inbox

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

_NO_CONTENT: Final = 204
_BODILESS: Final = frozenset({_NO_CONTENT, 304})
_BAD_LINE: Final = re.compile(rb"[\0\r\n]")


@final
class RequestStream:
    """
    One request and its response, as plain ASGI 3 sees them.

    Args:
        known: The head of the request.
        write: Writes to the connection.
        on_room: See `Inbox`.
        whole: The body, if it came with the head; nothing is received then.
    """

    __slots__ = (
        "_callback", "_expects", "_held", "_in_chunks", "_inbox", "_on_room", "_silent", "_write", "answered", "body",
        "closes", "gone", "head", "known", "started", "whole",
    )  # fmt: skip

    def __init__(
        self,
        known: KnownHead,
        write: Callable[[bytes], Any],
        on_room: Callable[[], None],
        whole: bytes | None = None,
    ) -> None:
        head = known.head
        self.known: Final = known
        self.head: Final = head
        self.whole: Final = whole
        self.body: Final = _TAKEN if whole is not None else Chunks() if head.chunked else Sized(head.length)
        self._inbox: Inbox | None = None
        self._on_room = on_room
        self.started = False
        """Whether some of the response was written."""
        self.answered = False
        """Whether the response is complete."""
        self.gone = False
        """Whether the client left before that."""
        self.closes = head.closes
        """Whether the connection ends behind the response."""
        self._write = write
        self._expects = head.expects and not self.body.done
        self._callback: Callable[[], None] | None = None
        self._held: bytes | None = None
        self._in_chunks = False
        self._silent = False

    @property
    def inbox(self) -> Inbox:
        """What was read of the body and not taken."""
        if self._inbox is None:
            self._inbox = Inbox(self._on_room)
            if self.gone:
                self._inbox.put(_GONE)
        return self._inbox

    def abandon(self) -> None:
        """Nobody will receive any more."""
        if self.whole is None:
            self.inbox.abandon()

    def on_gone(self, callback: Callable[[], None]) -> None:
        """Have `callback` called when the client leaves before its response is complete; at once if it has left."""
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
        if self._callback is not None:
            self._callback()

    async def receive(self) -> Mapping[str, Any]:
        """ASGI's. A client that waits for leave to send the body gets it here."""
        if self._expects:
            self._expects = False
            if self.inbox.is_empty and not self.gone and not self.started:
                await self._write(CONTINUE)
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
        self.answered = last
        if data:
            await self._write(data)

    async def answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """A whole response, in one write: the bytes that `send` makes of its head and its body."""
        if self.gone or self.answered:
            return
        lines = [status_line(status), *starmap(_text_line, headers.items())]
        if status != _NO_CONTENT:
            lines.append(b"content-length: %d\r\n" % len(body))
        if headers.get("connection") == "close":
            self.closes = True
        self._end_head(lines, status, sized=True)
        if not self._silent:
            lines.append(body)
        self.started = self.answered = True
        await self._write(b"".join(lines))

    def _framed(self, body: bytes, *, last: bool) -> bytes:
        if not self._in_chunks:
            return body
        framed = chunk(body) if body else b""
        return framed + LAST_CHUNK if last else framed

    def _rendered(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
        """The head of the response, and with it how its body is framed."""
        lines = [status_line(status)]
        sized = False
        for name, value in headers:
            lines.append(_field_line(name, value))
            sized = sized or name == b"content-length"
            self.closes = self.closes or (name == b"connection" and value == b"close")
        self._end_head(lines, status, sized=sized)
        return b"".join(lines)

    def _end_head(self, lines: list[bytes], status: int, *, sized: bool) -> None:
        """What stands in every head, and what says how the body is framed."""
        bodiless = status in _BODILESS
        self._silent = bodiless or self.head.method == b"HEAD"
        if not sized and not bodiless:
            self._in_chunks = not self.head.old
            if self._in_chunks:
                lines.append(b"transfer-encoding: chunked\r\n")
        if self.head.closes:
            lines.append(b"connection: close\r\n")
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
    """

    __slots__ = ("_buffer", "_heads", "_known", "_on_room", "_upgrades", "_write", "stream")

    def __init__(
        self,
        write: Callable[[bytes], Any],
        upgrades: Callable[[h11.Request], bool],
        heads: Heads,
        on_room: Callable[[], None],
    ) -> None:
        self.stream: RequestStream | None = None
        """The request that is being served; None between requests."""
        self._write = write
        self._upgrades = upgrades
        self._heads = heads
        self._on_room = on_room
        self._known: KnownHead | None = None
        self._buffer = bytearray()

    @property
    def backlog(self) -> int:
        """Bytes read that belong to a later request."""
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Take what was read; `next_request` and `next_body` look at it."""
        self._buffer += data

    def next_request(self) -> RequestStream | None:
        """
        The next request, if none is being served and a whole head is there. What has come of its body is with it.

        Raises:
            HeadRefused: What was sent is none.
            Upgrade: It is one to open a WebSocket.
        """
        if self.stream is not None or not self._buffer:
            return None
        known = self._heads.read(self._buffer, self._known)
        if known is None:
            return None
        head, buffer, self._known = known.head, self._buffer, known
        if head.switches:
            request = _as_h11(head)
            if self._upgrades(request):
                raise Upgrade(request, bytes(buffer[head.size :]))
        end = head.size + head.length
        if not head.chunked and len(buffer) >= end:
            self.stream = stream = RequestStream(known, self._write, self._on_room, bytes(buffer[head.size : end]))
            del buffer[:end]
            return stream
        self.stream = stream = RequestStream(known, self._write, self._on_room)
        del buffer[: head.size]
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
        if stream is None or stream.body.done:
            return None
        piece = stream.body.take(self._buffer)
        if not piece and not stream.body.done:
            return None
        return {"type": "http.request", "body": piece, "more_body": not stream.body.done}


_TAKEN: Final = Sized(0)
"""Stands for a body of which nothing is left."""
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


@lru_cache(maxsize=512)
def _text_line(name: str, value: str) -> bytes:
    return _field_line(name.encode("latin-1"), value.encode("latin-1", "replace"))


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
