"""
Tasks of 2025-11-25 at an upstream that has the extension `io.modelcontextprotocol/tasks` (SEP-2663).

There the client asks for a task, here the server decides: a call that asks for one is sent by a client that knows the
extension, and if the upstream answers at once, the client gets a task that is over already, whose result is kept here.
What the upstream asks is put to the client while it waits in `tasks/result`. A session knows the tasks that it has
created and no others; they go on at the upstream when it ends.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, final

import trio

from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.model.exchange import Exchange, Service
from sluiceway.pipeline.model.session import Session
from sluiceway.pipeline.protocol.errors import GatewayError, InvalidParams, UpstreamProtocolError
from sluiceway.pipeline.protocol.mcp import ErrorCode
from sluiceway.pipeline.protocol.messages import ErrorReply, Json, Notification, Reply, Request, Result
from sluiceway.pipeline.runtime.nursery import farewell

from .held_call import as_sent
from .task_book import TTL_S, Entry
from .task_messages import (
    CANCELLED,
    COMPLETED,
    FAILED,
    INPUT_REQUIRED,
    LEGACY_STATUS,
    about_task,
    cancelled,
    created,
    id_of,
    is_over,
    is_task,
    legacy_task,
    not_found,
    outcome,
    related,
    wall_clock,
)
from .to_modern_held import Held
from .to_modern_messages import legacy_error
from .to_modern_questions import ask_all, question_of, requests_of

PREFIX: Final = "tasks/"
MAX_QUESTIONS: Final = 64
"""Questions that one task may put to its client."""
PAUSES_S: Final = (0.1, 1.0, 60.0)
"""Between two looks at a task: the shortest, what there is where the upstream suggests nothing, and the longest."""
_FAREWELL_S: Final = 1.0

Run = Callable[[Exchange], Awaitable[Reply]]
"""Makes a call at the upstream, of a client that knows the extension; a task is returned as it is."""


@final
class ToModernTasks:
    """
    Args:
        name: What the upstream is called in errors.
        call: The sink's own way to the upstream.
        context: The sink's.
        changed: Told when a session has other unfinished tasks than before. Must not block.
    """

    def __init__(self, name: str, call: Service, context: Context, changed: Callable[[Session, Held], None]) -> None:
        self._name = name
        self._call = call
        self._context = context
        self.changed = changed
        """Call it when a session has other unfinished tasks than before."""

    async def __call__(self, session: Session, held: Held, exchange: Exchange) -> Reply:
        """
        Answer a `tasks/` method of a session.

        Raises:
            InvalidParams: It is about no task.
            UpstreamProtocolError: The upstream tells of a task what cannot be.
            GatewayError: As the sink does, and as asking the client does.
        """
        params = exchange.request.params
        if exchange.method == "tasks/list":
            await trio.lowlevel.checkpoint()
            if params.get("cursor") is not None:
                raise InvalidParams("tasks/list: all tasks of a session are on one page, and there is no other")
            return Result({"tasks": held.tasks.listed()})
        task_id = params.get("taskId")
        if not isinstance(task_id, str):
            raise InvalidParams(f"{exchange.method}: taskId must be a text")
        entry = held.tasks.find(task_id)
        if entry is None:
            await trio.lowlevel.checkpoint()
            return not_found(task_id)
        waiting = _Waiting(self, session, held, exchange, entry)
        if exchange.method == "tasks/get":
            return await waiting.get()
        if exchange.method == "tasks/cancel":
            return await waiting.cancel()
        reply = await waiting.result()
        return related(reply, task_id) if isinstance(reply, Result) else reply

    async def create(self, session: Session, held: Held, exchange: Exchange, run: Run) -> Reply:
        """
        Make a call that shall be a task.

        Args:
            session: Whose it is.
            held: What it has said.
            exchange: The call.
            run: Makes it.

        Raises:
            CapacityExceeded: The session has too many tasks.
            InvalidParams: `task` is no object.
            GatewayError: As `run` does.
        """
        wanted = exchange.request.params["task"]
        if not isinstance(wanted, dict):
            raise InvalidParams("tools/call: task must be an object")
        with held.tasks.creating():
            reply = await run(exchange)
            if isinstance(reply, ErrorReply):
                return reply
            if is_task(reply):
                entry = self.entry_of(reply)
                held.tasks.add(entry)
                exchange.decide(self._name, "task", "created")
                self.changed(session, held)
                return created(entry.task, reply.value)
            entry = self._over_at_once(reply, wanted.get("ttl"))
            held.tasks.add(entry)
            exchange.decide(self._name, "task", "answered at once")
            return Result({"task": dict(entry.task)})

    async def wait(self, session: Session, held: Held, exchange: Exchange, started: Result) -> Reply:
        """
        Wait for a task that the client did not ask for; if nobody waits any more, it is cancelled.

        Args:
            session: Whose it is.
            held: What it has said.
            exchange: The call.
            started: What it was answered with.

        Raises:
            GatewayError: As for `tasks/result`.
        """
        waiting = _Waiting(self, session, held, exchange, self.entry_of(started), named=False)
        done = False
        try:
            reply = await waiting.result()
            done = True
            return reply
        except GatewayError as error:
            raise as_sent(error) from error
        finally:
            if not done:
                with farewell(_FAREWELL_S):
                    await waiting.tell_cancelled()  # noqa: ASYNC102  # farewell is a bounded shield

    def heard(self, session: Session, held: Held, notification: Notification) -> Notification | None:
        """What a session is told of a task's new state; None if it is none of its own, or nothing new."""
        entry = held.tasks.find(notification.params.get("taskId"))
        if entry is None or entry.is_settled:
            return None
        try:
            entry.learn(legacy_task(self._name, notification.params, self._context.now()))
        except UpstreamProtocolError:  # nobody waits for it whom this could be told
            return None
        entry.wake()
        if is_over(entry.task):
            self.changed(session, held)
        return Notification(LEGACY_STATUS, dict(entry.task))

    def entry_of(self, reply: Result) -> Entry:
        """A task that the upstream has just created."""
        return Entry(id_of(self._name, reply.value), legacy_task(self._name, reply.value, self._context.now()))

    async def ask(self, held: Held, exchange: Exchange, method: str, params: dict[str, Json]) -> Reply:
        """Ask the upstream about a task. Raises as the sink does."""
        request = Request(self._context.new_id(), method, {**params, "_meta": held.about(tasks=True)})
        reply = await self._call(exchange.with_client(held.tasking()).with_request(request))
        return legacy_error(request, reply) if isinstance(reply, ErrorReply) else reply

    def learn(self, session: Session, held: Held, entry: Entry, reply: Result) -> None:
        """Take in what the upstream says of a task."""
        if id_of(self._name, reply.value) != entry.id:
            raise UpstreamProtocolError(f"{self._name}: the upstream was asked for one task, and tells of another")
        entry.learn(legacy_task(self._name, reply.value, self._context.now()))
        if is_over(entry.task):
            self.changed(session, held)

    def questions(self, held: Held, entry: Entry, reply: Result) -> dict[str, Request]:
        """What a task asks that nobody was asked yet."""
        asked = {key: each for key, each in requests_of(self._name, reply.value).items() if key not in entry.claimed}
        if len(asked) + len(entry.claimed) > MAX_QUESTIONS:
            raise UpstreamProtocolError(f"{self._name}: the upstream's task asks more than {MAX_QUESTIONS} questions")
        able = held.client.capabilities
        return {key: question_of(self._name, able, key, each, self._context.new_id) for key, each in asked.items()}

    def outcome(self, reply: Result) -> Reply:
        """What a task that is over came to."""
        return outcome(self._name, reply)

    def stamp(self) -> str:
        """What time it is."""
        return wall_clock(self._context.now())

    def _over_at_once(self, reply: Result, ttl: Json) -> Entry:
        """A task in place of an answer that is there already."""
        kept_s = TTL_S[0]
        if isinstance(ttl, int | float) and not isinstance(ttl, bool) and ttl >= 0:
            kept_s = min(ttl / 1000, TTL_S[1])
        now, task_id = self.stamp(), self._context.new_id()
        task = {
            "taskId": task_id,
            "status": FAILED if reply.value.get("isError") is True else COMPLETED,
            "createdAt": now,
            "lastUpdatedAt": now,
            "ttl": round(kept_s * 1000),
        }
        return Entry(task_id, task, reply=reply)


