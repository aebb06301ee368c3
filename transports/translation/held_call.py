"""
A call at a legacy upstream that can outlive the exchange that began it.

It runs in a task of the sink's. An exchange attends it: relays what comes, and takes the reply. When the upstream asks
something, the exchange goes away with the questions (`input_required`), and the call is *parked* until another exchange
brings the answers, or until its time is over. What comes in between is kept up to a bound.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, final

import trio
from attrs import define, field

from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.protocol.errors import GatewayError, UpstreamClosed
from sluiceway.pipeline.protocol.mcp import LOG_MESSAGE, PROGRESS, ErrorCode, MetaKey, meta_of
from sluiceway.pipeline.protocol.messages import ErrorReply, Json, Notification, Reply, Request, Result

from ..readdress import with_token
from .to_legacy_messages import is_wanted, lacking, log_level_of, modern_question

MAX_KEPT: Final = 64
"""Notifications of one call that wait for its client."""
MAX_QUESTIONS: Final = 64
"""Questions of one call that may be open at once."""
MAX_ROUNDS: Final = 32
"""How often one call may wait for its client; each time takes at most `park_timeout`."""
TOGETHER_S: Final = 0.02
"""How long the first question of a round waits for others to go out with it."""


@final
@define(eq=False)
class Question:
    """Something that the upstream asked and the client has not answered."""

    method: str
    params: Mapping[str, Json]
    answered: trio.Event = field(factory=trio.Event)
    answer: Reply | None = None


@final
class HeldCall:
    """
    Args:
        call_id: Unguessable.
        owner: Whose call it is; nobody else may take it up again.
        exchange: The one that begins it.
        capabilities: What its client declared; empty if the method allows no questions.
        admit: Asked when the upstream has asked; whether the call may be parked.
        closed: What to say where the sink closed around it: it was sent, and may have run.
    """

    def __init__(
        self,
        call_id: str,
        owner: tuple[str, ...],
        exchange: Exchange,
        capabilities: Mapping[str, Json],
        *,
        admit: Callable[[HeldCall], bool],
        closed: Callable[[], UpstreamClosed],
    ) -> None:
        self.id = call_id
        self.owner = owner
        self.round = 0
        """How often its client was asked."""
        self.dropped = 0
        """Notifications that nobody was there to take."""
        self.scope = trio.CancelScope()
        """Around its task; its deadline counts while it is parked."""
        self.capabilities = capabilities
        self._admit = admit
        self._closed = closed
        self._attending: Exchange | None = exchange
        self._questions: dict[str, Question] = {}
        self._asked = 0
        self._kept: deque[Notification] = deque()
        self._wake = trio.Event()
        self._room = trio.Event()
        self._over = False
        self._reply: Reply | None = None
        self._error: Exception | None = None

    @property
    def is_parked(self) -> bool:
        """Whether its client has to answer before anybody attends it again."""
        return self._attending is None

    @property
    def questions(self) -> Mapping[str, Question]:
        """The open ones, by the key under which the client was or will be asked."""
        return self._questions

    async def run(self, send: Callable[[], Awaitable[Reply]]) -> None:
        """The task of the call: serve it, and keep the outcome for whoever attends, until `leave` or the deadline."""
        try:
            with self.scope:
                try:
                    self._reply = await send()
                except Exception as error:  # the boundary is around the exchange: raised again in there
                    self._error = error
                self._end()
                await trio.sleep_forever()
        finally:
            self._end()

    async def attend(self, exchange: Exchange) -> Reply | None:
        """
        Relay what comes; in the exchange's own task.

        Returns:
            The upstream's reply; None if there are questions that the client has to answer first.

        Raises:
            GatewayError: As the call did.
        """
        await trio.lowlevel.checkpoint()
        collected = False
        while True:
            while self._kept:
                notification = self._kept.popleft()
                self._room.set()
                await relay_wanted(exchange, notification)
            if self._over:
                return self._outcome()
            if not self._questions:
                collected = False
                self._wake = trio.Event()
                await self._wake.wait()
            elif collected:
                return None
            else:
                collected = True
                with trio.move_on_after(TOGETHER_S):
                    await self._until_over()

    def answer(self, exchange: Exchange, answers: Mapping[str, Json]) -> None:
        """Take the client's answers; the exchange that brought them attends from now on. Others are dropped."""
        self._attending = exchange
        self.scope.deadline = float("inf")
        for key, value in answers.items():
            question = self._questions.pop(key, None)
            if question is not None:
                question.answer = Result(value)
                question.answered.set()

    def park(self, until: float) -> None:
        """Nobody attends it until its client answers; at `until` (Trio clock seconds) it ends."""
        self.round += 1
        self._attending = None
        self.scope.deadline = until
        self._room.set()

    def leave(self) -> None:
        """Nobody will ever attend it again: cancel it, if it is not over yet. Idempotent."""
        self.scope.cancel(reason="nobody waits for it any more")

    async def emit(self, notification: Notification) -> None:
        """Take a notification of the upstream; waits while an attending client is slow."""
        await trio.lowlevel.checkpoint()
        while len(self._kept) >= MAX_KEPT and self._attending is not None and not self._over:
            if self._room.is_set():
                self._room = trio.Event()
            await self._room.wait()
        self.keep(notification)

    def keep(self, notification: Notification) -> None:
        """Take a notification now, or drop it where too many wait."""
        if len(self._kept) >= MAX_KEPT:
            self.dropped += 1
            return
        self._kept.append(notification)
        self._wake.set()

    async def ask(self, method: str, params: Mapping[str, Json]) -> Reply:
        """Have the client asked; its answer, or at once what the upstream is told where it cannot be asked."""
        await trio.lowlevel.checkpoint()
        refusal = self._refusal(method, params)
        if refusal is not None:
            return refusal
        self._asked += 1
        key, question = f"q{self._asked}", Question(method, modern_question(method, params))
        self._questions[key] = question
        self._wake.set()
        try:
            await question.answered.wait()
        finally:
            self._questions.pop(key, None)
            self._wake.set()
        assert question.answer is not None
        return question.answer

    def _refusal(self, method: str, params: Mapping[str, Json]) -> ErrorReply | None:
        lacks = lacking(method, params, self.capabilities)
        if lacks is not None:
            return ErrorReply(ErrorCode.METHOD_NOT_FOUND, f"this client cannot be asked: {method:.60}")
        if len(self._questions) >= MAX_QUESTIONS:
            return ErrorReply(ErrorCode.INTERNAL_ERROR, f"{MAX_QUESTIONS} questions are open; wait for an answer")
        if self.round >= MAX_ROUNDS:
            return ErrorReply(ErrorCode.INTERNAL_ERROR, f"the client was asked {MAX_ROUNDS} times already")
        if not self._admit(self):
            return ErrorReply(
                ErrorCode.INTERNAL_ERROR, "too many calls wait for their clients; nobody can be asked now"
            )
        return None

    def _outcome(self) -> Reply:
        if self._error is not None:
            # once its client was asked, it has been sent, whatever the failure says of its latest try
            raise as_sent(self._error) if self.round and isinstance(self._error, GatewayError) else self._error
        if self._reply is None:
            raise self._closed()
        return self._reply

    def _end(self) -> None:
        self._over = True
        self._wake.set()
        self._room.set()

    async def _until_over(self) -> None:
        while not self._over:
            self._wake = trio.Event()
            await self._wake.wait()


def as_sent(error: GatewayError) -> GatewayError:
    """The same failure of a call that the upstream has begun to serve: nobody may make it again for the client."""
    twin = error.with_data()
    twin.retryable = False
    return twin


async def relay_wanted(exchange: Exchange, notification: Notification) -> None:
    """Pass a notification on as the client knows it, if it wants it."""
    request = exchange.request
    assert isinstance(request, Request)
    if notification.method == PROGRESS:
        token = meta_of(request.params).get(MetaKey.PROGRESS_TOKEN)
        wanted = token is not None
        notification = with_token(notification, token)
    else:
        wanted = notification.method != LOG_MESSAGE or is_wanted(log_level_of(request), notification.params)
    if wanted:
        await exchange.relay(notification)
    else:
        await trio.lowlevel.checkpoint()
