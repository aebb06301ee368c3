"""
An open WebSocket: whole messages each way, signs of life, and an end with a code.

trio-websocket speaks the protocol; what is added is what it leaves to its user. A peer that gives no sign of life is
asked with a ping, and given up if none follows: neither a cut cable nor a client that reads nothing holds a connection
for longer. Whatever was received counts as a sign, and so does what the peer's side took of what we write, so that a
slow reader of a long message is not mistaken for a dead one. The stream is always closed at the end.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, Final, Protocol, final

import h11
import trio
from attrs import frozen
from trio_websocket import ConnectionClosed, ConnectionRejected, HandshakeError, WebSocketConnection
from wsproto import ConnectionType
from wsproto.utilities import LocalProtocolError, ProtocolError

from sluiceway.pipeline.runtime.nursery import unwrap_single

from .frames import Frames, Texts

GOING_AWAY: Final = 1001
ABNORMAL: Final = 1006
"""The connection ended without a close frame; never on the wire (RFC 6455 section 7.4.1)."""

_PIECE: Final = 64 * 1024
"""Bytes written at a time."""
_READ: Final = 8 * 1024
"""Bytes read at a time: of the smallest frames 1,200, which take some 30 ms before others have their turn."""
_CLOSING_S: Final = 2.0
"""How long a peer may take to answer our close frame."""
_LINGER_S: Final = 1.0
"""How long to read and drop after the last word: closing with unread bytes would reset it away."""
_UNTAKEN: Final = 64 * 1024
"""Bytes of messages that nobody has taken, above which no more are read."""
_IN_A_ROW: Final = 64
"""Messages that need not be waited for before other tasks have their turn."""
_MAX_UNANSWERED: Final = 3
"""Pings without a pong from a peer that is alive otherwise; such a one does not speak the protocol."""

# one line for every frame at level DEBUG, formatted or not, and one warning for each event it does not know
logging.getLogger("trio-websocket").setLevel(logging.ERROR)


class Bytes(Protocol):
    """The byte stream underneath; a `trio.abc.Stream`, or a connection that `http_client` made."""

    async def send_all(self, data: bytes) -> None:
        """Write all of it."""
        ...

    def receive_some(self, max_bytes: int) -> Coroutine[Any, Any, bytes | bytearray]:
        """What there is; empty at the end."""
        ...


class Gone(Exception):
    """
    The WebSocket is closed, or was never opened.

    Args:
        code: Of the close frame; 1006 without one.
        reason: What it says, or what is known otherwise; for people.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{reason} (close code {code})" if reason else f"close code {code}")
        self.code = code
        self.reason = reason


class Refused(Exception):
    """
    The peer does not open a WebSocket.

    Args:
        text: Why, as the end of a sentence.
        status: What it answered in HTTP, if it did.
    """

    def __init__(self, text: str, status: int | None = None) -> None:
        super().__init__(text)
        self.status = status


@final
@frozen
class WireLimits:
    """What a peer may cost."""

    max_message: int
    """Bytes of one message."""
    ping_interval_s: float
    """Silence after which the peer is asked for a sign of life."""
    ping_timeout_s: float
    """How long it may take to give one."""


