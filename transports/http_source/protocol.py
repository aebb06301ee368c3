"""
HTTP/1.1 on one connection: hypercorn's h11 protocol behind the edge guard, with its sharp edges taken off.

What differs from hypercorn 0.18, and why:

* The guard looks at every request head before h11 does. HTTP/2 is never switched to; WebSockets are handed over.
* While a response is under way the reader goes on reading, so that it sees a client leave even if more was sent.
* A body that nobody reads any more is dropped; hypercorn's queue would hold up the connection for ever.
* What belongs together is written together: head and body, last event and end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

import h11
import trio
from hypercorn.events import RawData
from hypercorn.protocol.events import Event, Request, StreamClosed
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol
from hypercorn.protocol.http_stream import ASGIHTTPState, HTTPStream
from hypercorn.trio.task_group import TaskGroup

from .edge import MAX_HEAD, inspect_head
from .request import ON_GONE

MAX_UNREAD: Final = 256 * 1024
"""Bytes of a body that wait for the application before the connection stops reading."""


class EdgeConnection(h11.Connection):
    """h11's state machine behind the edge guard."""

    def __init__(self) -> None:
        super().__init__(h11.SERVER, max_incomplete_event_size=MAX_HEAD)

    def next_event(self) -> Any:
        """
        The next event; NEED_DATA also while the current request is not answered yet.

        Raises:
            h11.RemoteProtocolError: What was sent is refused.
        """
        if self.their_state is h11.IDLE:
            status = inspect_head(self.trailing_data[0])
            if status is not None:
                raise h11.RemoteProtocolError("refused at the edge", error_status_hint=status)
        event = super().next_event()
        return h11.NEED_DATA if event is h11.PAUSED else event


class Inbox:
    """ASGI `receive` of one request: what the connection read and the application has not taken."""

    def __init__(self) -> None:
        self._events: deque[Mapping[str, Any]] = deque()
        self._size = 0
        self._abandoned = False
        self._news = trio.Event()
        self._room = trio.Event()

    async def put(self, event: Mapping[str, Any]) -> None:
        """Add an event. Waits while more than `MAX_UNREAD` bytes are unread and somebody may still read them."""
        if self._abandoned:
            return
        self._events.append(event)
        self._size += len(event.get("body", b""))
        self._news.set()
        while self._size > MAX_UNREAD and not self._abandoned:
            self._room = trio.Event()
            await self._room.wait()

    async def receive(self) -> Mapping[str, Any]:
        """The next event. A client that left stays gone."""
        while not self._events:
            self._news = trio.Event()
            await self._news.wait()
        if self._events[0]["type"] == "http.disconnect":
            return self._events[0]
        event = self._events.popleft()
        self._size -= len(event.get("body", b""))
        self._room.set()
        return event

    def abandon(self) -> None:
        """Nobody will read any more: drop what is there and what comes."""
        self._abandoned = True
        self._events.clear()
        self._room.set()


class Tasks(TaskGroup):
    """
    The tasks of one connection.

    Args:
        contain: Told of every exception of an application.
    """

    def __init__(self, contain: Callable[[Exception], None]) -> None:
        super().__init__()
        self._contain = contain

    async def spawn_app(self, app: Any, config: Any, scope: Any, send: Any) -> Any:
        """Start the application for one request; returns where its events go."""
        inbox = Inbox()
        assert self._nursery is not None
        self._nursery.start_soon(self._run, app, scope, inbox, send)
        return inbox.put

    async def _run(self, app: Any, scope: Any, inbox: Inbox, send: Any) -> None:
        try:
            await app(scope, inbox.receive, send, None, None)
        except Exception as error:  # a boundary: a bug in one request ends that request
            self._contain(error)
        finally:
            inbox.abandon()
        await send(None)


