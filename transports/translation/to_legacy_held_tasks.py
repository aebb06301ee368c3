"""
The extension `io.modelcontextprotocol/tasks` for modern clients, at upstreams that have the tasks of 2025-11-25.

A tool that may be called as a task is, if its client declares the extension. What became of it is kept with the session
held for the client, so it is nobody else's, and gone with the session.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from functools import partial
from typing import Final, final

import trio

from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.protocol.errors import CapacityExceeded, InvalidParams, MissingCapability
from sluiceway.pipeline.protocol.messages import ErrorReply, Json, Reply, Request, Result

from .config import TranslationConfig
from .held_call import relay_wanted
from .held_introduction import drop
from .held_session import HeldSession
from .held_task import HeldTask
from .task_messages import EXTENSION, TASK, has_extension, id_of, modern_task, not_found

METHODS: Final = frozenset({"tasks/get", "tasks/update", "tasks/cancel"})
"""What the extension has."""
MAX_TASKS: Final = 32
"""Tasks held in one session; of those that are over, the oldest make room."""
MAX_BYTES: Final = 32 * 1024 * 1024
"""Results kept for one session; the latest is kept however long it is."""

Find = Callable[[Exchange, Json], tuple[HeldSession, HeldTask] | None]
"""The caller's task with an id, and the session in which it is."""


@final
class HeldTasks:
    """
    Args:
        name: What the upstream is called in errors.
        context: The sink's.
        config: Its bounds.
        find: Finds tasks.
        addressed: See `ToLegacy`.
    """

    def __init__(self, name: str, context: Context, config: TranslationConfig, find: Find, *, addressed: bool) -> None:
        self._name = name
        self._context = context
        self._config = config
        self._find = find
        self._addressed = addressed

    async def __call__(self, exchange: Exchange) -> Reply:
        """
        Answer one of `METHODS`.

        Raises:
            MissingCapability: The client does not declare the extension.
            InvalidParams: It says not what it wants.
            UpstreamProtocolError: The upstream tells of a task what cannot be.
            GatewayError: As the sink does.
        """
        params = exchange.request.params
        require_extension(exchange)
        found = self._find(exchange, params.get("taskId"))
        if found is None:
            await trio.lowlevel.checkpoint()
            return not_found(str(params.get("taskId")))
        held, task = found
        if exchange.method == "tasks/update":
            answers = params.get("inputResponses")
            if not isinstance(answers, dict):
                raise InvalidParams("tasks/update: inputResponses must be an object")
            await trio.lowlevel.checkpoint()
            task.answer(answers)
            return held.completer.complete(exchange.method, Result())
        with held.in_use():
            return await (self._get if exchange.method == "tasks/get" else self._cancel)(exchange, held, task)

    async def create(self, exchange: Exchange, held: HeldSession, nursery: trio.Nursery) -> Reply:
        """
        Make a call as a task.

        Args:
            exchange: The call.
            held: The session in which it is made.
            nursery: Hosts what has to be waited for.

        Returns:
            The task; or what the upstream answers instead.

        Raises:
            CapacityExceeded: The session has too many tasks.
            GatewayError: As the sink does.
        """
        request = exchange.request
        assert isinstance(request, Request)
        self._make_room(held)
        held.creating += 1
        try:
            message = exchange.with_request(request.with_params({**request.params, "task": {}}))
            reply = await held.pass_on(message, partial(relay_wanted, exchange), None, exchange.link.deadline)
        finally:
            held.creating -= 1
        told = reply.value.get("task") if isinstance(reply, Result) else None
        if not isinstance(told, dict):
            return reply
        known = modern_task(self._name, told, self._context.now())
        task = HeldTask(id_of(self._name, told), known, exchange.client.capabilities, self._config.park_timeout)
        earlier = held.tasks.pop(task.id, None)
        if earlier is not None:
            earlier.scope.cancel()
        held.tasks[task.id] = task
        exchange.decide(self._name, "task", "created")
        # in a context of its own: what the task does later must not be logged as done by the call that began it
        contextvars.Context().run(nursery.start_soon, self._host, exchange, held, task)
        return Result({**task.details(), "resultType": TASK})

    async def _get(self, exchange: Exchange, held: HeldSession, task: HeldTask) -> Reply:
        if not task.is_over and not task.is_asking:
            reply = await self._ask(exchange, held, task, "tasks/get")
            if isinstance(reply, ErrorReply):
                return reply
            task.learn(modern_task(self._name, {**reply.value, "taskId": task.id}, self._context.now()))
            await task.settled()
        else:
            await trio.lowlevel.checkpoint()
        return held.completer.complete(exchange.method, Result(task.details()))

    async def _cancel(self, exchange: Exchange, held: HeldSession, task: HeldTask) -> Reply:
        if task.is_over:
            await trio.lowlevel.checkpoint()
        else:
            reply = await self._ask(exchange, held, task, "tasks/cancel")
            if isinstance(reply, ErrorReply):
                return reply
            task.cancel()
        return held.completer.complete(exchange.method, Result())

    async def _ask(self, exchange: Exchange, held: HeldSession, task: HeldTask, method: str) -> Reply:
        request = exchange.request
        assert isinstance(request, Request)
        message = exchange.with_request(Request(request.id, method, {"taskId": task.id}))
        return await held.pass_on(message, drop, None, exchange.link.deadline)

    async def _host(self, exchange: Exchange, held: HeldSession, task: HeldTask) -> None:
        """What is done for a task while nobody looks at it."""
        message = exchange.with_request(Request(0, "tasks/result", {"taskId": task.id}))
        ask = task.ask if self._addressed else None

        async def fetch() -> Reply:
            return await held.pass_on(message, drop, ask)

        try:
            await task.run(fetch, held.in_use)
        finally:
            if held.tasks.get(task.id) is task:
                del held.tasks[task.id]

    def _make_room(self, held: HeldSession) -> None:
        kept = 0
        for task in reversed(list(held.tasks.values())):
            kept += task.size
            if task.is_over and kept > MAX_BYTES:
                self._drop(held, task)
        while len(held.tasks) + held.creating >= MAX_TASKS:
            done = next((task for task in held.tasks.values() if task.is_over), None)
            if done is None:
                raise CapacityExceeded(
                    f"{self._name}: this client has {MAX_TASKS} tasks that are not over; wait for some, or cancel them"
                )
            self._drop(held, done)

    def _drop(self, held: HeldSession, task: HeldTask) -> None:
        del held.tasks[task.id]
        task.scope.cancel()


def require_extension(exchange: Exchange) -> None:
    """
    Refuse a client that does not declare the extension.

    Raises:
        MissingCapability: It does not.
    """
    if not has_extension(exchange.client.capabilities):
        raise MissingCapability(
            f"{exchange.method}: tasks are for clients that declare the extension {EXTENSION}",
            data={"requiredCapabilities": {"extensions": {EXTENSION: {}}}},
        )
