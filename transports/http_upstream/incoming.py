"""The messages in a response of the upstream: one as JSON, or several as server-sent events."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import final

import trio

from sluiceway.pipeline.protocol.codec import decode_upstream
from sluiceway.pipeline.protocol.errors import MessageTooLarge, UpstreamClosed, UpstreamProtocolError
from sluiceway.pipeline.protocol.gate import Limits
from sluiceway.pipeline.protocol.messages import Message, Notification
from sluiceway.pipeline.protocol.pieces import ENVELOPE, ResultPieces

from ..http_client.faults import Faults
from ..http_client.response import BodyTooLarge, Response
from ..sse_codec import Event, EventDecoder
from .answers import EVENTS, JSON, wrong_type
from .long_result import HELD, LongResult

Announce = Callable[[Notification], None]
"""Told of a notification of the upstream; must not block and must not raise."""


@final
class Incoming:
    """
    Reads a response message by message; who stops reading holds the upstream back.

    Args:
        name: What the upstream is called in errors.
        response: Whose body is read.
        faults: What turns its failures into errors.
        limits: Of one message.
        idle_s: Silence after which an event stream is given up.
        announce: Told of every notification before it is returned. Must not block.
        event_id: The latest event id that is known already, for a stream that is resumed.

    Raises:
        UpstreamProtocolError: The response is neither JSON nor an event stream.
    """

    def __init__(
        self,
        name: str,
        response: Response,
        faults: Faults,
        limits: Limits,
        idle_s: float,
        announce: Announce,
        event_id: str = "",
    ) -> None:
        head = response.head
        if head.media_type not in (JSON, EVENTS) or head.is_encoded:
            raise wrong_type(name, head)
        self.event_id = event_id
        """Id of the latest event that was taken; empty if there was none."""
        self.retry_s: float | None = None
        """Time to wait before reconnecting, if the upstream said so."""
        self.moved = False
        """Whether an event came."""
        self._name = name
        self._response = response
        self._faults = faults
        self._limits = limits
        self._idle_s = idle_s
        self._announce = announce
        self._events = EventDecoder(limits.max_message_size) if head.media_type == EVENTS else None
        self._ready: deque[Event] = deque()
        self._in_pieces = False
        self._size = 0
        self._held = deque[bytes]()
        """What was read before it was known that the body is long, as it came: one block of it would be memory anew."""
        self._done = False

    async def next(self) -> Message | None:
        """
        The next message; None at the end.

        Raises:
            UpstreamClosed: The connection broke, or nothing came for `idle_s`.
            UpstreamProtocolError: What came is not MCP, or longer than `max_message`.
        """
        if self._events is not None:
            message = await self._next_event(self._events)
            assert not isinstance(message, LongResult)
            return message
        if self._done:
            return None
        self._done = True
        with self._faults:
            body = await self._response.body(self._limits.max_message_size)
        return self._decoded(body)

    async def next_or_long(self) -> Message | LongResult | None:
        """The next message, or a result that is too long to be held, behind which nothing comes. Raises as `next`."""
        self._in_pieces = True
        if self._events is not None:
            return await self._next_event(self._events)
        if self._done:
            return None
        self._done = True
        return await self._next_long_body()

    async def _next_long_body(self) -> Message | LongResult:
        held, may_be_long = deque[bytes](), True
        while data := await self._more_body():
            held.append(data)
            if may_be_long and self._size > HELD:
                if len(held[0]) < ENVELOPE:
                    held = deque([b"".join(held)])
                begun = ResultPieces.begin(held[0])
                if begun is not None:
                    held.popleft()
                    self._held = held
                    return LongResult(*begun, self._more_body)
                may_be_long = False
        return self._decoded(b"".join(held))

    async def _more_body(self) -> bytes:
        if self._held:
            return self._held.popleft()
        with self._faults:
            data = await self._response.chunk()
            self._size += len(data)
            if self._size > self._limits.max_message_size:
                raise BodyTooLarge
        return data

    def _decoded(self, text: bytes) -> Message:
        message = decode_upstream(text, self._limits)
        if isinstance(message, Notification):
            self._announce(message)
        return message

    async def _next_event(self, decoder: EventDecoder) -> Message | LongResult | None:
        while True:
            while self._ready:
                event = self._ready.popleft()
                self.moved = True
                self.event_id = event.id or self.event_id
                if event.retry_ms is not None:
                    self.retry_s = event.retry_ms / 1000
                if event.data and event.type == "message":  # no data: it only says where to resume
                    return self._decoded(event.data.encode())
            data = await self._chunk()
            if not data:
                return None
            self._take(decoder, data)
            if self._in_pieces and not self._ready and (long := self._long_event(decoder)) is not None:
                return long

    def _take(self, decoder: EventDecoder, data: bytes) -> None:
        try:
            self._ready.extend(decoder.feed(data))
        except MessageTooLarge as error:
            raise UpstreamProtocolError(
                f"{self._name}: the upstream's message has more than {self._limits.max_message_size} bytes "
                "(max_message)"
            ) from error

    def _long_event(self, decoder: EventDecoder) -> LongResult | None:
        """The event that is coming in, if it is a result and too long to be held."""
        if decoder.pending <= HELD or (head := decoder.unfinished()) is None:
            return None
        begun = ResultPieces.begin(head)
        if begun is None:
            self._in_pieces = False  # so that it is not tried again with each piece
            return None
        decoder.begin_long()

        async def more() -> bytes:
            while decoder.in_long:
                data = await self._chunk()
                if not data:
                    raise UpstreamClosed(f"{self._name}: the upstream's event stream ended in the middle of a message")
                self._take(decoder, data)
                if taken := decoder.take_long():
                    return taken
            return decoder.take_long()

        return LongResult(*begun, more)

    async def _chunk(self) -> bytes:
        data = self._response.chunk_nowait()
        if data is not None:
            return data
        with self._faults, trio.move_on_after(self._idle_s):
            return await self._response.chunk()
        raise UpstreamClosed(
            f"{self._name}: nothing came on the upstream's event stream for {self._idle_s:g} s (idle_timeout)"
        )