class RequestStream(HTTPStream):
    """One request and its response, with a notice for whoever wants to know that the client left."""

    def __init__(self, app: Any, *arguments: Any, flush: Callable[[], Any], extensions: Mapping[str, Any]) -> None:
        super().__init__(self._serve, *arguments)
        self._application = app
        self._flush = flush
        self._extensions = extensions
        self._callback: Callable[[], None] | None = None

    async def _serve(self, scope: Any, receive: Any, send: Any, sync_spawn: Any, call_soon: Any) -> None:
        scope["extensions"] |= {**self._extensions, ON_GONE: self.on_gone}
        await self._application(scope, receive, send)

    def on_gone(self, callback: Callable[[], None]) -> None:
        """Have `callback` called when the client leaves before its response is complete; at once if it has left."""
        self._callback = callback
        if self.closed and self.state is not ASGIHTTPState.CLOSED:
            callback()

    async def handle(self, event: Event) -> None:
        """Take an event from the connection."""
        if isinstance(event, StreamClosed) and not self.closed and self.state is not ASGIHTTPState.CLOSED:
            self.closed = True
            if self._callback is not None:
                self._callback()
            await self.app_put({"type": "http.disconnect"})
            return
        await super().handle(event)

    async def app_send(self, message: Any) -> None:
        """ASGI `send`: nothing happens after the client left; a head waits for the first piece of the body."""
        if self.closed:
            return
        await super().app_send(message)
        if message is None or message["type"] != "http.response.start":
            await self._flush()


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


class Http1(H11Protocol):
    """
    The protocol of one connection.

    Args:
        arguments: As `H11Protocol` takes them.
        resume: Called when a request that was read early can be handled now.
        refused: Called when what was sent is refused before any application sees it.
        upgrades: Whether a request is for a WebSocket that is served here; `handle` and `proceed` then raise `Upgrade`.
        extensions: What applications are told of the connection, by the name of the ASGI extension.
    """

    def __init__(
        self,
        *arguments: Any,
        resume: Callable[[], None],
        refused: Callable[[], None],
        upgrades: Callable[[h11.Request], bool],
        extensions: Mapping[str, Any],
    ) -> None:
        super().__init__(*arguments)
        self.connection = EdgeConnection()
        self._resume = resume
        self._refused = refused
        self._upgrades = upgrades
        self._extensions = extensions
        self._out = bytearray()

    @property
    def busy(self) -> bool:
        """Whether a request is being served."""
        return self.stream is not None

    @property
    def backlog(self) -> int:
        """Bytes read that belong to a later request."""
        return len(self.connection.trailing_data[0]) if self.connection.their_state is h11.DONE else 0

    async def proceed(self) -> None:
        """Handle what was read early."""
        await self._handle_events()

    async def flush(self) -> None:
        """Write what was said."""
        if self._out:
            data = bytes(self._out)
            self._out.clear()
            await self.send(RawData(data=data))

    async def stream_send(self, event: Event) -> None:
        """Take an event from the response."""
        if isinstance(event, StreamClosed):
            await self.flush()
        await super().stream_send(event)

    async def _create_stream(self, request: h11.Request) -> None:
        self.stream = RequestStream(
            self.app, self.config, self.context, self.task_group, self.ssl, self.client, self.server,
            self.stream_send, STREAM_ID, flush=self.flush, extensions=self._extensions,
        )  # fmt: skip
        await self.stream.handle(
            Request(
                stream_id=STREAM_ID,
                headers=list(request.headers),
                http_version=request.http_version.decode("ascii"),
                method=request.method.decode("ascii"),
                raw_path=request.target,
                state=self.connection_state,
            )
        )

    async def _check_protocol(self, event: h11.Request) -> None:
        """`Upgrade` to a WebSocket is followed where there are any; others are ignored (RFC 9110 section 7.8)."""
        if self._upgrades(event):
            raise Upgrade(event, self.connection.trailing_data[0])

    async def _maybe_recycle(self) -> None:
        await super()._maybe_recycle()
        if self.stream is None and self.connection.their_state is h11.IDLE and self.connection.trailing_data[0]:
            self._resume()

    async def _send_h11_event(self, event: Any) -> None:
        try:
            data = self.connection.send(event)
        except h11.LocalProtocolError:
            if self.connection.their_state is not h11.ERROR:
                raise
        else:
            self._out += data or b""
        if isinstance(event, h11.InformationalResponse):
            await self.flush()

    async def _send_error_response(self, status_code: int) -> None:
        self._refused()
        headers = [(b"content-length", b"0"), (b"connection", b"close"), *self.config.response_headers("h11")]
        if status_code == 405:
            headers.append((b"allow", b"GET, POST, DELETE"))
        await self._send_h11_event(h11.Response(status_code=status_code, headers=headers))
        await self._send_h11_event(h11.EndOfMessage())
        await self.flush()
