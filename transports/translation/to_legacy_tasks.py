"""
Tools of 2025-11-25 that can only be called as tasks, for clients that do not know those tasks.

A client that declares the extension gets a task (to_legacy_held_tasks.py). For others, a tool that must be called as a
task is, and the task waited for, and cancelled with the exchange (2025-11-25, basic/utilities/tasks).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from sluiceway.pipeline.model.tools import Tool
from sluiceway.pipeline.protocol.errors import GatewayError, UpstreamProtocolError
from sluiceway.pipeline.protocol.messages import Reply, Request, Result
from sluiceway.pipeline.runtime.nursery import farewell

from .held_call import as_sent

_FAREWELL_S: Final = 1.0

Send = Callable[[Request], Awaitable[Reply]]
"""Asks the upstream within the held session."""


def must_be_task(tool: Tool | None) -> bool:
    """Whether a tool says that it can be called in no other way."""
    return _support(tool) == "required"


def may_be_task(tool: Tool | None) -> bool:
    """Whether a tool says that it can be called as a task."""
    return _support(tool) in ("required", "optional")


def _support(tool: Tool | None) -> str:
    execution = None if tool is None else tool.definition.get("execution")
    return str(execution.get("taskSupport")) if isinstance(execution, dict) else ""


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
