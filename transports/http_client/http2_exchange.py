"""One request over HTTP/2 as its exchange sees it: sent, parked until something came for it, read, or called off."""

from __future__ import annotations

from typing import final

import trio
from hpack import HeaderTuple

from .http2_connection import Http2Connection
from .http2_stream import Http2Stream
from .parser import Head
from .response import Response

_FAILED = 400
"""From this status on, a response that comes before the request is complete means that the rest is of no use."""


@final
class _Seat:
    """Where the task of an exchange waits until its stream wakes it."""

    def __init__(self) -> None:
        self._task: trio.lowlevel.Task | None = None

    def wake(self) -> None:
        """Something has changed; nothing happens if nobody waits."""
        if self._task is not None:
            task, self._task = self._task, None
            trio.lowlevel.reschedule(task)

    async def wait(self) -> None:
        """Until the next `wake`, which may come for nothing."""
        self._task = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._leave)

    def _leave(self, _: object) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED


@final
class Http2Response(Response):
    """A response on a stream of its own: leaving it early resets the stream, and the connection goes on."""

    def __init__(self, head: Head, stream: Http2Stream, connection: Http2Connection, seat: _Seat) -> None:
        super().__init__(head)
        self._stream = stream
        self._connection: Http2Connection | None = connection
        self._seat = seat

    @property
    def complete(self) -> bool:
        """See `Response`."""
        return self._stream.complete

    def close(self) -> None:
        """Reset the stream unless it is complete (RST_STREAM, CANCEL). Idempotent, and never blocks."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.drop(self._stream)

    def finish(self) -> None:
        """Let the peer end the stream, for a moment. See `Response`."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.linger(self._stream)

    async def chunk(self) -> bytes:
        """What came since the last call, a window of it at most. See `Response`. Not always a checkpoint."""
        stream, connection = self._stream, self._connection
        assert connection is not None, "the response was closed"
        while not (data := stream.take()):
            if stream.complete:
                return b""
            if stream.failure is not None:
                raise stream.failure
            await self._seat.wait()
        connection.credit(stream)
        return data


async def ask(connection: Http2Connection, fields: list[HeaderTuple], content: bytes) -> Http2Response:
    """
    Send a request on a connection with a place for it, and wait for the head of its response.

    The place is given back in any case: here on failure, else when the response is left.

    Raises:
        PeerGone: The peer took no new requests, reset the stream, or closed the connection.
        MalformedResponse: What it sent is not HTTP/2.
    """
    seat, rest = _Seat(), memoryview(content)
    stream = connection.open(fields, seat.wake, has_content=bool(content))
    answered = False
    try:
        while rest and stream.failure is None:
            rest = rest[connection.send(stream, rest) :]
            if stream.complete or (stream.head is not None and stream.head.status >= _FAILED):
                break
            if rest:
                await seat.wait()
        while stream.head is None:
            if stream.failure is not None:
                raise stream.failure
            await seat.wait()
        answered = True
        return Http2Response(stream.head, stream, connection, seat)
    finally:
        if not answered:
            connection.drop(stream)
