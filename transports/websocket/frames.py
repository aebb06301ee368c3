"""
Frames in, whole messages out: the sans-IO half of a WebSocket (RFC 6455), with the bounds that wsproto does not have.

Messages are no events: they wait in an inbox, so that all that one read brought can be taken at once.

wsproto hands out every piece of a message as it comes, and who collects the pieces pays for each of them: a peer that
sends a message in frames of one byte, or of none, costs a hundred times what it sends. Here pieces are joined as bytes
and counted as bytes. What a peer does wrong is answered with a close frame that says what it was.

No extension is ever offered or accepted: compressed messages would have no bound before they are read, and what is
compressed together with a secret gives it away.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Final, final

from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import BytesMessage, CloseConnection, Event, RejectConnection, RejectData, TextMessage
from wsproto.utilities import LocalProtocolError

TOO_BIG: Final = 1009
"""Close code for a message over the limit (RFC 6455 section 7.4.1)."""
_OVERHEAD: Final = 64
"""Bytes that a message costs whatever it says."""


@final
class Texts(Event):
    """
    Several messages that leave together.

    Args:
        messages: UTF-8, each sent as text.
    """

    def __init__(self, messages: Sequence[bytes]) -> None:
        self.messages = messages


@final
class Frames(WSConnection):
    """
    One end of a WebSocket, from its handshake on.

    Args:
        side: Which end it is.
        max_message: Bytes that a message of the peer may have.
    """

    def __init__(self, side: ConnectionType, max_message: int) -> None:
        super().__init__(side)
        self._max_message = max_message
        self._parts = bytearray()
        self._inbox: deque[bytes] = deque()
        self._held = 0
        self.failure: tuple[int, str] | None = None
        """Close code and reason, once the peer has done something that ends the connection."""
        self.last_word = b""
        """The close frame that says so; whoever writes sends it last."""

    @property
    def held(self) -> int:
        """Bytes of messages that nobody has taken, and a little for each; 0 if there is none."""
        return self._held

    def take(self) -> bytes:
        """The first message that nobody has taken: bytes, whether it came as text or not. There must be one."""
        message = self._inbox.popleft()
        self._held -= len(message) + _OVERHEAD
        return message

    def drop(self) -> None:
        """Forget what arrived."""
        self._inbox.clear()
        self._held = 0

    def events(self) -> Iterator[Event]:  # type: ignore[override]  # wsproto promises a generator and uses an iterator
        """What arrived beside messages, which go into the inbox meanwhile. Nothing after a failure."""
        if self.failure is not None:
            return
        for event in super().events():
            if isinstance(event, TextMessage | BytesMessage):
                self._join(event)
            elif isinstance(event, RejectConnection):
                # the body of a refusal is for people with browsers, and has no bound
                yield RejectConnection(status_code=event.status_code, headers=event.headers, has_body=False)
            elif isinstance(event, CloseConnection) and self.state is ConnectionState.OPEN:
                self._fail(int(event.code), event.reason or "")  # wsproto's way to say that the peer broke the protocol
            elif not isinstance(event, RejectData):
                yield event
            if self.failure is not None:
                return

    def send(self, event: Event) -> bytes:
        """The bytes of what is to be sent; raises `LocalProtocolError` when nothing can be."""
        if isinstance(event, Texts):
            send = super().send
            return b"".join([send(TextMessage(data=message.decode())) for message in event.messages])
        return super().send(event)

    def close_frame(self, code: int, reason: str) -> bytes:
        """The close frame to send, if one can be sent; else nothing."""
        try:
            return self.send(CloseConnection(code=code, reason=reason))
        except LocalProtocolError:
            return b""

    def _join(self, event: Any) -> None:
        data = event.data.encode() if isinstance(event, TextMessage) else event.data
        if len(self._parts) + len(data) > self._max_message:
            self._parts.clear()
            self._fail(TOO_BIG, f"a message has at most {self._max_message} bytes here")
        elif not event.message_finished:
            self._parts += data
        else:
            whole = bytes(self._parts + data) if self._parts else bytes(data)
            self._parts.clear()
            self._inbox.append(whole)
            self._held += len(whole) + _OVERHEAD

    def _fail(self, code: int, reason: str) -> None:
        self.failure = (code, reason)
        self.last_word = self.close_frame(code, reason)