@final
class _Watched(trio.abc.Stream):
    """The stream as trio-websocket sees it: notes signs of life, ends at a failure, closes without waiting."""

    def __init__(self, stream: Any, first: bytes, frames: Frames) -> None:
        self.may_read = trio.Event()
        """A server hears nothing before it has accepted: wsproto would take frames for more of the request."""
        self._stream = stream
        self._first = first
        self._frames = frames
        self.last_sign = trio.current_time()
        self.torn = False
        """A frame was written in part: nothing can follow it."""
        self.is_closing = False
        """Nobody takes what arrives; it must not stand in the way of the answer to our close frame."""
        self.arrived = trio.lowlevel.ParkingLot()
        """Who waits for a message."""
        self.taken = trio.lowlevel.ParkingLot()
        """Who waits for messages to be taken."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self.torn = True
        for start in range(0, len(data), _PIECE):
            await self._stream.send_all(data[start : start + _PIECE])
            self.last_sign = trio.current_time()
        self.torn = False

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if not self.may_read.is_set():
            await self.may_read.wait()
        if self._frames.held:
            self.arrived.unpark()
            while self._frames.held > _UNTAKEN and not self.is_closing:
                await self.taken.park()
        if self.is_closing:
            self._frames.drop()
        if self._first:
            await trio.lowlevel.checkpoint()
            first, self._first = self._first[:_READ], self._first[_READ:]
            return first
        if self._frames.failure is not None:
            return b""
        data: bytes | bytearray = await self._stream.receive_some(max_bytes or _PIECE)
        self.last_sign = trio.current_time()
        return data

    async def aclose(self) -> None:
        close = getattr(self._stream, "close", None)
        if close is not None:
            close()
        else:
            await trio.aclose_forcefully(self._stream)

    async def settle(self, last_word: bytes) -> None:
        """Say the last word, if one can be said, and let the peer hear it."""
        if not last_word or self.torn:
            return
        with trio.move_on_after(_LINGER_S), suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self._stream.send_all(last_word)
            if isinstance(self._stream, trio.abc.HalfCloseableStream):
                await self._stream.send_eof()  # a server is the first to end TCP (RFC 6455 section 7.1.1)
            while await self._stream.receive_some(_PIECE):
                pass


@final
class Wire:
    """One open WebSocket. Made by `accept` and `connect`; one task may receive and one may send at a time."""

    def __init__(self, stream: _Watched, frames: Frames, socket: WebSocketConnection, limits: WireLimits) -> None:
        self._stream = stream
        self._frames = frames
        self._socket = socket
        self._limits = limits
        self._lost = ""
        self._is_over = False
        self._in_a_row = 0
        self._refusal = Refused("it hangs up during the handshake")

    @property
    def subprotocol(self) -> str | None:
        """What was agreed on, if anything."""
        return self._socket.subprotocol

    async def receive(self) -> bytes:
        """
        The next message of the peer, as bytes whether it came as text or not.

        A checkpoint if none is there, and once in a while.

        Raises:
            Gone: There will be none.
        """
        frames, stream = self._frames, self._stream
        self._in_a_row += 1
        if self._in_a_row > _IN_A_ROW:
            self._in_a_row = 0
            await trio.lowlevel.checkpoint()
        while not frames.held:
            if self._is_over:
                raise self._gone()
            self._in_a_row = 0
            stream.taken.unpark()
            await stream.arrived.park()
        return frames.take()

    async def send(self, messages: Sequence[bytes]) -> None:
        """
        Send messages as text, together. Whoever is cancelled here may leave half a message behind; only the end can
        follow it.

        Raises:
            Gone: Nobody will read them.
        """
        if self._socket.closed is not None:
            raise self._gone()
        try:
            await self._socket._send(Texts(messages))
        except (ConnectionClosed, LocalProtocolError) as closed:
            raise self._gone() from closed

    async def close(self, code: int, reason: str = "") -> None:
        """Say that this is the end, and wait for the peer to say so too, for two seconds at most. Idempotent."""
        if self._stream.torn:
            return
        self._stream.is_closing = True
        self._end()
        with trio.move_on_after(_CLOSING_S):
            await self._socket.aclose(code, reason)

    async def leave(self, code: int, reason: str) -> None:
        """Say that this is the end, and wait for nobody; for an end from outside, when nobody reads any more."""
        frame = b"" if self._stream.torn else self._frames.close_frame(code, reason)
        if frame:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await self._stream.send_all(frame)

    def _end(self) -> None:
        """No message will be there any more."""
        self._is_over = True
        self._stream.arrived.unpark_all()
        self._stream.taken.unpark_all()

    def _gone(self) -> Gone:
        if self._lost:
            return Gone(ABNORMAL, self._lost)
        if self._frames.failure is not None:
            return Gone(*self._frames.failure)
        closed = self._socket.closed
        return Gone(ABNORMAL, "") if closed is None else Gone(int(closed.code), closed.reason or "")

    async def _read(self, opening: trio.CancelScope) -> None:
        """trio-websocket's reader, contained: what a peer sends ends its own connection and nothing else."""
        try:
            await self._socket._reader_task()
        except ConnectionRejected as rejected:
            status = rejected.status_code
            self._refusal = Refused(f"it answers the upgrade with HTTP {status}", status)
        except (HandshakeError, ProtocolError, h11.ProtocolError, UnicodeError) as error:
            self._refusal = Refused(f"its answer to the upgrade is none: {error}")
        finally:
            opening.cancel()
            self._end()

    async def _keep_alive(self) -> None:
        limits, unanswered = self._limits, 0
        while unanswered < _MAX_UNANSWERED:
            quiet_at = self._stream.last_sign + limits.ping_interval_s
            if trio.current_time() < quiet_at:
                await trio.sleep_until(quiet_at)
                continue
            asked_at = trio.current_time()
            with trio.move_on_after(limits.ping_timeout_s) as waiting:
                try:
                    await self._socket.ping()
                except (ConnectionClosed, LocalProtocolError):
                    return
            unanswered = unanswered + 1 if waiting.cancelled_caught else 0
            if unanswered and self._stream.last_sign <= asked_at:
                break
        self._lost = f"no sign of life within {limits.ping_timeout_s:g} s of a ping"
        await self._stream.aclose()

    @asynccontextmanager
    async def _open(self, shake_hands: Callable[[], Awaitable[object]]) -> AsyncIterator[Wire]:
        with unwrap_single():
            try:
                async with trio.open_nursery() as tasks:
                    opening = trio.CancelScope()
                    tasks.start_soon(self._read, opening)
                    with opening:
                        await shake_hands()
                    if opening.cancelled_caught:
                        raise self._refusal
                    tasks.start_soon(self._keep_alive)
                    yield self
                    tasks.cancel_scope.cancel()
                await self._stream.settle(self._frames.last_word)
            finally:
                await self._stream.aclose()  # noqa: ASYNC102  # closes without waiting


