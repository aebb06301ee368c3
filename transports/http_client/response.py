"""What every response has in common, over HTTP/1.1 and HTTP/2: a head that is here, and a body that may be to come."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Final, Self, final

from .parser import Head


class BodyTooLarge(Exception):
    """A body has more bytes than the caller takes."""


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
        self.head = head  # type: ignore[misc]  # Final: the base's own line, without the call that it would cost
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
