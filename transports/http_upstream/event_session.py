"""
One legacy client's session with an upstream that speaks HTTP+SSE (MCP 2024-11-05, transports).

A session is its event stream: it begins with the stream and is over when that is lost. So each session of a client's
has a stream of its own, and both end together. What comes on the stream belongs to requests by their ids, so it goes
through a `Multiplexer`, as with any connection that carries everything.
"""

from __future__ import annotations

import contextvars
from collections.abc import Awaitable, Callable
from typing import Any, Final, final

import trio

from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.session import Session
from sluiceway.pipeline.protocol.codec import encode_message
from sluiceway.pipeline.protocol.errors import (
    GatewayError,
    SessionNotFound,
    UpstreamClosed,
    UpstreamProtocolError,
)
from sluiceway.pipeline.protocol.messages import EMPTY, Message, Notification, Reply, Request, Response
from sluiceway.pipeline.runtime.nursery import unwrap_single

from ..http_client.client import Use
from ..multiplex import Multiplexer
from .event_feed import EventFeed, Traffic
from .incoming import Announce
from .post_box import PostBox
from .upstream import Upstream

_CANCELLED: Final = "notifications/cancelled"
_ALIVE: Final = "sluiceway-alive"
"""Id of our own pings; those of requests are numbers."""
_GONE: Final = frozenset({404, 410})
"""What an upstream answers a POST to a session that it does not know."""
_LAST_WORDS_S: Final = 1.0
"""How long the upstream may take to take what was still to be said, cancel notices most of all."""
_LAST_STEPS: Final = 4
"""Scheduler passes that an exchange may take from its failure to its cancel notice."""
_LAST_ANSWERS_S: Final = 1.0
"""How long a session stays whose stream was lost, so that the answers which say so can still leave."""


@final
class EventSession:
    """
    Args:
        upstream: Where it is.
        url: The same, as configured.
        session: The client's, which lives and ends with it.
        idle_s: See `EventFeed`.
        max_pending: Requests that may wait for a reply at once.
        max_unsent: Bytes that may wait to be taken by the upstream.
        announce: Told of every notification. Must not block.
        traffic: What comes is counted there.
        log: A structured logger.
    """

    def __init__(
        self,
        upstream: Upstream,
        url: str,
        session: Session,
        *,
        idle_s: float,
        max_pending: int,
        max_unsent: int,
        announce: Announce,
        traffic: Traffic,
        log: Any,
    ) -> None:
        self._upstream = upstream
        self._session = session
        self._log = log
        self._head = b""
        self._box = PostBox(max_unsent, self._deliver, lambda key, error: self.connection.fail(key, error), log)
        self.connection: Multiplexer = Multiplexer(
            upstream.name,
            self._box,
            log,
            session=session,
            max_pending=max_pending,
            counts=traffic.requests,
            spawn=self._spawn,
            announce=announce,
        )
        self._feed = EventFeed(
            upstream,
            url,
            idle_s=idle_s,
            traffic=traffic,
            on_endpoint=self._found,
            on_message=self._receive,
            on_silence=self._probe,
        )
        self._nursery: trio.Nursery | None = None
        self._opened = trio.Event()
        self._failure: GatewayError | None = None
        self._ending = trio.Event()
        self.is_ending = False
        """Whether it takes nothing any more."""
        self.ended = trio.Event()
        """Set when nothing of it is left."""

    async def run(self) -> None:
        """Host the session until `end`, or until its stream is lost."""
        forget = self._session.on_close(self.end)
        try:
            with unwrap_single():
                async with trio.open_nursery() as listening:
                    self._nursery = listening
                    async with trio.open_nursery() as posts:
                        self._box.start(posts)
                        listening.start_soon(self._listen)
                        await self._ending.wait()
                        self._fail_all()
                        for _ in range(_LAST_STEPS):  # who is failed unwinds, and says its last word
                            await trio.lowlevel.checkpoint()
                        self._box.close()
                        posts.cancel_scope.deadline = trio.current_time() + _LAST_WORDS_S
                    listening.cancel_scope.cancel()
        finally:
            self._nursery = None
            self._box.close()
            self._fail_all()
            self._opened.set()
            forget()
            self.ended.set()
        if self._failure is not None and not self._session.closed:
            await trio.sleep(_LAST_ANSWERS_S)
            self._session.close()

    def end(self) -> None:
        """Have it end. Idempotent, never blocks."""
        self.is_ending = True
        self._ending.set()

    async def initialize(self, exchange: Exchange) -> Reply:
        """
        Pass the handshake on, as soon as the upstream has said where to post.

        Raises:
            SessionNotFound: The session was ended meanwhile.
            GatewayError: There is no stream to be had, or as `call` does.
        """
        await self._opened.wait()
        if self._failure is not None or self.is_ending:
            raise self._over()
        return await self.call(exchange)

    async def notify(self, notification: Notification) -> None:
        """
        Pass a notification on. Cancel notices are not: whoever owns the exchange cancels it.

        Raises:
            UpstreamFault: The upstream failed, or does not take it.
        """
        if notification.method != _CANCELLED:
            await self._deliver(encode_message(notification), None)

    async def call(self, exchange: Exchange) -> Reply:
        """See `Multiplexer.call`."""
        return await self.connection.call(exchange)

    async def _listen(self) -> None:
        try:
            await self._feed.run()
        except GatewayError as error:
            self._lose(error)

    def _lose(self, error: GatewayError) -> None:
        if self.is_ending:
            return
        if self._opened.is_set():
            self._log.warning("the session with the upstream is lost", error=error.message)
        self._failure = error
        self._opened.set()
        self.end()

    def _fail_all(self) -> None:
        self.connection.close(self._over)

    def _over(self) -> GatewayError:
        """A failure as one exchange sees it."""
        failure = self._failure
        if failure is None:
            return SessionNotFound(f"{self._upstream.name}: this session has ended; initialize again")
        return failure.with_data()

    def _found(self, path: str) -> None:
        self._head = self._upstream.post_head(path)
        self._opened.set()

    def _receive(self, item: Message | GatewayError) -> None:
        if not (isinstance(item, Response) and item.id == _ALIVE):
            self.connection.receive(item)

    def _probe(self) -> None:
        if not self.is_ending:
            self._box.put_nowait(encode_message(Request(_ALIVE, "ping", EMPTY)))

    def _spawn(self, function: Callable[[Request], Awaitable[None]], question: Request) -> None:
        """Start a task in a context of its own: what it logs must not count as said by whoever came first."""
        if self._nursery is not None:
            contextvars.Context().run(self._nursery.start_soon, function, question)

    async def _deliver(self, message: bytes, key: int | None) -> None:
        """
        Post a message.

        Raises:
            GatewayError: It did not arrive, or is not taken.
        """
        upstream, use = self._upstream, Use.WORD if key is None else Use.CALL
        with await upstream.post_to(self._head, message, use=use) as response:
            status = response.head.status
            if 200 <= status < 300:
                with upstream.faults:
                    await response.body(upstream.limits.max_message_size)
                return
            if status in _GONE:
                lost = UpstreamClosed(f"{upstream.name}: the upstream has forgotten this session (HTTP {status})")
                self._lose(lost)
                raise SessionNotFound(f"{upstream.name}: the upstream has ended this session; initialize again")
            error = await upstream.refusal(response)
        if key is None:
            raise UpstreamProtocolError(f"{upstream.name}: the upstream answers a message with HTTP {status}")
        self.connection.receive(Response(key, error))
