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
from sluiceway.pipeline.protocol.messages import ErrorReply, Json, Notification, Reply, Result
from sluiceway.pipeline.runtime.nursery import farewell

from .held_call import as_sent
from .task_book import TTL_S, Entry
from .task_messages import (
    COMPLETED,
    FAILED,
    LEGACY_STATUS,
    created,
    is_over,
    is_task,
    legacy_task,
    not_found,
    related,
)
from .to_modern_held import Held
from .to_modern_waiting import TaskSource, Waiting

PREFIX: Final = "tasks/"
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
        self._context = context
        self._source = TaskSource(name, call, context, changed)

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
        waiting = Waiting(self._source, session, held, exchange, entry)
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
                entry = self._source.entry_of(reply)
                held.tasks.add(entry)
                exchange.decide(self._name, "task", "created")
                self._source.changed(session, held)
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
        waiting = Waiting(self._source, session, held, exchange, self._source.entry_of(started), named=False)
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
            self._source.changed(session, held)
        return Notification(LEGACY_STATUS, dict(entry.task))

    def _over_at_once(self, reply: Result, ttl: Json) -> Entry:
        """A task in place of an answer that is there already."""
        kept_s = TTL_S[0]
        if isinstance(ttl, int | float) and not isinstance(ttl, bool) and ttl >= 0:
            kept_s = min(ttl / 1000, TTL_S[1])
        now, task_id = self._source.stamp(), self._context.new_id()
        task = {
            "taskId": task_id,
            "status": FAILED if reply.value.get("isError") is True else COMPLETED,
            "createdAt": now,
            "lastUpdatedAt": now,
            "ttl": round(kept_s * 1000),
        }
        return Entry(task_id, task, reply=reply)
