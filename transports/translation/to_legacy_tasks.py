"""
Tools of 2025-11-25 that can only be called as tasks, for clients that do not know those tasks.

The tasks of both eras share little but a name: there the client asks for one, in 2026-07-28 the server offers it. So
none is shown to a modern client. A tool that must be called as a task is, and the task waited for, and cancelled with
the exchange (2025-11-25, basic/utilities/tasks).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from sluiceway.pipeline.model.tools import Tool
from sluiceway.pipeline.protocol.errors import GatewayError, UpstreamProtocolError
from sluiceway.pipeline.protocol.messages import Json, Reply, Request, Result
from sluiceway.pipeline.runtime.nursery import farewell

from .held_call import as_sent

_FAREWELL_S: Final = 1.0

Send = Callable[[Request], Awaitable[Reply]]
"""Asks the upstream within the held session."""


def offers_tasks(capabilities: Mapping[str, Json]) -> bool:
    """Whether an upstream with these capabilities can run tools as tasks."""
    found: Json = capabilities
    for key in ("tasks", "requests", "tools", "call"):
        found = found.get(key) if isinstance(found, dict) else None
    return found is not None


def must_be_task(tool: Tool | None) -> bool:
    """Whether a tool says that it can be called in no other way."""
    execution = None if tool is None else tool.definition.get("execution")
    return isinstance(execution, dict) and execution.get("taskSupport") == "required"


async def call_as_task(name: str, request: Request, send: Send) -> Reply:
    """
    Make a call as a task, and wait for its result. If nobody waits any more, it is cancelled.

    Args:
        name: What the upstream is called in errors.
        request: The call.
        send: Asks the upstream.

    Raises:
        UpstreamProtocolError: It answers with something that is no task.
        GatewayError: As `send` does.
    """
    started = await send(request.with_params({**request.params, "task": {}}))
    if not isinstance(started, Result):
        return started
    task = started.value.get("task")
    task_id = task.get("taskId") if isinstance(task, dict) else None
    if not isinstance(task_id, str):
        raise UpstreamProtocolError(f"{name}: the upstream was asked for a task, and answered with none")
    done = False
    try:
        reply = await send(Request(request.id, "tasks/result", {"taskId": task_id}))
        done = True
        return reply
    except GatewayError as error:
        raise as_sent(error) from error
    finally:
        if not done:
            with farewell(_FAREWELL_S):
                await _cancel(task_id, request, send)  # noqa: ASYNC102  # farewell is a bounded shield


async def _cancel(task_id: str, request: Request, send: Send) -> None:
    try:
        await send(Request(request.id, "tasks/cancel", {"taskId": task_id}))
    except GatewayError:
        return  # it went away, and its tasks with it
