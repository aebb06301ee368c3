"""
The messages of one response stream, between the exchange that makes them and the connection that carries them.

An exchange appends; whoever is attached takes and writes. In the legacy era a stream outlives its connection: what it
carried is kept for a while, so that a client which reconnects with `Last-Event-ID` misses nothing and gets nothing
twice (MCP 2025-03-26 to 2025-11-25, transports, resumability). In the modern era nothing is kept.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, final

import trio

from sluiceway.pipeline.model.options import KIB

OUTBOX: Final = 16
"""Messages that may wait for an attached reader before the exchange waits for it."""
OUTBOX_BYTES: Final = 256 * KIB
"""Bytes of them, likewise; a single message may have more."""


@final
class Replay:
    """
    What the resumable streams of a source keep, all together.

    Args:
        max_events: Messages kept per stream.
        max_bytes: Bytes kept by all streams; above this the oldest stream forgets first.
    """

    def __init__(self, max_events: int, max_bytes: int) -> None:
        self.max_events = max_events
        self.max_bytes = max_bytes
        self.size = 0
        """Bytes kept now."""
        self._streams: OrderedDict[str, MessageStream] = OrderedDict()

    def __len__(self) -> int:
        return len(self._streams)

    def add(self, stream: MessageStream) -> None:
        """Keep what a stream carries from now on, and what waits in it."""
        self._streams[stream.id] = stream
        self.charge(stream.size)

    def remove(self, stream: MessageStream) -> None:
        """Keep nothing of it any more. Harmless when it is not kept."""
        if self._streams.pop(stream.id, None) is not None:
            self.size -= stream.size

    def charge(self, size: int) -> None:
        """Account for bytes that a kept stream gained; make others forget if that is too much."""
        self.size += size
        if self.size <= self.max_bytes:
            return
        for stream in list(self._streams.values()):
            while self.size > self.max_bytes and stream.forget_oldest():
                pass  # forget_oldest releases what it frees


@final
class MessageStream:
    """
    An ordered log of encoded messages with one reader at a time.

    Numbers start at 1 and name positions for ever: message 7 stays 7 when 1 to 6 are forgotten. 0 is the position
    before the first.

    Args:
        stream_id: Unguessable; part of the event ids.
    """

    def __init__(self, stream_id: str) -> None:
        self.id = stream_id
        self.size = 0
        """Bytes it holds."""
        self.ended = False
        """Nothing will be appended any more."""
        self.interim = False
        """Something other than replies was appended, so this must become an event stream."""
        self.dropped = 0
        """Messages nobody ever took, forgotten for want of room."""
        self.is_long = False
        """The reply comes in pieces, because it is too long to be held; it is the last message."""
        self.is_broken = False
        """It broke off."""
        self._pieces: list[bytes] = []
        self._messages: dict[int, bytes] = {}
        self._first = 1
        self._taken = 0
        self._untaken = 0
        self._reader: object | None = None
        self._replay: Replay | None = None
        self._changed: trio.Event | None = None
        self._room: trio.Event | None = None

    @property
    def last(self) -> int:
        """The number of the latest message; 0 before the first."""
        return self._first + len(self._messages) - 1

    @property
    def taken(self) -> int:
        """The number up to which a reader took messages."""
        return self._taken

    @property
    def attached(self) -> bool:
        """Whether somebody reads."""
        return self._reader is not None

    def keep(self, replay: Replay) -> None:
        """Make the stream resumable: messages stay after they were taken."""
        self._replay = replay
        replay.add(self)

    def discard(self) -> None:
        """Forget everything kept; the stream can be resumed no more. Idempotent."""
        if self._replay is not None:
            self._replay.remove(self)
            self._replay = None

    # The side of the exchange.

    async def put(self, message: bytes) -> None:
        """
        Append a message that comes before the reply. Waits while an attached reader is more than `OUTBOX` messages or
        `OUTBOX_BYTES` behind.
        """
        self.put_nowait(message)
        while self._reader is not None and self._is_behind and not self.ended:
            await self._more_room()

    @property
    def _is_behind(self) -> bool:
        return self.last - self._taken > OUTBOX or self._untaken > OUTBOX_BYTES

    def put_nowait(self, message: bytes) -> None:
        """Append a message that comes before the reply. Nothing happens after the end."""
        if not self.ended:
            self.interim = True
            self._append(message)

    def put_reply(self, message: bytes) -> None:
        """Append a reply."""
        if not self.ended:
            self._append(message)

    async def put_piece(self, piece: bytes) -> None:
        """Append a part of a long reply. Waits until the reader has taken it; without one it is dropped."""
        self.is_long = True
        if self._reader is None or self.ended:
            return
        self._pieces.append(piece)
        self.wake()
        while self._pieces and self._reader is not None and not self.ended:
            await self._more_room()

    def end_long(self, rest: bytes | None) -> None:
        """Append the last part of a long reply; None if it broke off."""
        if rest is None:
            self.is_broken = True
        else:
            self._pieces.append(rest)
        self.end()

    def end(self) -> None:
        """Nothing more will come. Idempotent."""
        self.ended = True
        self.wake()
        self._let_in()

    def _append(self, message: bytes) -> None:
        self._messages[self.last + 1] = message
        self.size += len(message)
        self._untaken += len(message)
        if self._replay is not None:
            self._replay.charge(len(message))
            if len(self._messages) > self._replay.max_events:
                self._forget()
        self.wake()

    # The side of the reader.

    def attach(self, reader: object, after: int | None = None) -> bool:
        """
        Read from now on, in place of whoever did; the earlier reader finds out by `reads`.

        Args:
            reader: Anything with identity.
            after: Continue behind this number; behind the latest message taken when None.

        Returns:
            False, and nothing has changed, if messages behind that number are forgotten or it is in the future.
        """
        position = self._taken if after is None else after
        if position > self.last or position + 1 < self._first:
            return False
        self._taken = position
        self._untaken = sum(len(self._messages[number]) for number in range(position + 1, self.last + 1))
        self._reader = reader
        self.wake()
        return True

    def detach(self, reader: object) -> bool:
        """Stop reading; whether it was this reader who read."""
        if self._reader is not reader:
            return False
        self._reader = None
        self._let_in()
        return True

    def reads(self, reader: object) -> bool:
        """Whether this reader still is the one who reads."""
        return self._reader is reader

    def take(self) -> list[tuple[int, bytes]]:
        """Every message not yet taken, with its number."""
        found = [(number, self._messages[number]) for number in range(self._taken + 1, self.last + 1)]
        self._taken, self._untaken = self.last, 0
        if self._replay is None:
            while self._messages:
                self._forget()
        self._let_in()
        return found

    def take_pieces(self) -> bytes:
        """What there is of a long reply; empty if nothing is."""
        taken = b"".join(self._pieces)
        self._pieces.clear()
        self._let_in()
        return taken

    async def changed(self) -> None:
        """Wait for a message, the end, or another reader. Ask for the state first: only news wakes."""
        if self._changed is None:
            self._changed = trio.Event()
        await self._changed.wait()

    def wake(self) -> None:
        """Let the reader look again."""
        changed, self._changed = self._changed, None
        if changed is not None:
            changed.set()

    def forget_oldest(self) -> bool:
        """
        Give up the oldest message to make room, unless a reader is still to take it.

        Returns:
            Whether something was forgotten.
        """
        if not self._messages or (self._reader is not None and self._first > self._taken):
            return False
        self._forget()
        return True

    def _forget(self) -> None:
        message = self._messages.pop(self._first)
        if self._first > self._taken:
            self.dropped += 1
            self._taken = self._first
            self._untaken -= len(message)
        self._first += 1
        self.size -= len(message)
        if self._replay is not None:
            self._replay.size -= len(message)

    def _let_in(self) -> None:
        room, self._room = self._room, None
        if room is not None:
            room.set()

    async def _more_room(self) -> None:
        if self._room is None:
            self._room = trio.Event()
        await self._room.wait()
