"""The requests of one HTTP/2 connection: what the client says of each, and the task that answers it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, final

import trio
from h2 import events
from h2.errors import ErrorCodes

from .fields import Malformed, check_trailers, read_head
from .stream import RequestStream

if TYPE_CHECKING:
    from ..server import HttpServer
    from .connection import Http2Connection


@final
class Streams:
    """
    Those whose task has not ended: resetting a stream makes no room for another before its task has.

    Args:
        connection: Whose they are.
        server: Whose application answers them.
    """

    def __init__(self, connection: Http2Connection, server: HttpServer) -> None:
        self._connection = connection
        self._server = server
        self._wire = connection.wire
        self._streams: dict[int, RequestStream] = {}
        self._nursery: trio.Nursery
        self._on: dict[type[events.Event], Callable[[Any], None]] = {
            events.RequestReceived: self._request,
            events.DataReceived: self._data,
            events.TrailersReceived: self._trailers,
            events.StreamEnded: self._stream_ended,
            events.StreamReset: self._stream_reset,
            events.WindowUpdated: self._window_updated,
            events.RemoteSettingsChanged: self._settings_changed,
        }

    def __len__(self) -> int:
        return len(self._streams)

    def open(self, nursery: trio.Nursery) -> None:
        """Say where their tasks run. Comes before anything is taken."""
        self._nursery = nursery

    def take(self, event: events.Event) -> None:
        """
        Take what the client says; what is not about requests is passed over.

        Raises:
            FrameRefused: It is too much.
        """
        handle = self._on.get(type(event))
        if handle is not None:
            handle(event)

    def leave(self) -> None:
        """The client is gone."""
        for stream in list(self._streams.values()):
            stream.leave()

    def _request(self, event: events.RequestReceived) -> None:
        stream_id = event.stream_id
        assert stream_id is not None
        self._connection.asked()
        if len(self._streams) >= self._server.limits.max_streams:
            self._fail(stream_id, ErrorCodes.REFUSED_STREAM)
            return
        try:
            head = read_head(event.headers or ())
        except Malformed:
            self._blame()
            self._fail(stream_id, ErrorCodes.PROTOCOL_ERROR)
            return
        stream = self._streams[stream_id] = RequestStream(self._connection, stream_id, head)
        if head.status is not None:
            self._blame()
            stream.refuse(head.status, *([(b"allow", b"GET, POST, DELETE")] if head.status == 405 else []))
        self._nursery.start_soon(self._serve, stream)

    def _fail(self, stream_id: int, code: ErrorCodes) -> None:
        self._wire.gate.spend_reset(trio.current_time())
        self._wire.reset(stream_id, code)

    async def _serve(self, stream: RequestStream) -> None:
        """The task of one request; many are over before it starts."""
        try:
            if not (stream.gone or stream.answered):
                await self._server.application(stream.scope(), stream.receive, stream.send)
        except Exception as error:  # a boundary: a bug in one request ends that request
            self._server.contain(error)
        finally:
            self._end(stream)

    def _end(self, stream: RequestStream) -> None:
        del self._streams[stream.id]
        self._wire.consume(stream.id, stream.unread())
        if not stream.gone:
            if not stream.started:
                stream.refuse(500)
            if not stream.answered:
                self._wire.reset(stream.id, ErrorCodes.INTERNAL_ERROR)
            elif not stream.heard_out:
                self._wire.reset(stream.id, ErrorCodes.NO_ERROR)  # RFC 9113 section 8.1: the rest is not needed
        self._connection.wake()
        if not self._streams:
            self._connection.rested()

    def _data(self, event: events.DataReceived) -> None:
        assert event.stream_id is not None
        stream = self._streams.get(event.stream_id)
        counted = event.flow_controlled_length or 0
        if stream is None or stream.gone or stream.answered:
            self._wire.consume(event.stream_id, counted)
        else:
            stream.feed(event.data or b"", counted)

    def _trailers(self, event: events.TrailersReceived) -> None:
        assert event.stream_id is not None
        try:
            check_trailers(event.headers or ())
        except Malformed:
            self._fail(event.stream_id, ErrorCodes.PROTOCOL_ERROR)
            self._leave(event.stream_id)

    def _stream_ended(self, event: events.StreamEnded) -> None:
        stream = self._streams.get(event.stream_id or 0)
        if stream is not None and not stream.end_body():
            self._blame()
            self._fail(stream.id, ErrorCodes.PROTOCOL_ERROR)
            stream.leave()

    def _stream_reset(self, event: events.StreamReset) -> None:
        if not event.remote_reset:  # h2 did, over what the client sent; the gate counts what the client resets
            self._wire.gate.spend_reset(trio.current_time())
        self._leave(event.stream_id or 0)

    def _leave(self, stream_id: int) -> None:
        stream = self._streams.get(stream_id)
        if stream is not None:
            stream.leave()

    def _window_updated(self, event: events.WindowUpdated) -> None:
        if event.stream_id:
            stream = self._streams.get(event.stream_id)
            if stream is not None:
                stream.open_window()
        else:
            self._open_windows()

    def _settings_changed(self, _event: events.RemoteSettingsChanged) -> None:
        self._open_windows()

    def _open_windows(self) -> None:
        for stream in self._streams.values():
            stream.open_window()

    def _blame(self) -> None:
        client = self._connection.client
        self._server.refused(client and client[0])
