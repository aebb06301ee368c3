"""
Messages and descriptors over a socket pair.

A message is a head of four bytes of length and one that says whether a descriptor comes with it, then MessagePack.
Descriptors arrive with some byte of their message or before it, and in order; so they wait in a queue for the message
that they belong to.
"""

from __future__ import annotations

import array
import os
import socket
import struct
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from typing import Any, Final, Generic, TypeVar, final

import msgspec
import trio

from ..nursery import farewell

REST_S: Final = 10.0
"""Seconds for the rest of a message of which something has left already."""
_HEAD: Final = struct.Struct("!I?")
_CHUNK: Final = 256 * 1024
_ROOM: Final = socket.CMSG_SPACE(array.array("i").itemsize)
_LOST: Final = -1
"""Stands for a descriptor that could not be received: this process has as many open as it may."""
_encode: Final = msgspec.msgpack.Encoder().encode

_In = TypeVar("_In")


@final
class Channel(Generic[_In]):
    """
    One end of the connection between supervisor and worker.

    Args:
        connection: A stream socket, blocking or not; closed by `close`.
        incoming: The union of messages that come from the other side.
    """

    def __init__(self, connection: socket.socket, incoming: Any) -> None:
        connection.setblocking(False)
        self._socket = trio.socket.from_stdlib_socket(connection)
        self._decode: Any = msgspec.msgpack.Decoder(incoming).decode
        self._sending = trio.Lock()
        self._buffer = bytearray()
        self._descriptors: deque[int] = deque()

    async def send(self, message: msgspec.Struct, descriptor: int | None = None) -> bool:
        """
        Send a message; whether the other side was there. A descriptor is copied, and stays the caller's.

        Nothing is left half sent: a cancel that comes when the first byte has left is heeded behind the last one, and
        a connection whose other side does not read for so long is closed.
        """
        data = _encode(message)
        data = _HEAD.pack(len(data), descriptor is not None) + data
        rights = () if descriptor is None else ((socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor])),)
        async with self._sending:
            try:
                sent = await self._socket.sendmsg([data[:_CHUNK]], rights)
                return sent == len(data) or await self._send_rest(memoryview(data)[sent:])
            except (OSError, trio.ClosedResourceError):
                return False

    async def _send_rest(self, rest: memoryview) -> bool:
        with farewell(REST_S) as scope:
            while rest:
                rest = rest[await self._socket.send(rest[:_CHUNK]) :]
        if scope.cancelled_caught:
            self.close()
        return not scope.cancelled_caught

    async def messages(self) -> AsyncGenerator[tuple[_In, int | None], None]:
        """
        What comes, with the descriptor that came with it: that is the caller's. Ends with the connection.

        The descriptor is None, too, if it could not be received; whoever is at its other end finds it closed.
        """
        while True:
            while (message := self._next()) is not None:
                yield message
            try:
                data, ancillary, flags, _ = await self._socket.recvmsg(_CHUNK, _ROOM)
            except (OSError, trio.ClosedResourceError):
                return
            self._collect(ancillary, lost=bool(flags & socket.MSG_CTRUNC))
            if not data:
                return
            self._buffer += data

    def close(self) -> None:
        """Close it, and what came and nobody took. Idempotent."""
        self._socket.close()
        while self._descriptors:
            if (descriptor := self._descriptors.popleft()) != _LOST:
                os.close(descriptor)

    def _next(self) -> tuple[_In, int | None] | None:
        if len(self._buffer) < _HEAD.size:
            return None
        size, has_descriptor = _HEAD.unpack_from(self._buffer)
        end = _HEAD.size + size
        if len(self._buffer) < end:
            return None
        message: _In = self._decode(self._buffer[_HEAD.size : end])
        del self._buffer[:end]
        descriptor = self._descriptors.popleft() if has_descriptor else _LOST
        return message, None if descriptor == _LOST else descriptor

    def _collect(self, ancillary: Sequence[tuple[int, int, bytes]], *, lost: bool) -> None:
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                found = array.array("i")
                found.frombytes(data[: len(data) - len(data) % found.itemsize])
                self._descriptors.extend(found)
                lost = False
        if lost:
            self._descriptors.append(_LOST)


def receive_first(connection: socket.socket, kind: Any) -> Any:
    """
    The first message, read by a process that has no event loop yet. The connection is blocking.

    Raises:
        EOFError: The other side is gone.
    """
    size, _ = _HEAD.unpack(_exactly(connection, _HEAD.size))
    return msgspec.msgpack.decode(_exactly(connection, size), type=kind)


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = connection.recv(size - len(data))
        if not piece:
            raise EOFError("the supervisor is gone")
        data += piece
    return bytes(data)
