"""One request on an HTTP/2 connection, and its response, as plain ASGI 3 sees them."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, final
from urllib.parse import unquote

import trio
from h2.errors import ErrorCodes

from ..request import ON_GONE
from .wire import HIGH_WATER, MAX_PIECE

if TYPE_CHECKING:
    from collections.abc import Callable

    from .connection import Http2Connection
    from .fields import Head

_OF_CONNECTIONS: Final = frozenset({b"connection", b"keep-alive", b"transfer-encoding"})
_BODILESS: Final = frozenset({204, 304})
_FAIR_PROGRESS: Final = 1024
"""Bytes a client must let us send in each `stall_timeout`, so that none holds a response with a byte now and then."""


@final
class RequestStream:
    """
    From the head of a request to the end of its response.

    Args:
        connection: Which it came on.
        stream_id: Its number there.
        head: The request.
    """

    def __init__(self, connection: Http2Connection, stream_id: int, head: Head) -> None:
        self.id = stream_id
        self.answered = False
        """Whether the response is complete."""
        self.started = False
        """Whether its head was sent."""
        self.gone = False
        """Whether the client left before that, or took its request back."""
        self.heard_out = False
        """Whether the request is complete."""
        self._connection = connection
        self._head = head
        self._inbox: deque[tuple[bytes, int]] = deque()
        """Pieces of the body, each with what it counts for flow control."""
        self._news = trio.Event()
        self._opened = trio.Event()
        self._callback: Callable[[], None] | None = None
        self._response: tuple[int, list[tuple[bytes, bytes]]] | None = None
        self._expects = any(n == b"expect" and v.lower() == b"100-continue" for n, v in head.headers)
        self._stalled_at = math.inf
        self._progress = 0
        self._told_end = False
        declared = dict(head.headers).get(b"content-length")
        self._declared = None if declared is None else int(declared)
        self._received = 0

    # The side of the connection.

    def feed(self, data: bytes, counted: int) -> None:
        """Take a piece of the body."""
        self._expects = False
        self._received += len(data)
        self._inbox.append((data, counted))
        self._news.set()

    def end_body(self) -> bool:
        """The request is complete; whether its body is as long as it said. h2 does not look if trailers end it."""
        self.heard_out = True
        self._expects = False
        self._news.set()
        return self._declared is None or self._declared == self._received

    def leave(self) -> None:
        """The client is gone, or wants no answer any more. Idempotent."""
        if self.gone or self.answered:
            return
        self.gone = True
        self._news.set()
        self.open_window()
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()

    def open_window(self) -> None:
        """There may be room for more of the response."""
        self._opened.set()

    def unread(self) -> int:
        """What the pieces count that nobody has taken, and nobody will."""
        size = sum(counted for _, counted in self._inbox)
        self._inbox.clear()
        return size

    # The side of the application.

    def scope(self) -> dict[str, Any]:
        """ASGI's."""
        path, _, query = self._head.target.partition(b"?")
        connection = self._connection
        return {
            "type": "http",
            "asgi": {"spec_version": "2.1", "version": "3.0"},
            "http_version": "2",
            "method": self._head.method.decode("ascii"),
            "scheme": "https",
            "path": unquote(path.decode("ascii")),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": self._head.headers,
            "client": connection.client,
            "server": connection.server_address,
            "state": {},
            "extensions": {**connection.extensions, ON_GONE: self.on_gone},
        }

    def on_gone(self, callback: Callable[[], None]) -> None:
        """Have `callback` called when the client leaves before its response is complete; at once if it has left."""
        self._callback = callback
        if self.gone:
            callback()

    async def receive(self) -> Mapping[str, Any]:
        """ASGI's: a client that left stays gone, and so does the end of a body."""
        while not (self._inbox or self.gone or self.answered or (self.heard_out and not self._told_end)):
            if self._expects:
                self._expects = False
                self._connection.wire.send_head(self.id, [(b":status", b"100")])
                self._connection.wake()
            self._news = trio.Event()
            await self._news.wait()
        if self.gone or self.answered:
            return {"type": "http.disconnect"}
        data, counted = self._inbox.popleft() if self._inbox else (b"", 0)
        self._told_end = self.heard_out and not self._inbox
        self._connection.wire.consume(self.id, counted)
        self._connection.wake()
        return {"type": "http.request", "body": data, "more_body": not self._told_end}

    async def send(self, message: Mapping[str, Any]) -> None:
        """ASGI's: nothing happens after the client left; a head waits for the first piece of the body."""
        if self.gone or self.answered:
            return
        if message["type"] == "http.response.start":
            self._response = message["status"], list(message["headers"])
        elif message["type"] == "http.response.body":
            await self._write(message.get("body", b""), last=not message.get("more_body", False))

    def refuse(self, status: int, *headers: tuple[bytes, bytes]) -> None:
        """Answer without a body, at once."""
        self._response = status, [(b"content-length", b"0"), *headers]
        self._start(last=True)

    async def _write(self, data: bytes, *, last: bool) -> None:
        if not self.started:
            assert self._response is not None, "a body before its head"
            bodiless = self._head.method == b"HEAD" or self._response[0] in _BODILESS
            self._start(last=last and (bodiless or not data))
            if bodiless:
                return
        rest = memoryview(data)
        while not (self.gone or self.answered) and (rest or last):
            piece = await self._piece(rest, last=last)
            rest = rest[piece:]

    def _start(self, *, last: bool) -> None:
        assert self._response is not None
        status, headers = self._response
        fields = [(b":status", b"%d" % status)]
        fields += [(name, value) for name, value in headers if name not in _OF_CONNECTIONS]
        self._connection.wire.send_head(self.id, fields + self._connection.common_headers(), last=last)
        self.started = True
        self._done(last=last)

    async def _piece(self, rest: memoryview, *, last: bool) -> int:
        """Send as much as there is room for, once there is; how much that was."""
        connection = self._connection
        if connection.wire.pending >= HIGH_WATER:
            await connection.until_taken()
            return 0
        room = min(MAX_PIECE, len(rest), connection.wire.room(self.id)) if rest else 0
        if rest and room <= 0:
            await self._until_opened()
            return 0
        last = last and room == len(rest)
        connection.wire.send_body(self.id, rest[:room], last=last)
        self._progress += room
        if last or room == len(rest) or self._progress >= _FAIR_PROGRESS:
            self._stalled_at, self._progress = math.inf, 0
        self._done(last=last)
        return room

    def _done(self, *, last: bool) -> None:
        if last:
            self.answered = True
            self._callback = None
            self._news.set()
        self._connection.wake()

    async def _until_opened(self) -> None:
        """Wait for the client to take more, as long as it may stall; then it is as if it had left."""
        connection = self._connection
        if self._stalled_at == math.inf:
            self._stalled_at = trio.current_time() + connection.stall_timeout
        self._opened = trio.Event()
        with trio.CancelScope(deadline=self._stalled_at) as patience:
            await self._opened.wait()
        if patience.cancelled_caught:
            connection.wire.reset(self.id, ErrorCodes.CANCEL)
            connection.wake()
            self.leave()