def accept(
    stream: Bytes, key: str, subprotocol: str | None, *, first: bytes, limits: WireLimits
) -> AbstractAsyncContextManager[Wire]:
    """
    Answer an upgrade that was found to be in order, and be the server of the WebSocket. Closes the stream at the end.

    Args:
        stream: Where the head of the request was read from.
        key: Its `Sec-WebSocket-Key`.
        subprotocol: What is chosen of those it offers, if any.
        first: What was read behind the head.
        limits: What the client may cost.

    Raises:
        Refused: The client left.
    """
    frames = Frames(ConnectionType.SERVER, limits.max_message)
    offer = [] if subprotocol is None else [(b"sec-websocket-protocol", subprotocol.encode())]
    request = [
        (b"host", b"localhost"), (b"connection", b"upgrade"), (b"upgrade", b"websocket"),
        (b"sec-websocket-version", b"13"), (b"sec-websocket-key", key.encode()), *offer,
    ]  # fmt: skip
    frames.initiate_upgrade_connection(request, "/")
    watched = _Watched(stream, first, frames)
    socket = WebSocketConnection(
        watched, frames, message_queue_size=1, max_message_size=sys.maxsize, receive_buffer_size=_READ
    )

    async def shake_hands() -> None:
        try:
            await (await socket._get_request()).accept(subprotocol=subprotocol)
        except ConnectionClosed as error:
            raise Refused("it left before it was answered") from error
        watched.may_read.set()

    return Wire(watched, frames, socket, limits)._open(shake_hands)


def connect(
    stream: Bytes,
    authority: str,
    path: str,
    *,
    subprotocols: Sequence[str],
    headers: Iterable[tuple[str, str]],
    limits: WireLimits,
    timeout_s: float,
) -> AbstractAsyncContextManager[Wire]:
    """
    Ask for an upgrade, and be the client of the WebSocket. Closes the stream at the end.

    Args:
        stream: A new connection to the server.
        authority: What goes into `Host`.
        path: With the query, if there is one.
        subprotocols: To offer; the server chooses one, or none.
        headers: Further headers of the request.
        limits: What the server may cost.
        timeout_s: Seconds it may take to open the WebSocket.

    Raises:
        Refused: The server does not do that.
    """
    frames = Frames(ConnectionType.CLIENT, limits.max_message)
    watched = _Watched(stream, b"", frames)
    watched.may_read.set()
    socket = WebSocketConnection(
        watched, frames, host=authority, path=path, client_subprotocols=subprotocols,
        client_extra_headers=[(name.encode(), value.encode()) for name, value in headers],
        message_queue_size=1, max_message_size=sys.maxsize, receive_buffer_size=_READ,
    )  # fmt: skip

    async def shake_hands() -> None:
        with trio.move_on_after(timeout_s) as patience:
            await socket._open_handshake.wait()
        if patience.cancelled_caught:
            raise Refused(f"no answer to the upgrade within {timeout_s:g} s (connect_timeout)")

    return Wire(watched, frames, socket, limits)._open(shake_hands)
