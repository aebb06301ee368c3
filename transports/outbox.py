"""
Messages on their way into a pipe, joined into as few writes as possible.

Joining what is pending is worth a factor of five to ten (one system call and one wake-up of the reader for many
messages). A message that is still waiting can be taken back; one whose write has begun cannot, for half a line in a
pipe makes everything behind it unreadable. So nothing cancels a write but the end of the connection.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Final, Protocol, final

import trio

from sluiceway.pipeline.model.parking import Parking

_BATCH: Final = 64 * 1024
"""Bytes of messages that are sent together."""


class Writer(Protocol):
    """Where lines go: a Trio stream, or what makes something else of them."""

    async def send_all(self, data: bytes) -> None:
        """Write lines, each with its newline. Raises `trio.BrokenResourceError` when the other end is gone."""
        ...


class Outgoing(Protocol):
    """Where messages go: an `Outbox`, or what does the same."""

    max_bytes: int
    """What may wait."""

    @property
    def size(self) -> int:
        """Bytes that wait."""
        ...

    def put_nowait(self, message: bytes, key: Hashable | None = None, *, alone: bool = False) -> None:
        """See `Outbox.put_nowait`."""
        ...

    def withdraw(self, key: Hashable) -> bool:
        """See `Outbox.withdraw`."""
        ...


@final
class Outbox:
    """
    A bounded queue of lines in front of one stream, and the loop that empties it.

    Args:
        max_bytes: What may wait, the write under way included. A single line always fits into an empty outbox.
        send_nowait: Writes to the same stream as `run` as much as can be written at once, for lines that need not wait
            for company. None if every line goes through `run`.
    """

    def __init__(self, max_bytes: int, send_nowait: Callable[[bytes], int] | None = None) -> None:
        self.max_bytes = max_bytes
        self._send_nowait = send_nowait
        self._waiting: dict[Hashable, bytes] = {}
        self._begun = b""
        self._size = 0
        self._closed = False
        self._writer = Parking()
        self._room: trio.Event | None = None

    @property
    def size(self) -> int:
        """Bytes that wait or are being written."""
        return self._size

    def put_nowait(self, message: bytes, key: Hashable | None = None, *, alone: bool = False) -> None:
        """
        Queue one message; the newline is added here.

        Args:
            message: One line, as `codec.encode_message` makes it.
            key: Under which `withdraw` finds it; unique among what waits.
            alone: No others are likely to follow soon: it is written at once if that can be done without waiting.

        Raises:
            trio.WouldBlock: There is no room for it.
            trio.ClosedResourceError: The outbox is closed.
        """
        if self._closed:
            raise trio.ClosedResourceError("the outbox is closed")
        size = self._size
        if size:
            if size + len(message) >= self.max_bytes:
                raise trio.WouldBlock
        elif alone and self._write_at_once(message + b"\n"):
            return
        self._waiting[object() if key is None else key] = message
        self._size += len(message) + 1
        self._writer.wake()

    async def put(self, message: bytes) -> None:
        """
        Queue one message as soon as there is room for it. A checkpoint only if it has to wait.

        Raises:
            trio.ClosedResourceError: The outbox is closed, or was while this waited.
        """
        while True:
            try:
                return self.put_nowait(message)
            except trio.WouldBlock:
                if self._room is None:
                    self._room = trio.Event()
                await self._room.wait()

    def withdraw(self, key: Hashable) -> bool:
        """Take a message back; whether it was still waiting."""
        message = self._waiting.pop(key, None)
        if message is None:
            return False
        self._release(len(message) + 1)
        return True

    def close(self) -> None:
        """Take nothing more. `run` ends when what waits is written. Idempotent."""
        self._closed = True
        self._writer.wake()
        self._let_in()

    async def run(self, stream: Writer) -> None:
        """
        Write what comes until closed and empty. The caller closes the stream.

        Raises:
            trio.BrokenResourceError: The other end is gone.
        """
        while await self._something():
            batch = self._begun + b"\n".join((*self._waiting.values(), b""))
            self._begun = b""
            self._waiting.clear()
            await stream.send_all(batch)
            self._release(len(batch))

    async def run_each(self, send: Callable[[Sequence[bytes]], Awaitable[None]]) -> None:
        """
        Write what comes, in messages, until closed and empty. What `send` raises comes out.

        Args:
            send: Sends several together. It gets no more than 64 KiB at once, or one message; those behind can be taken
                back as long as it is busy.
        """
        while await self._something():
            batch: list[bytes] = []
            size = 0
            for key, message in list(self._waiting.items()):
                if batch and size + len(message) >= _BATCH:
                    break
                batch.append(message)
                size += len(message) + 1
                del self._waiting[key]
            await send(batch)
            self._release(size)

    def _write_at_once(self, line: bytes) -> bool:
        """Begin to write a line into an empty stream, if that can be done without waiting; its rest goes before all."""
        if self._send_nowait is None:
            return False
        try:
            sent = self._send_nowait(line)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return False  # `run` meets the same, and tells its owner
        if 0 < sent < len(line):
            self._begun = line[sent:]
            self._size = len(self._begun)
            self._writer.wake()
        return sent > 0

    async def _something(self) -> bool:
        """Wait for something to write; False at the end. Not a checkpoint if something waits."""
        while not self._size:
            if self._closed:
                return False
            await self._writer.wait()
        return True

    def _release(self, size: int) -> None:
        self._size -= size
        self._let_in()

    def _let_in(self) -> None:
        room, self._room = self._room, None
        if room is not None:
            room.set()


@final
class Notices:
    """
    Messages that nobody waits for, in an outbox where others have right of way: the oldest give room to newer ones.

    Args:
        outbox: Where they go.
        maximum: How many of them may wait.
    """

    def __init__(self, outbox: Outbox, maximum: int) -> None:
        self._outbox = outbox
        self._maximum = maximum
        self._waiting: deque[object] = deque()
        self.dropped = 0
        """Messages that were never sent."""

    def put_nowait(self, message: bytes) -> None:
        """Queue a message, or drop it if there is no room even without the older ones. Nothing after the end."""
        if len(self._waiting) == self._maximum:
            self._drop_oldest()
        key = object()
        while True:
            try:
                self._outbox.put_nowait(message, key)
            except trio.WouldBlock:
                if self._drop_oldest():
                    continue
                self.dropped += 1
            except trio.ClosedResourceError:
                pass
            else:
                self._waiting.append(key)
            return

    def _drop_oldest(self) -> bool:
        """Take back the oldest that has not left yet; whether there was one. Those that have left are forgotten."""
        while self._waiting:
            if self._outbox.withdraw(self._waiting.popleft()):
                self.dropped += 1
                return True
        return False
