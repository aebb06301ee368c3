"""
What a request about a task does for a client of 2025-11-25, at an upstream that has the extension for tasks.

It looks at the task, and puts what that asks to the client while it waits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

import trio

from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.model.exchange import Exchange, Service
from sluiceway.pipeline.model.session import Session
from sluiceway.pipeline.protocol.errors import GatewayError, UpstreamProtocolError
from sluiceway.pipeline.protocol.mcp import ErrorCode
from sluiceway.pipeline.protocol.messages import ErrorReply, Json, Reply, Request, Result

from .task_book import Entry
from .task_messages import (
    CANCELLED,
    INPUT_REQUIRED,
    about_task,
    cancelled,
    id_of,
    is_over,
    legacy_task,
    outcome,
    wall_clock,
)
from .to_modern_held import Held
from .to_modern_messages import legacy_error
from .to_modern_questions import ask_all, question_of, requests_of

MAX_QUESTIONS: Final = 64
"""Questions that one task may put to its client."""
PAUSES_S: Final = (0.1, 1.0, 60.0)
"""Between two looks at a task: the shortest, what there is where the upstream suggests nothing, and the longest."""


@final
class TaskSource:
    """
    The upstream, as far as tasks go.

    Args:
        name: What it is called in errors.
        call: The sink's own way to it.
        context: The sink's.
        changed: Told when a session has other unfinished tasks than before. Must not block.
    """

    def __init__(self, name: str, call: Service, context: Context, changed: Callable[[Session, Held], None]) -> None:
        self.name = name
        self._call = call
        self._context = context
        self.changed = changed
        """Call it when a session has other unfinished tasks than before."""

    def entry_of(self, reply: Result) -> Entry:
        """A task that the upstream has just created."""
        return Entry(id_of(self.name, reply.value), legacy_task(self.name, reply.value, self._context.now()))

    async def ask(self, held: Held, exchange: Exchange, method: str, params: dict[str, Json]) -> Reply:
        """Ask the upstream about a task. Raises as the sink does."""
        request = Request(self._context.new_id(), method, {**params, "_meta": held.about(tasks=True)})
        reply = await self._call(exchange.with_client(held.tasking()).with_request(request))
        return legacy_error(request, reply) if isinstance(reply, ErrorReply) else reply

    def learn(self, session: Session, held: Held, entry: Entry, reply: Result) -> None:
        """Take in what the upstream says of a task."""
        if id_of(self.name, reply.value) != entry.id:
            raise UpstreamProtocolError(f"{self.name}: the upstream was asked for one task, and tells of another")
        entry.learn(legacy_task(self.name, reply.value, self._context.now()))
        if is_over(entry.task):
            self.changed(session, held)

    def questions(self, held: Held, entry: Entry, reply: Result) -> dict[str, Request]:
        """What a task asks that nobody was asked yet."""
        asked = {key: each for key, each in requests_of(self.name, reply.value).items() if key not in entry.claimed}
        if len(asked) + len(entry.claimed) > MAX_QUESTIONS:
            raise UpstreamProtocolError(f"{self.name}: the upstream's task asks more than {MAX_QUESTIONS} questions")
        able = held.client.capabilities
        return {key: question_of(self.name, able, key, each, self._context.new_id) for key, each in asked.items()}

    def outcome(self, reply: Result) -> Reply:
        """What a task that is over came to."""
        return outcome(self.name, reply)

    def stamp(self) -> str:
        """What time it is."""
        return wall_clock(self._context.now())


@final
class Waiting:
    """
    A request about one task, within its session.

    Args:
        source: Asks the upstream.
        session: Whose task it is.
        held: What it has said.
        exchange: The request.
        entry: The task.
        named: The client knows of it, so questions say its name.
    """

    def __init__(
        self,
        source: TaskSource,
        session: Session,
        held: Held,
        exchange: Exchange,
        entry: Entry,
        *,
        named: bool = True,
    ) -> None:
        self._source = source
        self._session = session
        self._held = held
        self._exchange = exchange
        self._entry = entry
        self._named = named

    async def get(self) -> Reply:
        """`tasks/get`: how it is."""
        if self._entry.is_settled:
            await trio.lowlevel.checkpoint()
        else:
            reply = await self._look()
            if isinstance(reply, ErrorReply):
                return reply
        return Result(dict(self._entry.task))

    async def cancel(self) -> Reply:
        """`tasks/cancel`: cancelled for its client, whenever the upstream stops."""
        entry = self._entry
        seen = None if entry.is_settled else await self._look()
        if isinstance(seen, ErrorReply):
            return seen
        if seen is None:
            await trio.lowlevel.checkpoint()
        if is_over(entry.task):
            status = entry.task["status"]
            return ErrorReply(int(ErrorCode.INVALID_PARAMS), f"cannot cancel the task: it is {status} already")
        reply = await self._ask("tasks/cancel")
        if isinstance(reply, Result):
            entry.learn({**entry.task, "status": CANCELLED, "lastUpdatedAt": self._source.stamp()})
            entry.wake()
            self._source.changed(self._session, self._held)
            return Result(dict(entry.task))
        return reply

    async def result(self) -> Reply:
        """`tasks/result`: wait until it is over; what it came to."""
        entry = self._entry
        if entry.reply is not None:
            await trio.lowlevel.checkpoint()
            return entry.reply
        while True:
            news = entry.news
            if entry.is_settled:
                await trio.lowlevel.checkpoint()
                return cancelled(entry.id)
            reply = await self._look()
            if isinstance(reply, ErrorReply) or entry.is_settled:
                return reply if isinstance(reply, ErrorReply) else cancelled(entry.id)
            if is_over(reply.value):
                return self._source.outcome(reply)
            questions = self._source.questions(self._held, entry, reply)
            if reply.value.get("status") == INPUT_REQUIRED and questions:
                refusal = await self._put(questions)
                if refusal is not None:
                    return refusal
                continue
            with trio.move_on_after(_pause(reply.value.get("pollIntervalMs"))):
                await news.wait()

    async def tell_cancelled(self) -> None:
        """Tell the upstream, if it still listens, that nobody waits for it."""
        try:
            await self._ask("tasks/cancel")
        except GatewayError:
            return

    async def _look(self) -> Reply:
        """Ask the upstream how it is."""
        reply = await self._ask("tasks/get")
        if isinstance(reply, Result):
            self._source.learn(self._session, self._held, self._entry, reply)
        elif reply.code == ErrorCode.INVALID_PARAMS:
            self._held.tasks.forget(self._entry)
            self._source.changed(self._session, self._held)
        return reply

    async def _put(self, questions: dict[str, Request]) -> ErrorReply | None:
        """Ask the client, and tell the upstream; what it says instead of answering."""
        if self._named:
            about = self._entry.id
            questions = {k: Request(k, each.method, about_task(each.params, about)) for k, each in questions.items()}
        claimed = self._entry.claimed
        claimed.update(questions)
        told = False
        try:
            answers = await ask_all(self._exchange, questions)
            if isinstance(answers, ErrorReply):
                told = True  # the upstream cannot be told of an error, and nobody asks again
                await self._ask("tasks/cancel")
                return answers
            reply = await self._ask("tasks/update", inputResponses=answers)
            told = isinstance(reply, Result)
            return None if isinstance(reply, Result) else reply
        finally:
            if not told:
                claimed.difference_update(questions)

    async def _ask(self, method: str, **more: Json) -> Reply:
        return await self._source.ask(self._held, self._exchange, method, {"taskId": self._entry.id, **more})


def _pause(suggested: Json) -> float:
    """Seconds until a task is looked at again; the upstream suggests milliseconds."""
    if not isinstance(suggested, int | float):
        return PAUSES_S[1]
    return min(max(suggested / 1000, PAUSES_S[0]), PAUSES_S[2])
