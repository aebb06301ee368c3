"""
One client on a WebSocket, from the accepted handshake to the close frame, whoever speaks the protocol underneath.

What ends it: the client leaves, and everything it has in flight is cancelled; or the gateway drains, and what is under
way is answered before the connection is closed with 1001.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol, final

import trio
from attrs import frozen

from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.model.handle import Handle
from sluiceway.pipeline.protocol.codec import decode_message
from sluiceway.pipeline.protocol.errors import GatewayError
from sluiceway.pipeline.protocol.gate import Limits
from sluiceway.pipeline.protocol.messages import Message
from sluiceway.pipeline.runtime.nursery import farewell

from ..connection import Connection, Peer
from ..outbox import Outbox
from .handshake import Visit
from .wire import GOING_AWAY, Gone

_LAST_FRAME_S: Final = 1.0
_SHUTTING_DOWN: Final = "the gateway is shutting down"
_POLICY: Final = 1008
"""Close code for a client that does not keep to the rules of the server (RFC 6455 section 7.4.1)."""


class Socket(Protocol):
    """An open WebSocket: our own `Wire`, or the one of an ASGI server."""

    async def receive(self) -> bytes:
        """The next message. Raises `Gone`."""
        ...

    async def send(self, messages: Sequence[bytes]) -> None:
        """Send messages as text. Raises `Gone`."""
        ...

    async def close(self, code: int, reason: str = "") -> None:
        """End it with a close frame, and wait a moment for the answer."""
        ...

    async def leave(self, code: int, reason: str) -> None:
        """End it with a close frame, and wait for nobody."""
        ...


@final
@frozen
class ClientLimits:
    """What one client may cost."""

    max_message: int
    """Bytes of one message."""
    max_in_flight: int
    """Requests under way at once."""
    max_unread: int
    """Bytes that may wait for it to read them."""


@final
class Conversation:
    """
    What is said with one client of a source.

    Args:
        context: The source's.
        handle: The pipeline the source feeds.
        visit: How it came.
        limits: What it may cost.
    """

    def __init__(self, context: Context, handle: Handle, visit: Visit, limits: ClientLimits) -> None:
        self._context = context
        self._handle = handle
        self._visit = visit
        self._limits = limits
        self._leaving = trio.Event()
        self._codec = Limits(max_message_size=limits.max_message)
        self._log: Any = context.log

    def stop_accepting(self) -> None:
        """Refuse new requests, and leave when those under way are answered. Idempotent."""
        self._leaving.set()

    async def serve(self, socket: Socket) -> None:
        """Serve until the client is gone, or has been told to go."""
        visit, outbox = self._visit, Outbox(self._limits.max_unread)
        connection: Connection | None = None
        last_word: tuple[int, str] | None = (GOING_AWAY, _SHUTTING_DOWN)
        try:
            async with trio.open_nursery() as exchanges:
                connection = Connection(
                    self._context, self._handle, exchanges, outbox, transport="websocket",
                    max_in_flight=self._limits.max_in_flight,
                    peer=Peer(visit.address, visit.headers, visit.certificate),
                )  # fmt: skip
                reading = trio.CancelScope()
                exchanges.start_soon(self._write, socket, outbox, reading)
                exchanges.start_soon(self._drain, outbox, connection)
                with reading:
                    await self._read(socket, connection)
                    last_word = None
                if reading.cancelled_caught:  # it has been told everything
                    await socket.close(GOING_AWAY, _SHUTTING_DOWN)
                    last_word = None
                exchanges.cancel_scope.cancel()
            if last_word is not None:  # the connection cut it off
                last_word = (_POLICY, "requests come in, and answers are not read")
        finally:
            outbox.close()
            if connection is not None:
                connection.close()
            if last_word is not None:
                with farewell(_LAST_FRAME_S):
                    await socket.leave(*last_word)  # noqa: ASYNC102  # farewell is a bounded shield

    async def _read(self, socket: Socket, connection: Connection) -> None:
        while True:
            try:
                data = await socket.receive()
            except Gone as gone:
                self._log.debug("a client is gone", code=gone.code, reason=gone.reason, dropped=connection.dropped)
                return
            connection.receive(self._decoded(data))

    def _decoded(self, data: bytes) -> Message | GatewayError:
        try:
            return decode_message(data, self._codec)
        except GatewayError as error:
            return error

    async def _write(self, socket: Socket, outbox: Outbox, reading: trio.CancelScope) -> None:
        try:
            await outbox.run_each(socket.send)
            reading.cancel()
        except Gone:
            outbox.close()  # whoever reads sees it too

    async def _drain(self, outbox: Outbox, connection: Connection) -> None:
        await self._leaving.wait()
        connection.stop_accepting()
        await connection.drained.wait()
        outbox.close()
