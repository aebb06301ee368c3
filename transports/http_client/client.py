"""
Requests to one origin, over HTTP/1.1 or HTTP/2, on connections that are used again.

Three pools, because what needs a connection in order to give one back must not wait for the same pool: calls, streams
that stay open for as long as somebody listens, and short words in between (answers, cancel notices).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from enum import Enum
from typing import Final, NoReturn, final

import trio
from attrs import evolve, frozen

from sluiceway.pipeline.model.origin import Origin
from sluiceway.pipeline.runtime.nursery import unwrap_single

from .connection import PIECE, Connection, PeerGone, Transport
from .faults import FAULTS, Faults
from .http1 import Http1Response
from .http2_exchange import ask
from .http2_pool import CARE_S, Http2Pool, SpeaksHttp1
from .http2_stream import fields_of
from .known_heads import KnownHeads
from .pool import DEFAULT_LIMITS, Pool, PoolLimits
from .response import Response, WholeResponse
from .statistics import PoolReport

_MAX_WORD_CONNECTIONS: Final = 16
_MAX_WORDS: Final = 1600
_MAX_REPEATS: Final = 2
"""How often a request goes out again that an HTTP/2 peer did not take, because it went away or had no place."""

_BROKEN: Final = (trio.BrokenResourceError, *FAULTS)

Dial = Callable[[], Awaitable[Transport]]


class Use(Enum):
    """What a connection is needed for."""

    CALL = "call"
    """A request, and whatever comes before its reply."""
    STREAM = "stream"
    """An event stream that lasts; refused rather than waited for."""
    WORD = "word"
    """A message that is only acknowledged."""


@final
@frozen
class Http2Offer:
    """That an origin may be spoken to in HTTP/2."""

    dial: Dial
    """Opens a connection on which that was offered."""
    only: bool
    """Nothing else is spoken: the origin is known to. Else what both ends agreed on in the TLS handshake."""


@final
class HttpClient:
    """
    Sends requests to one origin, on connections that it opens, keeps and closes.

    Args:
        name: What the upstream is called in errors.
        origin: Where it is.
        dial: Opens a connection to it, for HTTP/1.1.
        max_message: Bytes of a body, for the errors about it; bodies are bounded by who reads them.
        limits: Of the connections for calls.
        max_streams: Streams at the same time; over HTTP/1.1 each is a connection.
        http2: Whether HTTP/2 is an option; None if not.

    Raises:
        RuntimeError: Outside of a Trio run.
    """

    def __init__(
        self,
        name: str,
        origin: Origin,
        dial: Dial,
        *,
        max_message: int,
        limits: PoolLimits = DEFAULT_LIMITS,
        max_streams: int = 1000,
        http2: Http2Offer | None = None,
    ) -> None:
        self.origin = origin
        self.faults: Final = Faults(name, max_message)
        """For whoever reads a `Response`."""
        self._idle_s = limits.idle_s
        self._opened = trio.Event()
        for_streams = evolve(limits, max_connections=max_streams, max_waiting=0)
        for_words = evolve(limits, max_connections=_MAX_WORD_CONNECTIONS)
        self._pools: Final = {
            Use.CALL: Pool(dial, limits),
            Use.STREAM: Pool(dial, for_streams),
            Use.WORD: Pool(dial, for_words),
        }
        self._calls: Final = self._pools[Use.CALL]
        self._heads: Final = KnownHeads()
        self._http2 = http2
        self._prefers_http2 = http2 is not None
        self._http2_pools: Final[dict[Use, Http2Pool]] = {}
        if http2 is not None:
            self._http2_pools[Use.CALL] = self._http2_pool(Use.CALL, http2, limits, None)
            self._http2_pools[Use.STREAM] = self._http2_pool(Use.STREAM, http2, for_streams, max_streams)
            self._http2_pools[Use.WORD] = self._http2_pool(Use.WORD, http2, for_words, _MAX_WORDS)

    def _http2_pool(self, use: Use, http2: Http2Offer, limits: PoolLimits, max_requests: int | None) -> Http2Pool:
        def declined(transport: Transport) -> None:
            self._pools[use].adopt(transport)
            self._opened.set()
            self._decline_http2()

        return Http2Pool(
            http2.dial,
            limits,
            max_requests=max_requests,
            is_http2=lambda transport: http2.only or transport.speaks_http2,
            on_http1=declined,
            on_opened=lambda: self._opened.set(),
        )

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
        word: when it cannot have been taken, or may be repeated. Over HTTP/2 also if the peer says that it was not
        taken, because it goes away or has no place for it.

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
            UpstreamProtocolError: What came is not HTTP.
        """
        if self._prefers_http2:
            with self.faults:
                response = await self._send_http2(head, headers, body, repeatable=repeatable, use=use)
            if response is not None:
                return response
        pool = self._calls if use is Use.CALL else self._pools[use]
        request = b"%b%bcontent-length: %d\r\n\r\n%b" % (head, headers, len(body), body)
        connection, fresh = pool.acquire_nowait(), False
        while True:
            try:
                if connection is None:
                    connection = await self._acquire(pool, fresh=fresh)
                await trio.lowlevel.checkpoint_if_cancelled()
                data = await connection.send(request)
                response = self._heads.whole(data)
                if response is not None:
                    pool.release(connection, reusable=True)
                else:
                    response = await self._begun(pool, connection, data)
                connection = None
                return response
            except _BROKEN as error:
                if connection is None or not connection.was_used or not _may_go_again(error, repeatable):
                    raise self.faults.translated(_fault(error)) from error
            finally:
                if connection is not None:
                    pool.release(connection, reusable=False)
            connection, fresh = None, True

    async def _acquire(self, pool: Pool, *, fresh: bool) -> Connection:
        connection = await pool.acquire(fresh=fresh)
        self._opened.set()
        return connection

    async def _begun(self, pool: Pool, connection: Connection, data: bytes) -> Response:
        """A response of which this is the first piece; one that says it is short is read to its end."""
        if not data:
            raise PeerGone(untouched=True)
        parser = await connection.read_head(data, self._heads)
        head = parser.head
        assert head is not None
        if head.length is not None and head.length <= PIECE:
            while not parser.complete:  # many servers send head and body one after the other
                await connection.read(parser)
        if not parser.complete:
            return Http1Response(head, parser, connection, pool.release)
        pool.release(connection, reusable=parser.reusable)
        return WholeResponse(head, parser.take())

    async def _send_http2(
        self, head: bytes, headers: bytes, body: bytes, *, repeatable: bool, use: Use
    ) -> Response | None:
        """As `send`; None if the origin turns out to want HTTP/1.1, and has not taken the request."""
        pool, repeats = self._http2_pools[use], 0
        fields = fields_of(head, headers, len(body), b"https" if self.origin.tls else b"http")
        while True:
            try:
                connection = await pool.acquire()
            except SpeaksHttp1:
                return None
            reused = connection.uses > 0
            try:
                return await ask(connection, fields, body)
            except PeerGone as gone:
                if gone.unsent and connection.needs_http1 and self._decline_http2():
                    return None
                untaken = gone.unsent or (repeats == 0 and reused and gone.untouched and repeatable)
                if not untaken or repeats == _MAX_REPEATS:
                    raise
                repeats += 1

    def _decline_http2(self) -> bool:
        """From now on it is HTTP/1.1, if that is allowed; whether it is."""
        if self._http2 is None or self._http2.only:
            return False
        self._prefers_http2 = False
        for pool in self._http2_pools.values():
            pool.decline()
        return True

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> NoReturn:
        """
        Close connections that have been at rest for too long, and host those of HTTP/2, until cancelled.

        Sleeps while no connection is open.
        """
        with unwrap_single():
            async with trio.open_nursery() as nursery:
                for pool in self._http2_pools.values():
                    pool.nursery = nursery
                task_status.started()
                while True:
                    await self._opened.wait()
                    while self._needs_care:
                        await trio.sleep(min(self._idle_s / 2, CARE_S) if self._http2_pools else self._idle_s / 2)
                        self._care()
                    self._opened = trio.Event()

    @property
    def _needs_care(self) -> bool:
        return any(pool.open for pool in self._all_pools())

    def _care(self) -> None:
        for pool in self._pools.values():
            pool.sweep()
        for http2_pool in self._http2_pools.values():
            http2_pool.look_after(trio.current_time())

    def renew(self) -> None:
        """Open new connections from now on: the origin has moved, and may speak another version of HTTP."""
        for pool in self._all_pools():
            pool.renew()
        self._prefers_http2 = self._http2 is not None

    def close(self) -> None:
        """Close all connections, those in use when they come back."""
        for pool in self._all_pools():
            pool.close()

    @property
    def taken(self) -> int:
        """Requests in hand: over HTTP/1.1 each has a connection."""
        return sum(pool.taken for pool in self._all_pools())

    def _all_pools(self) -> Iterator[Pool | Http2Pool]:
        yield from self._pools.values()
        yield from self._http2_pools.values()

    def reports(self) -> Mapping[str, PoolReport]:
        """What its pools counted, and how full they are, by what they are used for."""
        reports = {}
        for use, pool in self._pools.items():
            http2 = self._http2_pools.get(use)
            reports[use.value] = pool.report() if http2 is None else pool.report() + http2.report()
        return reports


def _fault(error: Exception) -> Exception:
    """What went wrong; a reset in place of the first byte is a peer that is gone."""
    return PeerGone(untouched=True) if isinstance(error, trio.BrokenResourceError) else error


def _may_go_again(error: Exception, repeatable: bool) -> bool:
    """Whether a request that ended so, on a connection that was used before, may go out once more."""
    fault = _fault(error)
    return isinstance(fault, PeerGone) and fault.untouched and (fault.unsent or repeatable)


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
