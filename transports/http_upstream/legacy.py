"""
One legacy client's session with a legacy upstream: a session of its own there, opened by its own `initialize`.

2025-03-26 to 2025-11-25, basic/transports, Streamable HTTP. Both sessions live and end together, so what the upstream
keeps per session (log level, subscriptions, tasks, the client's capabilities) is never another client's. When the
upstream has forgotten the session it answers 404: then the handshake is repeated once with what the client said, and
the request with it, since a 404 means that it was not served.
"""

from __future__ import annotations

import contextvars
import random
from functools import partial
from typing import Any, Final, final

import trio

from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.session import Session
from sluiceway.pipeline.protocol.errors import GatewayError, SessionNotFound, UnsupportedVersion, UpstreamProtocolError
from sluiceway.pipeline.protocol.mcp import MODERN_VERSIONS, PROGRESS, ErrorCode
from sluiceway.pipeline.protocol.messages import Message, Notification, Reply, Request, Response, Result
from sluiceway.pipeline.runtime.nursery import farewell, unwrap_single

from ..eras import legacy
from ..http_client.response import Response as HttpResponse
from ..questions import answer_at_once, nobody
from .answers import check_answers, knows_no_session
from .conversation import CANCELLED, Conversations
from .handshake import Handshake
from .headers import legacy_headers
from .in_flight import Asking, InFlight
from .standalone import StandaloneStream
from .upstream import Upstream

_INITIALIZED: Final = "notifications/initialized"
_MODERN_ONLY: Final = frozenset(
    {ErrorCode.METHOD_NOT_FOUND, ErrorCode.HEADER_MISMATCH, ErrorCode.UNSUPPORTED_PROTOCOL_VERSION}
)
"""Errors with which an upstream without handshakes answers one (2026-07-28, basic/versioning)."""
_LAST_ANSWERS_S: Final = 1.0
"""How long a session stays that the upstream refuses to renew, so that the answers which say so can still leave."""
_FAREWELL_S: Final = 1.0
_SHAKING_S: Final = 10.0
"""How long a handshake that nobody waits for any more may go on, so that the session it opens can be ended."""


class _SessionLost(Exception):
    """The upstream does not know the session any more."""


