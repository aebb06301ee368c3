"""
Requests to one origin, each with one send, on connections that are used again.

Three pools, because what needs a connection in order to give one back must not wait for the same pool: calls, streams
that stay open for as long as somebody listens, and short words in between (answers, cancel notices).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from enum import Enum
from typing import Final, NoReturn, final

import trio
from attrs import evolve

from sluiceway.pipeline.model.origin import Origin

from .connection import Connection, PeerGone, Response, Transport
from .faults import Faults
from .parser import ResponseParser
from .pool import DEFAULT_LIMITS, Pool, PoolLimits

_MAX_WORD_CONNECTIONS: Final = 16


class Use(Enum):
    """What a connection is needed for."""

    CALL = "call"
    """A request, and whatever comes before its reply."""
    STREAM = "stream"
    """An event stream that lasts; refused rather than waited for."""
    WORD = "word"
    """A message that is only acknowledged."""


@final
class HttpClient:
    """
    Args:
        name: What the upstream is called in errors.
        origin: Where it is.
        dial: Opens a connection to it.
        max_message: Bytes of a body, for the errors about it; bodies are bounded by who reads them.
        limits: Of the connections for calls.
        max_streams: Connections for streams.
    """

    def __init__(
        self,
        name: str,
        origin: Origin,
        dial: Callable[[], Awaitable[Transport]],
        *,
        max_message: int,
        limits: PoolLimits = DEFAULT_LIMITS,
        max_streams: int = 1000,
    ) -> None:
        self.origin = origin
        self.faults: Final = Faults(name, max_message)
        """For whoever reads a `Response`."""
        self._idle_s = limits.idle_s
        self._resting = trio.Event()
        self._pools: Final = {
            Use.CALL: Pool(dial, limits),
            Use.STREAM: Pool(dial, evolve(limits, max_connections=max_streams, max_waiting=0)),
            Use.WORD: Pool(dial, evolve(limits, max_connections=_MAX_WORD_CONNECTIONS)),
        }

    def prepare(self, method: str, headers: Mapping[str, str], path: str | None = None) -> bytes:
        """
        The part of a request that is the same every time: request line, `Host`, and these headers.

        Args:
            method: Of HTTP.
            headers: The further ones.
            path: Where at the origin, percent-encoded, with the query; the origin's own path when None.

        Raises:
            ValueError: A name or value that cannot stand in a header; the text does not show the value.
        """
        head = f"{method} {path or self.origin.path} HTTP/1.1\r\nhost: {self.origin.authority}\r\n"
        return head.encode("ascii") + render_headers(headers)

    async def send(
        self, head: bytes, headers: bytes = b"", body: bytes = b"", *, repeatable: bool, use: Use = Use.CALL
    ) -> Response:
        """
        Send a request and wait for the head of the response. Use what comes back in a `with` block.

        Once, and only on a connection that was used before, a request is sent again if the peer closed it without a
        word: when it cannot have been taken, or may be repeated.

        Args:
            head: From `prepare`.
            headers: Further lines, from `render_headers`.
            body: The content; its length is added.
            repeatable: Whether the request may run twice.
            use: What the connection is needed for.

        Raises:
            ConnectFailed: The origin cannot be reached.
            CapacityExceeded: Too many requests wait for a connection.
            UpstreamClosed: The connection ended before the head was there.
            UpstreamProtocolError: What came is not HTTP/1.1.
        """
        pool = self._pools[use]
        request = b"%b%bcontent-length: %d\r\n\r\n%b" % (head, headers, len(body), body)
        with self.faults:
            connection = await pool.acquire()
            reused = connection.uses > 0
            try:
                parser = await _send(pool, connection, request)
            except PeerGone as gone:
                if not (reused and gone.untouched and (gone.unsent or repeatable)):
                    raise
                connection = await pool.acquire(fresh=True)
                parser = await _send(pool, connection, request)
        assert parser.head is not None

        def give_back(used: Connection, reusable: bool) -> None:
            pool.release(used, reusable=reusable)
            if pool.idle:
                self._resting.set()

        return Response(parser.head, parser, connection, give_back)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> NoReturn:
        """Close connections that have been at rest for too long, until cancelled. Sleeps while there are none."""
        task_status.started()
        while True:
            await self._resting.wait()
            while any(pool.idle for pool in self._pools.values()):
                await trio.sleep(self._idle_s / 2)
                for pool in self._pools.values():
                    pool.sweep()
            self._resting = trio.Event()

    def renew(self) -> None:
        """Open new connections from now on: the origin has moved."""
        for pool in self._pools.values():
            pool.renew()

    def close(self) -> None:
        """Close all connections, those in use when they come back."""
        for pool in self._pools.values():
            pool.close()

    @property
    def taken(self) -> int:
        """Connections in use."""
        return sum(pool.taken for pool in self._pools.values())


async def _send(pool: Pool, connection: Connection, request: bytes) -> ResponseParser:
    """Send on a connection that goes back to its pool if no head of a response comes."""
    parser = None
    try:
        parser = await connection.send(request)
        return parser
    finally:
        if parser is None:
            pool.release(connection, reusable=False)


_BAD: Final = frozenset("\r\n\0")


def render_headers(headers: Mapping[str, str]) -> bytes:
    """
    Header lines.

    Raises:
        ValueError: A name or value that cannot stand in a header; the text does not show the value.
    """
    lines = []
    for name, value in headers.items():
        if not name or not name.isascii() or not _BAD.isdisjoint(name) or not _BAD.isdisjoint(value) or ":" in name:
            raise ValueError(f"header {name!r:.60} has a name or a value that HTTP cannot carry")
        lines.append(f"{name}: {value}\r\n")
    try:
        return "".join(lines).encode("latin-1")
    except UnicodeEncodeError as error:
        raise ValueError("a header has a value that HTTP cannot carry: characters beyond Latin-1") from error
