"""
A task at a legacy upstream that a modern client was given in place of an answer (2025-11-25, basic/utilities/tasks).

Its client looks at it (`tasks/get`), or listens. The upstream asks, and says what came of it, only to who waits in
`tasks/result`; so somebody does as soon as it is said to need that, or as its client listens, and not before: that
would be a request under way for as long as the task runs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from typing import Final, final

import trio

from sluiceway.pipeline.protocol.errors import GatewayError
from sluiceway.pipeline.protocol.mcp import ErrorCode
from sluiceway.pipeline.protocol.messages import ErrorReply, Json, Reply, Result

from .held_call import Question
from .listener import Listener
from .task_messages import CANCELLED, COMPLETED, FAILED, INPUT_REQUIRED, WORKING, about_nobody, is_over
from .to_legacy_messages import lacking, modern_question

MAX_QUESTIONS: Final = 64
"""Questions of one task that may be open at once."""
TTL_S: Final = (3600.0, 24 * 3600.0)
"""How long a task is held whose upstream gives it no time to live, and at most."""
PAUSES_S: Final = (1.0, 60.0)
"""Shortest and longest pause before an upstream that failed is asked again for somebody who listens; it doubles."""
SETTLE_S: Final = 1.0
"""How long a look at a task waits for the question, or the outcome, that its status promises."""


@final
class HeldTask:
    """
    Args:
        task_id: The upstream's.
        task: What the upstream said of it, as `modern_task` made it.
        capabilities: What its client declared.
        park_timeout_s: Time its client has to answer a question.
    """

    def __init__(
        self,
        task_id: str,
        task: Mapping[str, Json],
        capabilities: Mapping[str, Json],
        park_timeout_s: float,
    ) -> None:
        self.id = task_id
        self.scope = trio.CancelScope()
        """Around its task; ends when it is forgotten."""
        self.listeners: set[Listener] = set()
        """Those that hear of it."""
        self._task = task
        self._capabilities = capabilities
        self._park_timeout_s = park_timeout_s
        self._questions: dict[str, Question] = {}
        self._asked = 0
        self._outcome: Reply | None = None
        self._needed = trio.Event()
        self._news = trio.Event()
        self._fetching = trio.CancelScope()
        ttl = task.get("ttlMs")
        held_s = min(ttl / 1000, TTL_S[1]) if isinstance(ttl, int | float) else TTL_S[0]
        self.scope.deadline = trio.current_time() + held_s
        self._held: dict[str, Json] = {"ttlMs": round(held_s * 1000)}
        self.learn(task)

    @property
    def is_over(self) -> bool:
        """Whether it will never change again."""
        return self._outcome is not None or self._task.get("status") == CANCELLED

    @property
    def is_asking(self) -> bool:
        """Whether its client has to answer something."""
        return bool(self._questions)

    @property
    def size(self) -> int:
        """Bytes of the result that is kept."""
        return len(self._outcome.raw) if isinstance(self._outcome, Result) else 0

    @property
    def _is_due(self) -> bool:
        """Whether the upstream has something to ask, or to say."""
        return is_over(self._task) or self._task.get("status") == INPUT_REQUIRED

    async def run(
        self, fetch: Callable[[], Awaitable[Reply]], in_use: Callable[[], AbstractContextManager[None]]
    ) -> None:
        """
        The task of a task: wait for its outcome when that is needed, and keep it until its time is over.

        Args:
            fetch: Sends `tasks/result`. If it fails, it is sent again after a pause if somebody listens, and else when
                somebody looks at the task.
            in_use: Keeps its session, as long as it is not over.
        """
        with self.scope:
            pause_s = PAUSES_S[0]
            with in_use():
                await self._needed.wait()
                while not self.is_over:
                    self._needed = trio.Event()
                    with trio.CancelScope() as self._fetching:
                        await self._fetch(fetch)
                    if not self.is_over:
                        # somebody who listens does not look
                        with trio.move_on_after(pause_s if self.listeners else float("inf")):
                            await self._needed.wait()
                        pause_s = min(2 * pause_s, PAUSES_S[1])
            await trio.sleep_forever()

    def need(self) -> None:
        """Somebody wants to hear what it asks, and what comes of it."""
        self._needed.set()

    def learn(self, task: Mapping[str, Json]) -> None:
        """The upstream tells how it is."""
        if self.is_over:
            return
        self._task = task
        if self._is_due:
            self.need()

    def heard(self, task: Mapping[str, Json]) -> None:
        """The upstream tells of its own accord how it is."""
        self.learn(task)
        self._tell()

    def cancel(self) -> None:
        """Its client has cancelled it, and the upstream knows."""
        self._task = {**self._task, "status": CANCELLED}
        self._fetching.cancel()
        self.need()
        self._tell()

    async def settled(self) -> None:
        """Wait a moment for what its status promises, if that is not there yet."""
        with trio.move_on_after(SETTLE_S):
            while not self.is_over and not self._questions and self._is_due:
                await self._news.wait()

    def details(self) -> dict[str, Json]:
        """As `tasks/get` and `notifications/tasks` tell it."""
        task = {**self._task, **self._held}
        if task["status"] == CANCELLED:
            return task
        if isinstance(self._outcome, Result):
            return {**task, "status": COMPLETED, "result": about_nobody(self._outcome.value)}
        if self._outcome is not None:
            error = {"code": self._outcome.code, "message": self._outcome.message}
            data = {} if self._outcome.data is None else {"data": self._outcome.data}
            return {**task, "status": FAILED, "error": {**error, **data}}
        if self._questions:
            asked = {key: {"method": each.method, "params": each.params} for key, each in self._questions.items()}
            return {**task, "status": INPUT_REQUIRED, "inputRequests": asked}
        return {**task, "status": WORKING}

    def answer(self, answers: Mapping[str, Json]) -> None:
        """Take its client's answers; those that nobody asked for are dropped."""
        for key, value in answers.items():
            question = self._questions.pop(key, None)
            if question is not None:
                question.answer = Result(value if isinstance(value, dict) else {})
                question.answered.set()

    async def ask(self, method: str, params: Mapping[str, Json]) -> Reply:
        """Have its client asked; the answer, or what the upstream is told where there is none."""
        await trio.lowlevel.checkpoint()
        if lacking(method, params, self._capabilities) is not None:
            return ErrorReply(ErrorCode.METHOD_NOT_FOUND, f"this client cannot be asked: {method:.60}")
        if len(self._questions) >= MAX_QUESTIONS:
            return ErrorReply(ErrorCode.INTERNAL_ERROR, f"{MAX_QUESTIONS} questions are open; wait for an answer")
        self._asked += 1
        key, question = f"q{self._asked}", Question(method, modern_question(method, params))
        self._questions[key] = question
        self._tell()
        try:
            with trio.move_on_after(self._park_timeout_s):
                await question.answered.wait()
        finally:
            self._questions.pop(key, None)
        return question.answer or ErrorReply(ErrorCode.INTERNAL_ERROR, "the client has not answered in time")

    async def _fetch(self, fetch: Callable[[], Awaitable[Reply]]) -> None:
        if self.is_over:
            return
        try:
            self._outcome = await fetch()
        except GatewayError:  # whoever looks at it next is told how its upstream is
            return
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()
        for listener in self.listeners:
            listener.hear_task(self.id)
