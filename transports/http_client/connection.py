"""
What every response has in common, and one connection to an origin that carries one request after the other (HTTP/1.1).

No task, no lock, no timer: the task of the exchange reads and writes itself. Whoever is cancelled in the middle leaves
a connection that nobody can use any more, so it is closed, and for HTTP/1.1 that is how a peer is told to stop.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Final, Protocol, Self, final

import trio
from attrs import define

from .known_heads import KnownHeads
from .parser import Head, MalformedResponse, ResponseParser

PIECE: Final = 64 * 1024
"""Bytes read at a time; also what a response that nobody reads holds at most."""
_SETTLE_S: Final = 0.05
"""How long the end of an earlier response may hold up a request."""


class Transport(Protocol):
    """The byte stream under a connection, as `connect` makes it."""

    @abstractmethod
    async def send_all(self, data: bytes) -> None:
        """Write all of it. Raises `trio.BrokenResourceError` if the peer is gone."""

    @abstractmethod
    async def receive_some(self, max_bytes: int) -> bytes | bytearray:
        """What there is, at least one byte; empty at the end. Raises `trio.BrokenResourceError` after a reset."""

    @abstractmethod
    def close(self) -> None:
        """Close at once, without a checkpoint. Idempotent."""

    @abstractmethod
    def is_readable(self) -> bool:
        """Whether a read would return at once: on a connection at rest that means the peer has closed it."""

    @property
    @abstractmethod
    def speaks_http2(self) -> bool:
        """Whether both ends agreed on HTTP/2 in the TLS handshake (ALPN)."""


class PeerGone(Exception):
    """
    The connection ended before the response was complete.

    Args:
        untouched: Not a byte of the response came.
        unsent: The request did not leave as a whole, or the peer says so: nobody can have acted on it.
        how: What the peer did, as the part of a sentence that follows its name.
    """

    def __init__(self, *, untouched: bool, unsent: bool = False, how: str = "closed the connection") -> None:
        super().__init__("the connection ended before the response was complete")
        self.untouched = untouched
        self.unsent = unsent
        self.how = how


class BodyTooLarge(Exception):
    """A body has more bytes than the caller takes."""


@final
@define(eq=False)
class Connection:
    """A transport and what the pool knows about it."""

    transport: Transport
    born: float
    """Trio clock seconds."""
    uses: int = 0
    """Requests sent on it."""
    expires: float = 0.0
    """Until when it may be used again, if it is at rest; Trio clock seconds."""
    ending: ResponseParser | None = None
    """A response of which nothing is missing but the mark of its end; None if it is complete."""

    async def settle(self) -> bool:
        """
        Read the mark of the end that a response was still missing, if it has arrived by now.

        Returns:
            Whether the connection can carry another request. A checkpoint only if there is something to read.
        """
        parser = self.ending
        if parser is None:
            return not self.transport.is_readable()
        if not self.transport.is_readable():
            return False
        settled = False
        try:
            with trio.move_on_after(_SETTLE_S):  # part of a TLS record can be there without its rest
                await self.read(parser)
                settled = True
        except (PeerGone, MalformedResponse):
            return False
        self.ending = None
        return settled and parser.reusable and not parser.take()

    async def send(self, request: bytes) -> bytes:
        """
        Send a request and wait for the first bytes of what comes back.

        Raises:
            PeerGone: The peer closed the connection.
        """
        self.uses += 1
        try:
            await self.transport.send_all(request)
        except trio.BrokenResourceError as error:
            raise PeerGone(untouched=True, unsent=True) from error
        try:
            data = await self.transport.receive_some(PIECE)
        except trio.BrokenResourceError as error:
            raise PeerGone(untouched=True) from error
        if not data:
            raise PeerGone(untouched=True)
        return bytes(data)

    async def read_head(self, data: bytes, heads: KnownHeads | None = None) -> ResponseParser:
        """
        Read the head of a response.

        Args:
            data: What `send` returned.
            heads: Learns this one; None if no other response will be like it.

        Raises:
            PeerGone: The peer closed the connection.
            MalformedResponse: What came back is not HTTP/1.1.
        """
        if heads is None:
            parser = ResponseParser()
            parser.feed(data)
        else:
            parser = heads.parse(data)
        while parser.head is None:
            await self.read(parser)
        return parser

    async def read(self, parser: ResponseParser) -> None:
        """
        Read one piece.

        Raises:
            PeerGone: There is no more, and the response is not complete.
            MalformedResponse: It is not HTTP/1.1.
        """
        try:
            data = await self.transport.receive_some(PIECE)
        except trio.BrokenResourceError as error:
            raise PeerGone(untouched=not parser.started) from error
        if data:
            parser.feed(bytes(data))
        elif not parser.end():
            raise PeerGone(untouched=not parser.started)


class Response(ABC):
    """
    A response whose body is still to be read. Use it in a `with` block: leaving it gives back what carries it.

    Args:
        head: Status and headers.
    """

    whole: bytes | None = None
    """The whole body, where it is here already: then nothing is held any more that would have to be given back."""

    def __init__(self, head: Head) -> None:
        self.head: Final = head

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    @abstractmethod
    def complete(self) -> bool:
        """Whether the last byte of the body has arrived."""

    @abstractmethod
    def close(self) -> None:
        """Read no more: the peer is told to stop if it has not finished. Idempotent, and never blocks."""

    @abstractmethod
    def finish(self) -> None:
        """
        Read no more, where all that is still to come is the end of the body. Never blocks.

        A server that answers with an event stream ends it a moment after the reply; nobody waits for that, and it is
        not to be mistaken for a cancel.
        """

    def chunk_nowait(self) -> bytes | None:
        """The next part of the body if it is here already, empty at the end; None if that has to be waited for."""
        return None

    @abstractmethod
    async def chunk(self) -> bytes:
        """
        The next part of the body; empty at its end. Who stops asking holds the peer back.

        Raises:
            PeerGone: The connection ended too early.
            MalformedResponse: The framing is broken.
        """

    async def body(self, max_bytes: int) -> bytes:
        """
        The whole body.

        Raises:
            BodyTooLarge: It has more than `max_bytes`; noticed before it is read if the peer says its length.
            PeerGone: The connection ended too early.
            MalformedResponse: The framing is broken.
        """
        length = self.head.length
        if length is not None and length > max_bytes:
            raise BodyTooLarge
        data = await self.chunk()
        if self.complete and len(data) <= max_bytes:
            return data
        whole = bytearray(data)
        while data and len(whole) <= max_bytes:
            data = await self.chunk()
            whole += data
        if len(whole) > max_bytes:
            raise BodyTooLarge
        return bytes(whole)


@final
class WholeResponse(Response):
    """
    A response of which everything is here, and what carried it is given back.

    Args:
        head: Status and headers.
        body: The whole of it.
    """

    def __init__(self, head: Head, body: bytes) -> None:
        super().__init__(head)
        self.whole = self._unread = body

    @property
    def complete(self) -> bool:
        """It is. See `Response`."""
        return True

    def close(self) -> None:
        """Nothing is held. See `Response`."""

    def finish(self) -> None:
        """Nothing is held. See `Response`."""

    def chunk_nowait(self) -> bytes:
        """The body, once. See `Response`."""
        data, self._unread = self._unread, b""
        return data

    async def chunk(self) -> bytes:
        """As `chunk_nowait`. Never a checkpoint."""
        return self.chunk_nowait()
