"""
A connected socket, read and written without a task of its own.

Trying comes first, waiting only where it must; and who does not want to wait at all is called when there is something
(`on_readable`). Edges are counted, not states: whoever stops reading before there is nothing left has to remember that.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from typing import Final, final

import trio

from sluiceway.pipeline.model.parking import Parking

from .reactor import ENDING, READABLE, STICKY, WRITABLE, Reactor
from .watcher import Watcher

_GONE: Final = "the peer is gone"
_CLOSED: Final = "the connection is closed"
_IN_A_ROW: Final = 16
"""Reads that need not wait before other tasks have their turn."""
_LITTLE: Final = 512
"""Bytes that count as one read more: what is made of 8 KiB may take long enough."""
_PIECE: Final = 64 * 1024


@final
class Wire(trio.abc.HalfCloseableStream):
    """
    One end of a connection, for one reader and one writer.

    Args:
        sock: A connected stream socket, which the wire owns from now on. Made non-blocking.

    Raises:
        RuntimeError: Outside of a Trio run.
    """

    __slots__ = (
        "_asks",
        "_callback",
        "_closed",
        "_ended",
        "_in_a_row",
        "_number",
        "_reactor",
        "_reader",
        "_receive",
        "_send",
        "_sticky",
        "_watcher",
        "_writer",
        "has_more",
        "socket",
    )

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.socket: Final = sock
        """What is below, to be asked for addresses and options; not to be read, written or closed."""
        self._receive = sock.recv
        self._send = sock.send
        self._callback: Callable[[], object] | None = None
        self._reader = Parking("another task is reading from this connection")
        self._writer: Parking | None = None
        self._asks: Callable[[int], object] | None = None
        self.has_more = True
        """Whether there may be something to read: not if the last read got all there was. Always true without epoll."""
        self._sticky = False
        self._ended = False
        self._closed = False
        self._in_a_row = 0
        self._number = sock.fileno()
        self._watcher: Watcher | None = None
        self._reactor = Reactor.current()
        if self._reactor is not None:
            self._reactor.add(self._number, self)

    @classmethod
    def take(cls, sock: trio.socket.SocketType) -> Wire:
        """Make a wire of one of Trio's sockets, which is of no use from then on."""
        return cls(socket.socket(sock.family, sock.type, sock.proto, fileno=sock.detach()))

    @property
    def closed(self) -> bool:
        """Whether this end was closed."""
        return self._closed

    @property
    def ended(self) -> bool:
        """
        Whether the peer will send nothing more, or was lost; what it sent before may still be there to be read.

        Known at once with epoll; without it, when the end was read.
        """
        return self._ended

    @property
    def on_readable(self) -> Callable[[], object] | None:
        """
        What to call when there may be something to read, the end and errors included; None if somebody waits instead.

        It is called in a task of the system, which it must not block, once for whatever changed: read until
        `receive_nowait` returns None, or remember that there is more. A call without anything to read is possible.
        It hears of what was there before the wire was made, and not of what came before the callback was set later
        on. An exception closes the wire and is logged.
        """
        return self._callback

    @on_readable.setter
    def on_readable(self, callback: Callable[[], object] | None) -> None:
        self._callback = callback
        if self._reactor is None and not self._closed:
            self._watch(callback)

    # Reading.

    def receive_nowait(self, max_bytes: int) -> bytes | None:
        """
        What there is; empty at the end, and None if there is nothing at the moment.

        Raises:
            trio.ClosedResourceError: The wire was closed.
            trio.BrokenResourceError: The peer has reset the connection.
        """
        if not self.has_more:
            return None
        try:
            data = self._receive(max_bytes)
        except BlockingIOError:
            self._emptied()
            return None
        except OSError as error:
            raise self._lost() from error
        if not data:
            self._ended = True
        elif len(data) < max_bytes and not self._sticky:  # no need to be told so by another system call (epoll(7))
            if self._reactor is not None:
                self.has_more = False
            else:
                self._emptied()
        return data

    async def receive(self, max_bytes: int) -> bytes:
        """
        What there is, at least one byte; empty at the end.

        Waits if there is nothing. Otherwise other tasks have their turn once in a while only. Nothing is lost when it
        is cancelled.

        Raises:
            trio.ClosedResourceError: The wire was closed, perhaps meanwhile.
            trio.BrokenResourceError: The peer has reset the connection.
            trio.BusyResourceError: Somebody else is waiting already.
        """
        if self.has_more:
            await trio.lowlevel.checkpoint_if_cancelled()
            if self._in_a_row >= _IN_A_ROW:
                self._in_a_row = 0
                await trio.lowlevel.checkpoint()
        else:
            self._in_a_row = 0
            await self._reader.wait()
        while (data := self.receive_nowait(max_bytes)) is None:
            self._in_a_row = 0
            await self._wait_readable()
        self._in_a_row += 1 + len(data) // _LITTLE
        return data

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """See `receive`."""
        return await self.receive(max_bytes or _PIECE)

    def is_readable(self) -> bool:
        """Whether a read would return at once: with bytes, the end, or an error. Asks the kernel."""
        if self._closed:
            return True
        if self._asks is None:
            self._asks = _asking(self._number, writing=False)
        return bool(self._asks(0))

    # Writing.

    def send_nowait(self, data: bytes | bytearray | memoryview) -> int:
        """
        Write as much as can be written at once.

        Returns:
            How many bytes that was; 0 if nobody reads at the other end.

        Raises:
            trio.ClosedResourceError: The wire was closed.
            trio.BrokenResourceError: The peer is gone.
        """
        try:
            return self._send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise self._lost() from error

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """
        Write all of it. A checkpoint only if it has to wait; one that is cancelled before writes nothing.

        One at a time: whoever may write at the same moment as others needs a lock.

        Raises:
            trio.ClosedResourceError: The wire was closed, perhaps meanwhile.
            trio.BrokenResourceError: The peer is gone.
            trio.BusyResourceError: Somebody else is waiting already.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        sent = self.send_nowait(data)
        if sent < len(data):
            await self._send_rest(memoryview(data)[sent:])

    async def _send_rest(self, rest: memoryview) -> None:
        while rest:
            sent = self.send_nowait(rest)
            rest = rest[sent:]
            if not sent:
                await self._wait_writable()

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until a byte can be written. Raises as `send_all` does."""
        await trio.lowlevel.checkpoint()
        while not self._closed and not _asking(self._number, writing=True)(0):
            await self._wait_writable()
        if self._closed:
            raise trio.ClosedResourceError(_CLOSED)

    def send_eof_nowait(self) -> None:
        """Write nothing more, and let the peer know. Never blocks; harmless when the peer is gone. Idempotent."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            return

    async def send_eof(self) -> None:
        """See `send_eof_nowait`. Not a checkpoint."""
        self.send_eof_nowait()

    # The end.

    def close(self) -> None:
        """Close at once, without a checkpoint. Whoever waits gets `trio.ClosedResourceError`. Idempotent."""
        if self._closed:
            return
        self._closed = self.has_more = True
        self._callback = None
        if self._reactor is not None:
            self._reactor.remove(self._number)
        else:
            self._watch(None)
            trio.lowlevel.notify_closing(self._number)
        self.socket.close()
        self._reader.wake()
        if self._writer is not None:
            self._writer.wake()

    async def aclose(self) -> None:
        """Close at once; a checkpoint afterwards."""
        self.close()
        await trio.lowlevel.checkpoint()

    # What the reactor calls, and how to wait for it.

    def edge(self, events: int) -> None:
        """See `Ready`."""
        if events & STICKY:
            self._sticky = True
            if events & ENDING:
                self._ended = True
        if self._writer is not None and events & WRITABLE:
            self._writer.wake()
        if events & READABLE:
            self.has_more = True
            callback = self._callback
            if callback is None:
                self._reader.wake()
            else:
                callback()

    async def _wait_readable(self) -> None:
        if self._reactor is None:
            await trio.lowlevel.wait_readable(self._number)
        else:
            await self._reader.wait()

    async def _wait_writable(self) -> None:
        if self._reactor is None:
            await trio.lowlevel.wait_writable(self._number)
            return
        if self._writer is None:
            self._writer = Parking("another task is writing to this connection")
        await self._writer.wait()

    def _emptied(self) -> None:
        """There was nothing left: the next edge tells of more."""
        if self._reactor is not None:
            self.has_more = False
        elif self._watcher is not None:
            self._watcher.rearm()

    def _lost(self) -> trio.ClosedResourceError | trio.BrokenResourceError:
        if self._closed:
            return trio.ClosedResourceError(_CLOSED)
        self._ended = True
        return trio.BrokenResourceError(_GONE)

    def _watch(self, callback: Callable[[], object] | None) -> None:
        """Have a task look after the socket for a callback, where no reactor does."""
        if callback is None and self._watcher is not None:
            self._watcher.end()
            self._watcher = None
        elif callback is not None and self._watcher is None:
            self._watcher = Watcher(self._number, self)


def _asking(number: int, *, writing: bool) -> Callable[[int], object]:
    """What tells whether a read or a write would return within some milliseconds, be it with an error."""
    if not hasattr(select, "poll"):  # Windows, where `select` knows no limit to the number
        reads, writes = ((), (number,)) if writing else ((number,), ())
        return lambda wait_ms: any(select.select(reads, writes, (), wait_ms / 1000))
    asked = select.poll()
    asked.register(number, select.POLLOUT if writing else select.POLLIN)
    return asked.poll
