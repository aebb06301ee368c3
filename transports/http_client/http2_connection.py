"""
A connection to an origin that carries many requests at once (HTTP/2): the tasks around `Http2State`.

Two tasks belong to a connection, none to a request. One reads, and wakes the exchange that something came for. One
writes: what several exchanges say in the same moment leaves in one send, and an exchange that is cancelled tears no
frame that the others would stumble over, as it would if it wrote itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

import trio
from hpack import HeaderTuple

from sluiceway.pipeline.model.options import KIB, SECOND

from .connection import PeerGone, Transport
from .http2_state import UNSENT, Http2State
from .http2_stream import Http2Stream, MalformedHttp2
from .statistics import End

_PIECE: Final = 64 * KIB
_MAX_BACKLOG: Final = 2 * UNSENT
"""Bytes that wait for the transport, from which on there are no new requests: one that is called off leaves its own."""
_SILENCE_S: Final = 30 * SECOND
"""A peer that owes something and has said nothing for longer is asked for a sign of life."""
_SIGN_S: Final = 10 * SECOND
"""How long it may take to give one."""
_LINGER_S: Final = 5 * SECOND
"""How long a peer may take to end a response of which nobody waits for more."""
_LAST_WORD_S: Final = 1 * SECOND
"""How long a peer may take to take the last bytes on a connection."""

Happened = Callable[["Http2Connection"], None]


@final
class Http2Connection:
    """
    One HTTP/2 connection, and the requests on it.

    Args:
        transport: Where it speaks HTTP/2; owned from here on.
        on_change: Told when it may have room, or become superfluous. Must not block.
    """

    def __init__(self, transport: Transport, on_change: Happened) -> None:
        self._transport = transport
        self._on_change = on_change
        self._state = Http2State()
        self._scope = trio.CancelScope()
        self._writer: trio.lowlevel.Task | None = None
        self._leaving = False
        self._how = "closed the connection"
        self._lingering: dict[Http2Stream, float] = {}
        self._asked: float | None = None
        self._heard = self.born = self.rested = trio.current_time()
        self.uses = 0
        """Requests sent on it."""
        self.taken = 0
        """Places for requests that are taken, each by a stream or by who is about to open one."""
        self.retired = False
        """It gets no new requests, and ends with those that it has."""
        self.end: End | None = None
        """Why it ends; None while nobody knows."""

    @property
    def has_room(self) -> bool:
        """Whether it can take another request now."""
        state = self._state
        return self.serves and self.taken < state.max_streams and state.unsent < _MAX_BACKLOG

    @property
    def capacity(self) -> int:
        """Requests at the same time that the peer, and we, allow."""
        return self._state.max_streams

    @property
    def serves(self) -> bool:
        """Whether new requests may ever go on it again."""
        return not (self.retired or self._state.broken or self._state.goaway)

    @property
    def needs_http1(self) -> bool:
        """The peer said that it wants HTTP/1.1."""
        return self._state.needs_http1

    async def begin(self) -> None:
        """
        Exchange settings; `run` comes next. On failure the transport is still to be closed.

        Raises:
            PeerGone: The peer hung up.
            MalformedHttp2: It does not speak HTTP/2.
        """
        try:
            await self._transport.send_all(self._state.take_output())
            while not self._state.settled:
                data = await self._transport.receive_some(_PIECE)
                if not data:
                    raise PeerGone(untouched=True, unsent=True)
                self._state.receive(bytes(data))
        except trio.BrokenResourceError as error:
            raise PeerGone(untouched=True, unsent=True) from error
        self._heard = self.rested = trio.current_time()

    async def run(self) -> None:
        """Read and write until the connection ends; closes the transport, and fails what is left."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write)
                    await self._read()
                    self.retired = self._leaving = True
                    self._state.lose(self._how)  # now, though the last word may take a moment
                    self._kick()
                    nursery.cancel_scope.deadline = trio.current_time() + _LAST_WORD_S
        finally:
            self._transport.close()
            self._state.lose(self._how)

    def open(self, fields: list[HeaderTuple], wake: Callable[[], None], *, has_content: bool) -> Http2Stream:
        """
        Begin a request whose place was taken. Whatever becomes of it, `drop` or `linger` comes last.

        Raises:
            PeerGone: No new requests are taken; the place is free again.
        """
        try:
            stream = self._state.open(fields, wake, has_content=has_content)
        except PeerGone:
            self._free()
            raise
        now = trio.current_time()
        if now - self._heard > _SILENCE_S and self._asked is None:
            self._ask(now)
        self.uses += 1
        self._kick()
        return stream

    def send(self, stream: Http2Stream, content: memoryview) -> int:
        """Send as much of a request's content as may leave now: how many bytes that is."""
        sent = self._state.send(stream, content)
        self._kick()
        return sent

    def credit(self, stream: Http2Stream) -> None:
        """Something of the stream was consumed: the peer may send more."""
        self._state.credit(stream)
        self._kick()

    def drop(self, stream: Http2Stream) -> None:
        """Nobody wants anything from a stream any more; the peer is told at once, unless it has finished."""
        self._lingering.pop(stream, None)
        self._state.forget(stream)
        self._kick()
        self._free()

    def linger(self, stream: Http2Stream) -> None:
        """Nobody wants anything from a stream, but that the peer ends it: it gets a moment for that."""

        def settle() -> None:
            if stream.complete or stream.closed:
                stream.wake = _nobody
                self.drop(stream)

        stream.wake = settle
        self._lingering[stream] = trio.current_time()
        settle()

    def retire(self, end: End) -> None:
        """Take no new requests, and end as soon as there are none."""
        if self.end is None:
            self.end = end
        self.retired = True
        if self.taken == 0:
            self._state.say_goodbye()
            self._leaving = True
            self._scope.deadline = trio.current_time() + _LAST_WORD_S
            self._kick()

    def look_after(self, now: float) -> None:
        """Ask a silent peer for a sign of life, give up one that gives none. Called now and then. Must not block."""
        for stream, since in list(self._lingering.items()):
            if now - since >= _LINGER_S:
                self.drop(stream)
        if self._asked is not None:
            if now - self._asked >= _SIGN_S:
                self._how = f"gave no sign of life for {now - self._heard:.0f} s"
                self.end = End.DEAD
                self.retired = True
                self._scope.cancel()
        elif self.taken and now - self._heard >= _SILENCE_S:
            self._ask(now)

    def _ask(self, now: float) -> None:
        self._asked = now
        self._state.ping()
        self._kick()

    def _free(self) -> None:
        self.taken -= 1
        if self.taken == 0:
            self.rested = trio.current_time()
            if self.retired:
                self.retire(End.OLD)
        self._on_change(self)

    async def _read(self) -> None:
        try:
            while data := await self._transport.receive_some(_PIECE):
                self._heard, self._asked = trio.current_time(), None
                self._state.receive(bytes(data))
                self._kick()
                if self._state.goaway is not None:
                    self.retire(End.PEER)
                self._on_change(self)
        except trio.BrokenResourceError:
            pass
        except MalformedHttp2 as error:
            self._how = f"broke the rules of HTTP/2 ({error})"
        if self.end is None:
            self.end = End.PEER

    async def _write(self) -> None:
        """Send what there is to say; ends when the connection does."""
        try:
            while True:
                data = self._state.take_output()
                if data:
                    await self._transport.send_all(data)
                    self._state.wake_senders()
                    if len(data) >= _MAX_BACKLOG:
                        self._on_change(self)
                elif self._leaving:
                    break
                else:
                    self._writer = trio.lowlevel.current_task()
                    await trio.lowlevel.wait_task_rescheduled(self._stop_waiting)
        except trio.BrokenResourceError:
            self.retired = True
            self._scope.deadline = trio.current_time() + _LAST_WORD_S  # the reader may still find an answer
        else:
            self._scope.cancel()

    def _stop_waiting(self, _: object) -> trio.lowlevel.Abort:
        self._writer = None
        return trio.lowlevel.Abort.SUCCEEDED

    def _kick(self) -> None:
        """Have the writer look whether there is something to say."""
        if self._writer is not None and (self._state.unsent or self._leaving):
            task, self._writer = self._writer, None
            trio.lowlevel.reschedule(task)


def _nobody() -> None:
    """Nobody waits for this stream any more."""
