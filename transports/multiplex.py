"""
Many exchanges on one connection to an upstream: ids, progress tokens, questions, cancel notices.

Shared by every sink whose connection carries more than one exchange at a time (stdio, WebSocket). Nothing here knows
how bytes travel: a reader task hands every message to `receive`, which never waits for anybody, and an `Outbox` takes
what goes out. Each exchange waits in its own task, on its own bounded inbox.

What leaves is what came in, whole: only the id and the progress token are ours, everything else stays the bytes it
was. Whose a message is, is decided by what the message says (id, progress token, subscription id). Where it says
nothing, as with log messages and the questions of a legacy server, the connection decides: one that belongs to a single
session gives it to its latest exchange, one that is shared only if there is no choice; else nobody gets it.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, final

import trio

from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.session import Session
from sluiceway.pipeline.protocol.codec import encode_message
from sluiceway.pipeline.protocol.errors import (
    CapacityExceeded,
    GatewayError,
    MessageTooLarge,
    UpstreamClosed,
    UpstreamProtocolError,
    render_error,
)
from sluiceway.pipeline.protocol.mcp import LOG_MESSAGE, PROGRESS, ErrorCode, Kind, MetaKey, meta_of
from sluiceway.pipeline.protocol.messages import (
    ErrorReply,
    Json,
    Message,
    Notification,
    Reply,
    Request,
    RequestId,
    Response,
    Result,
)
from sluiceway.pipeline.runtime.correlation import Correlation, CorrelationCounts, Item
from sluiceway.pipeline.runtime.nursery import unwrap_single

from .multiplexed_call import Call
from .outbox import Outgoing
from .questions import Questions
from .readdress import readdress, with_token

_CANCELLED: Final = "notifications/cancelled"
_REPLIES: Final = (Result, ErrorReply)
_MAX_QUESTIONS: Final = 64
"""Questions of one upstream that may be open at once."""
_MAX_TASK_TOKENS: Final = 256
"""Progress tokens kept after the reply, for the tasks of 2025-11-25 that still make progress."""


@final
class Multiplexer:
    """
    One connection to an upstream, from its first message to `close`.

    Args:
        name: What the upstream is called in errors: the sink's id.
        outbox: Takes what goes to the upstream; its owner writes it.
        log: A structured logger.
        session: The legacy session the connection belongs to; None for one that several clients share.
        max_pending: Requests that may wait for a reply at once.
        counts: Where they are counted.
        spawn: Runs a task for as long as the connection may live; for questions that no exchange caused.
        announce: Told of every notification, whoever it is for, before anybody else. Must not block.
    """

    def __init__(
        self,
        name: str,
        outbox: Outgoing,
        log: Any,
        *,
        session: Session | None,
        max_pending: int,
        counts: CorrelationCounts,
        spawn: Callable[[Callable[[Request], Awaitable[None]], Request], None],
        announce: Callable[[Notification], None],
    ) -> None:
        self._name = name
        self._outbox = outbox
        self._log = log
        self._session = session
        self._announce = announce
        self._spawn = spawn
        ask = None if session is None else session.ask
        self._unsolicited = None if ask is None else Questions(ask, self._reply)
        self._table: Correlation[Call] = Correlation(max_pending, counts=counts)
        self._calls = self._table.entries
        self._listening = 0
        self._asked: dict[RequestId, Call] = {}
        self._task_tokens: dict[int, Json] = {}
        self._closed: Callable[[], GatewayError] | None = None
        self.noise = 0
        """Messages that were none, or were too long."""
        self.unclaimed = 0
        """Notifications of the upstream that belonged to nobody: late, or without an addressee."""
        self.last_used = -math.inf
        """When the latest exchange ended, in Trio clock seconds."""
        self._now = trio.lowlevel.current_clock().current_time

    async def call(self, exchange: Exchange) -> Reply:
        """
        Send a request, relay what comes before its reply, return the reply.

        Whatever ends it early, the upstream is told, unless the request has not left yet: then it never does.

        Raises:
            CapacityExceeded: Too many requests wait for a reply, or too many bytes wait to be read by the upstream.
            UpstreamFault: The connection ended, or the answer was not MCP.
            SlowConsumer: The client does not read what the upstream sends it.
        """
        if self._closed is not None:
            raise self._closed()
        await trio.lowlevel.checkpoint_if_cancelled()  # whoever is cancelled by now sends nothing
        request, listens = exchange.request, exchange.kind is Kind.LISTEN
        assert isinstance(request, Request)
        alone = self._listening == len(self._calls)
        with self._table.register(Call(exchange=exchange)) as call:
            self._send(readdress(request, call.id), call.id, alone=alone)
            try:
                if listens:
                    return await self._listen(call)
                reply = await call.receive()
                if not isinstance(reply, _REPLIES):
                    reply = await self._converse(call, reply)
            finally:
                self.last_used = self._now()
                if call.questions or call.hung_up or not call.answered:
                    self._leave(call)
        if "task" in request.params and isinstance(reply, Result) and "task" in reply.value:
            self._keep_token(call)
        return reply

    def notify(self, notification: Notification) -> None:
        """
        Pass a client's notification on. Never blocks.

        Cancel notices are not passed on: their ids are the client's. Whoever owns the exchange cancels it.

        Raises:
            CapacityExceeded: Too many bytes wait to be read by the upstream.
            UpstreamFault: The connection ended.
        """
        if self._closed is not None:
            raise self._closed()
        if notification.method != _CANCELLED:
            self._send(encode_message(notification))

    def receive(self, item: Message | GatewayError) -> None:
        """Take what the reader decoded. Never blocks, whatever clients do."""
        if type(item) is Response:
            self._table.resolve(item)
        elif isinstance(item, Notification):
            self._announce(item)
            try:
                self.unclaimed += not self._deliver(item)
            except UpstreamProtocolError as error:  # its body does not pass the gate
                self._garbage(error)
        elif isinstance(item, Request):
            self._question(item)
        else:
            self._garbage(item)

    def fail(self, request_id: int, error: GatewayError) -> bool:
        """A request did not reach the upstream; False if nobody waits for its reply any more."""
        return self._table.fail(request_id, error)

    def close(self, make_error: Callable[[], GatewayError]) -> None:
        """The connection is over: every exchange on it, and every later one, fails with such an error. Idempotent."""
        if self._closed is None:
            self._closed = make_error
            if self._unsolicited is not None:
                self._unsolicited.close()
            self._table.fail_all(make_error)

    @property
    def in_flight(self) -> int:
        """Exchanges that wait for a reply."""
        return len(self._calls)

    @property
    def questions(self) -> int:
        """Questions of the upstream that have no answer yet."""
        return len(self._asked) + (0 if self._unsolicited is None else len(self._unsolicited))

    async def _converse(self, call: Call, item: Item | Reply) -> Reply:
        """The rest of a conversation, from its first message on."""
        while isinstance(item, Notification):
            await call.exchange.relay(call.restore(item))
            item = await call.receive()
        return await self._converse_asking(call, item) if isinstance(item, Request) else item

    async def _converse_asking(self, call: Call, item: Item | Reply) -> Reply:
        """The rest of a conversation in which the upstream asks: only these pay for a nursery."""
        with unwrap_single():
            async with trio.open_nursery() as questions:
                while not isinstance(item, _REPLIES):
                    if isinstance(item, Request):
                        questions.start_soon(self._ask, call, item)
                    else:
                        await call.exchange.relay(call.restore(item))
                    item = await call.receive()
                questions.cancel_scope.cancel()
        return item

    async def _listen(self, call: Call) -> Reply:
        """A conversation that ends by itself when the gateway drains."""

        async def hang_up() -> None:
            await call.exchange.draining.wait()
            call.hung_up = True
            self._end_listen(call)

        self._listening += 1
        try:
            with unwrap_single():
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(hang_up)
                    reply = await self._converse(call, await call.receive())
                    nursery.cancel_scope.cancel()
        finally:
            self._listening -= 1
        return call.restore_end(reply)

    def _end_listen(self, call: Call) -> None:
        self._table.resolve(Response(call.id, Result({"resultType": "complete"})))

    def _leave(self, call: Call) -> None:
        """Nobody waits any more: say so, if the upstream does not know it."""
        if call.questions:
            ended = ErrorReply(ErrorCode.INTERNAL_ERROR, "the request that caused this has ended")
            for question_id in list(call.questions):
                self._answer(question_id, ended)
        if call.answered and not call.hung_up:
            return
        # a handshake cannot be taken back (2025-11-25, basic/utilities/cancellation): its session is over anyway
        if not self._outbox.withdraw(call.id) and call.exchange.method != "initialize":
            self._say(Notification(_CANCELLED, {"requestId": call.id}))

    async def _ask(self, call: Call, question: Request) -> None:
        scope = call.questions.get(question.id)
        if scope is None:  # taken back before anybody looked
            return
        with scope:
            try:
                reply = await call.exchange.ask(question.method, question.params)
            except GatewayError as error:
                reply = render_error(error)
            self._answer(question.id, reply)

    def _question(self, question: Request) -> None:
        if question.method == "ping":
            self._say(Response(question.id, Result()))
            return
        call = self._attributed()
        if call is None and self._unsolicited is not None:
            self._spawn(self._unsolicited.ask, question)
            return
        refusal: ErrorReply | None = None
        if call is None:
            refusal = ErrorReply(ErrorCode.METHOD_NOT_FOUND, f"{question.method}: no client to ask")
        elif question.id in self._asked:
            refusal = ErrorReply(ErrorCode.INVALID_REQUEST, f"a question with id {question.id!r} is open already")
        elif len(self._asked) >= _MAX_QUESTIONS:
            refusal = ErrorReply(ErrorCode.INTERNAL_ERROR, f"{_MAX_QUESTIONS} questions are open; wait for an answer")
        if call is None or refusal is not None:
            assert refusal is not None
            self._say(Response(question.id, refusal))
            return
        self._asked[question.id] = call
        call.questions[question.id] = trio.CancelScope()
        self._table.post(call.id, question)

    def _answer(self, question_id: RequestId, reply: Reply) -> None:
        if self._forget(question_id) is not None:
            self._say(Response(question_id, reply))

    def _forget(self, question_id: RequestId) -> trio.CancelScope | None:
        call = self._asked.pop(question_id, None)
        return None if call is None else call.questions.pop(question_id)

    def _attributed(self) -> Call | None:
        """Whose a message is that does not say so."""
        latest = (call for call in reversed(self._calls.values()) if call.exchange.kind is not Kind.LISTEN)
        call = next(latest, None)
        return call if self._session is not None or next(latest, None) is None else None

    def _deliver(self, notification: Notification) -> bool:
        """Put a notification where it belongs; False if nowhere."""
        method, params = notification.method, notification.params
        if method == PROGRESS:
            token = params.get("progressToken")
            return self._table.post(token, notification) or self._deliver_task_progress(token, notification)
        if method == _CANCELLED:
            return self._taken_back(params.get("requestId"))
        subscription_id = meta_of(params).get(MetaKey.SUBSCRIPTION_ID)
        if subscription_id is not None:
            return self._table.post(subscription_id, notification)
        if method == LOG_MESSAGE and self._deliver_log(notification):
            return True
        if self._session is None:
            return False
        self._session.notify(notification)
        return True

    def _deliver_log(self, notification: Notification) -> bool:
        call = self._attributed()
        if call is None:
            return False
        if self._session is None and MetaKey.LOG_LEVEL not in meta_of(call.exchange.request.params):
            return False  # a modern client that did not ask for logs gets none
        return self._table.post(call.id, notification)

    def _taken_back(self, message_id: Json) -> bool:
        """The upstream takes a question back (legacy), or ends a subscription (2026-07-28, stdio)."""
        if type(message_id) not in (str, int):  # not a bool, which is an int
            return False
        scope = self._forget(message_id)
        if scope is not None:
            scope.cancel()
            return True
        if self._unsolicited is not None and self._unsolicited.take_back(message_id):
            return True
        call = self._calls.get(message_id)
        if call is None or call.exchange.kind is not Kind.LISTEN:
            return False
        self._end_listen(call)
        return True

    def _keep_token(self, call: Call) -> None:
        """A task makes progress after its request was answered (2025-11-25, basic/utilities/tasks)."""
        if call.token is not None and self._session is not None:
            if len(self._task_tokens) >= _MAX_TASK_TOKENS:
                del self._task_tokens[next(iter(self._task_tokens))]
            self._task_tokens[call.id] = call.token

    def _deliver_task_progress(self, token: Json, notification: Notification) -> bool:
        if self._session is None or type(token) is not int or token not in self._task_tokens:
            return False
        self._session.notify(with_token(notification, self._task_tokens[token]))
        return True

    def _garbage(self, error: GatewayError) -> None:
        """Something that is no message: fail the exchange it was for, if that is clear, and count it."""
        self.noise += 1
        if self.noise == 1:
            self._log.warning("the upstream sent what is not MCP; further cases are counted", error=str(error))
        answer_to = error.request_id
        if isinstance(error, MessageTooLarge):
            only = [call for call in self._calls.values() if call.exchange.kind is not Kind.LISTEN]
            answer_to = only[0].id if len(only) == 1 else None
        if answer_to is not None:
            self._table.fail(answer_to, UpstreamProtocolError(f"{self._name}: {error.message}"))

    async def _reply(self, answer: Response) -> None:
        await trio.lowlevel.checkpoint()
        self._say(answer)

    def _say(self, message: Message) -> None:
        """Send what nobody waits for; dropped if the upstream does not read or is gone."""
        with suppress(trio.WouldBlock, trio.ClosedResourceError):
            self._outbox.put_nowait(encode_message(message))

    def _send(self, message: bytes, key: int | None = None, *, alone: bool = False) -> None:
        try:
            self._outbox.put_nowait(message, key, alone=alone)
        except trio.WouldBlock:
            raise CapacityExceeded(
                f"{self._name}: {self._outbox.size} bytes wait to be read by the upstream, which is not reading; "
                f"at most {self._outbox.max_bytes} may"
            ) from None
        except trio.ClosedResourceError:
            raise UpstreamClosed(f"{self._name}: the connection to the upstream is ending") from None
