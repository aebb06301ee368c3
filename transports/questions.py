"""
What a legacy upstream asks while it serves a request (sampling, elicitation, roots), and who answers.

A question goes to the client whose request caused it, on the stream of that request; one that no request caused goes
to the client whose session it is, on that session's own stream; else to nobody (protocol rule, not a preference: a
question that reaches the wrong client is a leak).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, final

import trio

from sluiceway.pipeline.model.session import Asker
from sluiceway.pipeline.protocol.errors import GatewayError, render_error
from sluiceway.pipeline.protocol.mcp import ErrorCode
from sluiceway.pipeline.protocol.messages import ErrorReply, Reply, Request, RequestId, Response, Result

MAX_QUESTIONS: Final = 64
"""Questions that one exchange, or one session outside of its exchanges, may have open."""

Answer = Callable[[Response], Awaitable[None]]
"""Sends an answer to the upstream; never raises a `GatewayError`."""


@final
class Questions:
    """
    The open questions of one exchange, or of one session.

    Args:
        ask: Asks the client.
        answer: Takes the answers.
    """

    def __init__(self, ask: Asker, answer: Answer) -> None:
        self._ask = ask
        self._answer = answer
        self._open: dict[RequestId, trio.CancelScope] = {}
        self._closed = False

    def __len__(self) -> int:
        return len(self._open)

    async def ask(self, question: Request) -> None:
        """Put one to the client, and send its answer, unless the upstream or `close` takes it back."""
        refusal = self._refusal(question)
        if refusal is not None:
            await self._answer(Response(question.id, refusal))
            return
        scope = self._open[question.id] = trio.CancelScope()
        try:
            with scope:
                reply: Reply
                try:
                    reply = await self._ask(question.method, question.params)
                except GatewayError as error:
                    reply = render_error(error)
                await self._answer(Response(question.id, reply))
        finally:
            del self._open[question.id]

    def take_back(self, question_id: object) -> bool:
        """The upstream does not want to know any more; whether it had asked."""
        scope = self._open.get(question_id) if type(question_id) in (str, int) else None  # type: ignore[call-overload]  # checked in the same line
        if scope is None:
            return False
        scope.cancel()
        return True

    def close(self) -> None:
        """The exchange or session is over: nobody is asked any more."""
        self._closed = True
        for scope in self._open.values():
            scope.cancel()

    def _refusal(self, question: Request) -> ErrorReply | None:
        if self._closed:
            return ErrorReply(ErrorCode.INTERNAL_ERROR, "the request that caused this has ended")
        if question.id in self._open:
            return ErrorReply(ErrorCode.INVALID_REQUEST, f"a question with id {question.id!r:.80} is open already")
        if len(self._open) >= MAX_QUESTIONS:
            return ErrorReply(ErrorCode.INTERNAL_ERROR, f"{MAX_QUESTIONS} questions are open; wait for an answer")
        return None


def answer_at_once(question: Request) -> Response | None:
    """The answer to what needs no client to be asked; None for everything else."""
    return Response(question.id, Result()) if question.method == "ping" else None


def nobody(question: Request) -> Response:
    """The answer to a question that cannot be put to anybody."""
    return Response(question.id, ErrorReply(ErrorCode.METHOD_NOT_FOUND, f"{question.method:.60}: no client to ask"))