@final
class LegacySession:
    """
    Args:
        upstream: Where it is.
        session: The client's, which lives and ends with it.
        rng: Spreads reconnections.
        log: A structured logger.
    """

    def __init__(self, upstream: Upstream, session: Session, rng: random.Random, log: Any) -> None:
        self._upstream = upstream
        self._session = session
        self._random = rng
        self._log = log
        self._hello: Request | None = None
        self._initialized: Notification | None = None
        self._id: str | None = None
        self._version: str | None = None
        self._headers = legacy_headers(None, None)
        self._in_flight = InFlight(session.ask, self._say)
        self._conversations = Conversations(upstream, lambda: self._headers, self._in_flight, self._say)
        self._nursery: trio.Nursery | None = None
        self._listening: trio.CancelScope | None = None
        self._standalone: StandaloneStream | None = None
        self._hosted = trio.Event()
        self._handshake: Handshake[Reply] | Handshake[None] | None = None
        self._renewal: Handshake[None] | None = None
        self._shaking = trio.CancelScope()
        self._ending = trio.Event()
        self.is_ending = False
        """Whether it takes nothing any more."""
        self.ended = trio.Event()
        """Set when nothing of it is left."""

    async def run(self) -> None:
        """Host what the session needs besides its exchanges, until `end`; then tell the upstream."""
        forget = self._session.on_close(self.end)
        try:
            with unwrap_single():
                async with trio.open_nursery() as nursery:
                    self._nursery = nursery
                    self._hosted.set()
                    await self._ending.wait()
                    await self._finish_handshake()
                    nursery.cancel_scope.cancel()
            if self._id is not None:
                with trio.move_on_after(_FAREWELL_S):
                    await self._delete()
        finally:
            self._nursery = None
            forget()
            self.ended.set()

    def end(self, *, within_s: float = _SHAKING_S) -> None:
        """
        Have it end. Idempotent, never blocks.

        Args:
            within_s: Time for a handshake under way to tell which session there is to be ended.
        """
        self._shaking.deadline = min(self._shaking.deadline, trio.current_time() + within_s)
        self.is_ending = True
        self._ending.set()

    async def initialize(self, exchange: Exchange) -> Reply:
        """
        Open the session with the client's own handshake.

        If the client does not wait for it, it goes on without: a request that was sent may open a session, and only
        its answer says which one there is to be ended.

        Raises:
            UnsupportedVersion: The upstream knows no handshakes.
            UpstreamFault: It failed.
        """
        await self._hosted.wait()
        assert self._nursery is not None
        handshake = self._handshake = Handshake[Reply](self._upstream.name)
        self._nursery.start_soon(handshake.run, partial(self._greet, exchange))
        try:
            return await handshake.outcome()
        finally:
            if not handshake.done.is_set():
                exchange.mute()

    async def _finish_handshake(self) -> None:
        if self._handshake is not None:
            with self._shaking:
                await self._handshake.done.wait()

    async def _greet(self, exchange: Exchange) -> Reply:
        request = exchange.request
        assert isinstance(request, Request)
        asking = self._in_flight.begin(exchange)
        try:
            with await self._upstream.post(request, b"") as response:
                if not 200 <= response.head.status < 300:
                    error = await self._upstream.refusal(response)
                    if error.code in _MODERN_ONLY:
                        raise self._modern_only(exchange)
                    return error
                reply = await self._conversations.reply(asking, response)
                if isinstance(reply, Result):
                    self._open(request, reply, response)
        finally:
            self._in_flight.end(asking)
        return reply

    async def call(self, exchange: Exchange, *, renewed: bool = False) -> Reply:
        """
        Pass a request on, its notifications and questions back; return its reply.

        Args:
            exchange: The request.
            renewed: Whether it goes out again, in a session that was opened for it.

        Raises:
            SessionNotFound: The upstream has forgotten the session and does not take it up again.
            UpstreamFault: It failed.
        """
        if self._standalone is not None and not self._standalone.has_begun:
            await self._standalone.begun()
        request, used, ended = exchange.request, self._id, False
        assert isinstance(request, Request)
        asking = self._in_flight.begin(exchange)
        try:
            response = await self._upstream.post(request, self._headers)
            reply = self._upstream.reply_in(response, request.id)
            if reply is None:
                with response:
                    reply = await self._answer(asking, response, may_be_lost=used is not None)
            ended = True
            return reply
        except _SessionLost:
            ended = True
            if renewed:
                raise self._give_up() from None
        except GatewayError:
            ended = True
            raise
        finally:
            self._in_flight.end(asking)
            if not ended:
                with farewell(_FAREWELL_S):
                    await self._say(Notification(CANCELLED, {"requestId": request.id}))  # noqa: ASYNC102  # farewell is a bounded shield
        await self._renew(used)
        return await self.call(exchange, renewed=True)

    async def notify(self, notification: Notification) -> None:
        """
        Pass a notification on. Cancel notices are not: whoever owns the exchange cancels it.

        Raises:
            UpstreamFault: The upstream failed, or does not take it.
        """
        if notification.method == CANCELLED:
            return
        if notification.method == _INITIALIZED:
            self._initialized = notification
        response = await self._upstream.say(notification, self._headers)
        if not 200 <= response.head.status < 300:
            raise UpstreamProtocolError(
                f"{self._upstream.name}: the upstream answers a notification with HTTP {response.head.status}"
            )
        if notification.method == _INITIALIZED:
            self._listen()

    async def _answer(self, asking: Asking, response: HttpResponse, *, may_be_lost: bool) -> Reply:
        status = response.head.status
        if 200 <= status < 300:
            return await self._conversations.reply(asking, response)
        if status == 404 and may_be_lost:
            raise _SessionLost
        reply = await self._upstream.refusal(response)
        if may_be_lost and knows_no_session(status, reply):
            raise _SessionLost
        return reply

    async def _receive(self, message: Message) -> None:
        """Take what came on the standalone stream."""
        if isinstance(message, Notification):
            if message.method == CANCELLED and self._in_flight.take_back(message.params.get("requestId")):
                return
            if (
                message.method == PROGRESS
                and self._nursery is not None
                and self._in_flight.hear(message, self._nursery)
            ):
                return
            self._session.notify(message)
        elif isinstance(message, Request):
            answer, questions = answer_at_once(message), self._in_flight.asker()
            if answer is None and questions is not None and self._nursery is not None:
                self._nursery.start_soon(questions.ask, message)
            else:
                await self._say(answer or nobody(message))

    async def _renew(self, lost: str | None) -> None:
        """
        Open another session in place of one that the upstream has forgotten, if need be without those who wait for it.

        Raises:
            SessionNotFound: The upstream refuses; the client has to start again.
            UpstreamFault: It failed.
        """
        if self._id != lost:
            return
        if self._renewal is None or self._renewal.done.is_set():
            if self._nursery is None:
                raise SessionNotFound(f"{self._upstream.name}: the session has ended")
            renewal = self._handshake = self._renewal = Handshake[None](self._upstream.name)
            self._nursery.start_soon(renewal.run, self._greet_again)
        await self._renewal.outcome()

    async def _greet_again(self) -> None:
        hello = self._hello
        assert hello is not None
        with await self._upstream.post(hello, b"") as response:
            if not 200 <= response.head.status < 300:
                raise self._give_up()
            incoming = self._upstream.read(response)
            message: Message | None = hello
            while message is not None and not isinstance(message, Response):
                message = await incoming.next()
            reply = None if message is None else check_answers(self._upstream.name, message, hello.id)
            if not isinstance(reply, Result) or legacy.negotiated(reply) != self._version:
                raise self._give_up()
            self._open(hello, reply, response)
        self._log.info("upstream session renewed")
        if self._initialized is not None:
            try:
                await self.notify(self._initialized)
            except UpstreamProtocolError:
                raise self._give_up() from None

    def _open(self, hello: Request, reply: Result, response: HttpResponse) -> None:
        """The handshake is done: remember it, and what identifies the session."""
        session_id = response.head.headers.get(legacy.SESSION_HEADER)
        if session_id is not None and not (
            session_id.isascii() and session_id.isprintable() and len(session_id) < 4096
        ):
            raise UpstreamProtocolError(f"{self._upstream.name}: the upstream's session id is not visible ASCII")
        self._hello, self._id, self._version = hello, session_id or None, legacy.negotiated(reply)
        self._headers = legacy_headers(self._id, self._version)

    def _listen(self) -> None:
        """Open the standalone stream, in place of an earlier one."""
        if self._nursery is None:
            return
        if self._listening is not None:
            self._listening.cancel()
        scope = self._listening = trio.CancelScope()
        stream = self._standalone = StandaloneStream(self._upstream, lambda: self._headers, self._receive, self._random)

        async def listen() -> None:
            with scope:
                await stream.run()

        # in a context of its own: what the upstream says later must not be logged as said by whoever came first
        contextvars.Context().run(self._nursery.start_soon, listen)

    def _give_up(self) -> SessionNotFound:
        """The session cannot go on; its client has to initialize again."""
        if self._nursery is not None:
            self._nursery.start_soon(_close_later, self._session)
        return SessionNotFound(f"{self._upstream.name}: the upstream has ended this session; initialize again")

    def _modern_only(self, exchange: Exchange) -> UnsupportedVersion:
        return UnsupportedVersion(
            f"{self._upstream.name}: the upstream speaks revisions without a handshake only",
            data={"supported": list(MODERN_VERSIONS), "requested": exchange.request.params.get("protocolVersion")},
        )

    async def _say(self, message: Notification | Response) -> None:
        """Send what nobody waits for; a failure ends nothing but a line in the log."""
        try:
            await self._upstream.say(message, self._headers)
        except GatewayError as error:
            self._log.debug("a word to the upstream was lost", reason=error.reason)

    async def _delete(self) -> None:
        try:
            await self._upstream.delete(self._headers)
        except GatewayError as error:
            self._log.debug("the upstream was not told that a session ended", reason=error.reason)


async def _close_later(session: Session) -> None:
    await trio.sleep(_LAST_ANSWERS_S)
    session.close()