@final
class _Waiting:
    """
    A request about one task, within its session.

    Args:
        tasks: Asks the upstream.
        session: Whose task it is.
        held: What it has said.
        exchange: The request.
        entry: The task.
        named: The client knows of it, so questions say its name.
    """

    def __init__(
        self,
        tasks: ToModernTasks,
        session: Session,
        held: Held,
        exchange: Exchange,
        entry: Entry,
        *,
        named: bool = True,
    ) -> None:
        self._tasks = tasks
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
            entry.learn({**entry.task, "status": CANCELLED, "lastUpdatedAt": self._tasks.stamp()})
            entry.wake()
            self._tasks.changed(self._session, self._held)
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
                return self._tasks.outcome(reply)
            questions = self._tasks.questions(self._held, entry, reply)
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
            self._tasks.learn(self._session, self._held, self._entry, reply)
        elif reply.code == ErrorCode.INVALID_PARAMS:
            self._held.tasks.forget(self._entry)
            self._tasks.changed(self._session, self._held)
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
        return await self._tasks.ask(self._held, self._exchange, method, {"taskId": self._entry.id, **more})


def _pause(suggested: Json) -> float:
    """Seconds until a task is looked at again; the upstream suggests milliseconds."""
    if not isinstance(suggested, int | float):
        return PAUSES_S[1]
    return min(max(suggested / 1000, PAUSES_S[0]), PAUSES_S[2])
