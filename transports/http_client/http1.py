"""A response over HTTP/1.1: it has its connection to itself until it was read."""

from __future__ import annotations

from typing import Protocol, final

from .connection import Connection
from .parser import Head, ResponseParser
from .response import Response


class GiveBack(Protocol):
    """Takes a connection that is not needed any more."""

    def __call__(self, connection: Connection, *, reusable: bool) -> None:
        """`reusable`: whether it can carry another request."""
        ...


@final
class Http1Response(Response):
    """
    A connection whose response was read to its end is used again; any other is closed, which tells the peer to stop.

    Args:
        head: Status and headers.
        parser: Holds what was read already.
        connection: Where the rest comes from.
        give_back: Takes the connection back.
    """

    def __init__(
        self,
        head: Head,
        parser: ResponseParser,
        connection: Connection,
        give_back: GiveBack,
    ) -> None:
        super().__init__(head)
        self._parser = parser
        self._connection: Connection | None = connection
        self._give_back = give_back

    @property
    def complete(self) -> bool:
        """See `Response`."""
        return self._parser.complete

    def close(self) -> None:
        """Give the connection back. Idempotent, and never blocks."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._give_back(connection, reusable=self._parser.reusable)

    def finish(self) -> None:
        """Give the connection back, to be used again once the mark of the end is there. See `Response`."""
        connection, self._connection = self._connection, None
        if connection is not None:
            ending = not self._parser.complete and self._parser.keeps_alive
            connection.ending = self._parser if ending else None
            self._give_back(connection, reusable=ending or self._parser.reusable)

    def chunk_nowait(self) -> bytes | None:
        """What was read already, if that is anything. See `Response`."""
        data = self._parser.take()
        return data if data or self._parser.complete else None

    async def chunk(self) -> bytes:
        """The next part of the body, of one piece that was read at most. See `Response`."""
        while (data := self.chunk_nowait()) is None:
            connection = self._connection
            assert connection is not None, "the response was closed"
            await connection.read(self._parser)
        return data
