"""
One connection to an origin that carries one request after the other (HTTP/1.1).

No task, no lock, no timer: the task of the exchange reads and writes itself. Whoever is cancelled in the middle leaves
a connection that nobody can use any more, so it is closed, and for HTTP/1.1 that is how a peer is told to stop.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Coroutine
from typing import Any, Final, Protocol, final

import trio
from attrs import define

from .known_heads import KnownHeads
from .parser import MalformedResponse, ResponseParser

PIECE: Final = 64 * 1024
"""Bytes read at a time; also what a response that nobody reads holds at most."""
_SETTLE_S: Final = 0.05
"""How long the end of an earlier response may hold up a request."""


class Transport(Protocol):
    """The byte stream under a connection, as `connect` makes it."""

    @abstractmethod
    def send_nowait(self, data: bytes) -> int:
        """
        Write what can be written at once; returns how many bytes that was, 0 if it cannot be known without waiting.
        Raises `trio.BrokenResourceError` if the peer is gone.
        """

    @abstractmethod
    async def send_all(self, data: bytes | memoryview) -> None:
        """Write all of it. Raises `trio.BrokenResourceError` if the peer is gone."""

    @abstractmethod
    def receive_some(self, max_bytes: int) -> Coroutine[Any, Any, bytes]:
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
    old_at: float = math.inf
    """Before that nothing ends it but rest, too many requests, or a word of its owner; Trio clock seconds."""
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

    @property
    def was_used(self) -> bool:
        """Whether it carried a request before the one that was sent last: the peer may have closed it since."""
        return self.uses > 1

    def send(self, request: bytes) -> Coroutine[Any, Any, bytes]:
        """
        Send a request now, as far as that goes at once; when awaited, wait for the first bytes of what comes back.

        Not a checkpoint before it sends. What is awaited raises `trio.BrokenResourceError` after a reset, and returns
        nothing at the end: both mean `PeerGone`, with the response untouched. Await it in any case.

        Raises:
            PeerGone: The peer closed the connection, and the request did not leave as a whole.
        """
        self.uses += 1
        transport = self.transport
        try:
            sent = transport.send_nowait(request)
        except trio.BrokenResourceError as error:
            raise PeerGone(untouched=True, unsent=True) from error
        if sent == len(request):
            return transport.receive_some(PIECE)
        return self._send_rest(memoryview(request)[sent:] if sent else request)

    async def _send_rest(self, rest: bytes | memoryview) -> bytes:
        try:
            await self.transport.send_all(rest)
        except trio.BrokenResourceError as error:
            raise PeerGone(untouched=True, unsent=True) from error
        return await self.transport.receive_some(PIECE)

    async def ask(self, request: bytes) -> bytes:
        """
        Send a request and wait for the first bytes of what comes back.

        Raises:
            PeerGone: The peer closed the connection.
        """
        try:
            data = await self.send(request)
        except trio.BrokenResourceError as error:
            raise PeerGone(untouched=True) from error
        if not data:
            raise PeerGone(untouched=True)
        return data

    async def read_head(self, data: bytes, heads: KnownHeads | None = None) -> ResponseParser:
        """
        Read the head of a response.

        Args:
            data: What `ask` returned.
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
            parser.feed(data)
        elif not parser.end():
            raise PeerGone(untouched=not parser.started)
