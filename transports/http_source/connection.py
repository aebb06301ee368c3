"""
One connection of our server: what comes in, what goes out, and the times a client gets for each.

Nothing here waits for bytes: whoever reads hands them in (`feed`), and a connection at rest has no task and no timer of
its own. A request is served in a task that is kept for that; meanwhile reading goes on, so that a client is seen to
leave.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final

import trio

from sluiceway.pipeline.runtime.deadlines import SLOT_S

from .edge import HeadRefused
from .protocol import Http1, RequestStream, Upgrade, refusal
from .response import HttpResponse

if TYPE_CHECKING:
    from sluiceway.pipeline.runtime.deadlines import Entry

    from .request import Remote
    from .server import HttpServer

MAX_RECV: Final = 64 * 1024
LINGER_S: Final = 1.0
"""How long to read and drop after the last response: closing with unread bytes would reset it away (RFC 9112, 9.6)."""
MAX_BACKLOG: Final = 64 * 1024
"""Bytes of later requests that may be read while one is being served. Who sends more is cut, or, answered, not read."""
_MAX_LINGER: Final = 8 * 1024 * 1024
_IN_A_ROW: Final = 16
"""Requests sent behind each other that are served before other tasks have their turn."""
GONE: Final = (trio.BrokenResourceError, trio.ClosedResourceError)


class Connection(ABC):
    """
    A connection from accept to close.

    Writing is not shielded, and a client that reads nothing is cut by the kernel (TCP_USER_TIMEOUT).

    Args:
        server: Whose connection it is.
        remote: The client.
    """

    __slots__ = (
        "_armed", "_closed", "_closing", "_due", "_entry", "_lingered", "_protocol", "_server", "_writing", "is_paused",
    )  # fmt: skip

    def __init__(self, server: HttpServer, remote: Remote) -> None:
        self.is_paused = False
        """Whether nothing should be fed, because what was fed has not been taken: `_read_on` ends that."""
        self._server = server
        self._protocol = Http1(self._write, server.upgrades, server.heads, self._make_room, remote)
        self._protocol.is_last = server.stopping
        self._writing: trio.Lock | None = None
        self._closing = False
        self._closed = False
        self._lingered = 0
        self._due = self._armed = math.inf
        self._entry: Entry | None = server.deadlines.add(math.inf, self._look_at_the_time)
        server.opened(self)
        self._expect(server.limits.head_timeout)

    # What connections differ in.

    @abstractmethod
    def _send_nowait(self, data: bytes) -> int:
        """Write what can be written at once, while nobody else writes; how many bytes that was. Raises `GONE`."""

    @abstractmethod
    async def _send_all(self, data: bytes) -> None:
        """Write all of it. Raises `GONE`."""

    @abstractmethod
    async def _send_eof(self) -> None:
        """Say that nothing more will be written. Raises `GONE`."""

    @abstractmethod
    def _read_on(self) -> None:
        """Go on reading, where `is_paused` had ended it."""

    @abstractmethod
    def _shut(self) -> None:
        """Close, or have it closed. Nothing is fed from now on."""

    @abstractmethod
    def _move(self, mark: str) -> None:
        """Give the client to the worker in which its session lives, where that can be done."""

    @abstractmethod
    def _hand_over(self, upgrade: Upgrade) -> None:
        """Have the server go on with what was read from; nothing is fed from now on."""

    def rest(self) -> None:
        """Its client was served elsewhere before, and may take its time."""
        self._expect(self._server.limits.idle_timeout)

    # The reading side: synchronous, whoever reads.

    @property
    def idle(self) -> bool:
        """Whether no request is being served."""
        return self._protocol.stream is None

    @property
    def is_over(self) -> bool:
        """Whether nothing should be fed any more."""
        return self._closed

    def feed(self, data: bytes) -> None:
        """Take what was read; nothing means that the client is gone."""
        if not data:
            self.close()
            return
        protocol = self._protocol
        try:
            if self._closing:
                self._linger(data)
            elif protocol.stream is not None:
                self._take_more(data)
            else:
                stream = protocol.begin(data)
                if stream is not None:
                    self._due = math.inf
                    self._server.tasks.run(self._serve, stream)
                elif protocol.backlog == len(data):
                    self._expect(self._server.limits.head_timeout)
        except HeadRefused as refused:
            self._refuse(refused.status)
        except Upgrade as upgrade:
            self._switch(upgrade)

    def _linger(self, data: bytes) -> None:
        """Drop what comes behind the last response."""
        self._lingered += len(data)
        if self._lingered > _MAX_LINGER:
            self.close()

    def _take_more(self, data: bytes) -> None:
        """Take what is read while a request is being served: more of its body, or of what comes behind it."""
        protocol, stream = self._protocol, self._protocol.stream
        assert stream is not None
        protocol.feed(data)
        event = protocol.next_body()
        if event is not None:
            stream.inbox.put(event)
            self.is_paused = stream.inbox.is_full
        elif stream.framing.done and protocol.backlog > MAX_BACKLOG:
            if stream.answered:  # it has its answer before we are done with it, and may ask for the next thing
                self.is_paused = True
            else:
                self.close()

    def _make_room(self) -> None:
        if self.is_paused:
            self.is_paused = False
            self._read_on()

    def _switch(self, upgrade: Upgrade) -> None:
        """From here on, this is no HTTP, and somebody else's to close."""
        self._closed = True
        self._disarm()
        self._protocol.forget()
        self._hand_over(upgrade)

    def _refuse(self, status: int) -> None:
        """End the connection for what was sent on it; with an answer, if none is under way."""
        self._server.refused(self._protocol.remote.address)
        stream = self._protocol.stream
        self._leave()
        self._closing = True
        self._server.tasks.run(self._say_no, refusal(status) if stream is None or not stream.started else b"")

    async def _say_no(self, answer: bytes) -> None:
        await self._write(answer)
        await self._begin_close()

    def _leave(self) -> None:
        """Whoever is being served has nobody to answer."""
        if self._protocol.stream is not None:
            self._protocol.stream.leave()

    # Times.

    def _expect(self, seconds: float) -> None:
        """
        Give the client so much time for what comes next.

        Most of what is expected comes, so the one entry among the deadlines stays where it is, and looks again.
        """
        due = self._due = self._server.deadlines.now() + seconds
        if due < self._armed and self._entry is not None:
            self._armed = due
            self._server.deadlines.move(self._entry, due)

    def _look_at_the_time(self) -> None:
        self._armed = math.inf
        if self._due <= self._server.deadlines.now() + SLOT_S:  # as exact as deadlines are
            self.close()
        elif self._due != math.inf and self._entry is not None:
            self._armed = self._due
            self._server.deadlines.move(self._entry, self._due)

    def _disarm(self) -> None:
        if self._entry is not None:
            self._server.deadlines.cancel(self._entry)
            self._entry = None

    # The serving side.

    async def _serve(self, stream: RequestStream) -> None:
        """Serve a request, and those that were sent behind it and have arrived."""
        server, count = self._server, 1
        try:
            while True:
                try:
                    await server.application.serve(stream, HttpResponse(stream))
                except Exception as error:  # a boundary: a bug in one request ends that request
                    server.contain(error)
                finally:
                    if not stream.came_whole:
                        stream.inbox.abandon()
                if not stream.answered or stream.closes or not stream.framing.done or self._protocol.is_last:
                    await self._part(stream)
                    return
                following = self._behind(stream)
                if self.is_paused:
                    self._make_room()
                if following is None:
                    return
                stream, count = following, count + 1
                if count % _IN_A_ROW == 0:
                    await trio.lowlevel.checkpoint()
        except Exception:  # what is raised here is a bug of ours: its task's owner contains it
            self.close()
            raise

    async def _part(self, stream: RequestStream) -> None:
        """No request comes behind this one, which was served."""
        if not stream.answered and not stream.started and not stream.gone:
            await self._write(refusal(500))
        self._protocol.stream = None
        if not self._closing and not self._closed:
            await self._begin_close()
        self._make_room()

    def _behind(self, stream: RequestStream) -> RequestStream | None:
        """The next request, if it is there already, behind one that was answered; else the reader goes on."""
        protocol = self._protocol
        protocol.stream = None
        if self._closing or self._closed:
            return None
        self._expect(self._server.limits.idle_timeout)
        if not protocol.backlog:
            if stream.lives_in is not None:
                self._move(stream.lives_in)
            return None
        try:
            following = protocol.next_request()
        except HeadRefused as refused:
            self._refuse(refused.status)
            return None
        except Upgrade as upgrade:
            self._switch(upgrade)
            return None
        if following is None:
            self._expect(self._server.limits.head_timeout)
        else:
            self._due = math.inf
        return following

    async def _write(self, data: bytes) -> None:
        """Write all of it, unless the client is gone."""
        try:
            if self._writing is None or not self._writing.locked():
                sent = self._send_nowait(data)
                if sent == len(data):
                    return
                data = data[sent:]
            if self._writing is None:
                self._writing = trio.Lock()
            async with self._writing:
                await self._send_all(data)
        except GONE:
            self.close()

    # The end.

    def drain(self) -> None:
        """Close at once if the connection is idle; else its current response is its last."""
        self._protocol.is_last = True
        if self.idle and not self._closing:
            self.close()

    async def _begin_close(self) -> None:
        """Nothing more will be written. Read on for a moment, so that the client gets what was."""
        self._closing = True
        self._leave()
        try:
            if self._writing is not None:
                async with self._writing:
                    await self._send_eof()
            else:
                await self._send_eof()
        except GONE:
            self.close()
            return
        self._expect(LINGER_S)

    def close(self) -> None:
        """Close at once; whoever is being served has nobody to answer. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._disarm()
        self._leave()
        self._protocol.forget()
        self._shut()
