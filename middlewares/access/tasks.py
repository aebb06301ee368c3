"""Whose a task is: only who made it may ask for it (MCP 2026-07-28, tasks; security best practices)."""

from __future__ import annotations

from typing import Final, TypeAlias, final

from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.remembered import Remembered
from sluiceway.pipeline.protocol.mcp import Era
from sluiceway.pipeline.protocol.messages import Reply, Result

Principal: TypeAlias = tuple[str, str]
"""As `keys.principal_of` says it."""

EXTENSION: Final = "io.modelcontextprotocol/tasks"
"""The extension in which tasks live since 2026-07-28 (SEP-2663)."""
MAX_ID: Final = 256
"""Characters of the longest id that is kept."""


@final
class Owners:
    """
    Who made which task. Bounded; the oldest go first.

    Args:
        max_tasks: Tasks that are kept.
        max_age_s: Seconds after which one is forgotten.
    """

    def __init__(self, *, max_tasks: int, max_age_s: float) -> None:
        self._max_age_s = max_age_s
        self._made = Remembered[tuple[Principal, str], float](max_tasks)

    def __len__(self) -> int:
        return len(self._made)

    def learn(self, principal: Principal, task: str, now: float) -> None:
        """Note that a principal made a task."""
        if len(task) > MAX_ID:
            return
        self._made.keep((principal, task), now + self._max_age_s)

    def owns(self, principal: Principal, task: object, now: float) -> bool:
        """Whether a principal made a task."""
        return isinstance(task, str) and self._made.get((principal, task), now) > now


def may_be_task(exchange: Exchange) -> bool:
    """Whether a client takes a task for an answer: it asked for one (2025-11-25), or knows the extension."""
    if exchange.client.era is Era.LEGACY:
        return "task" in exchange.request.params
    extensions = exchange.client.capabilities.get("extensions")
    return isinstance(extensions, dict) and EXTENSION in extensions


def task_in(reply: Reply) -> str | None:
    """The id of the task that an answer says was made."""
    if not isinstance(reply, Result):
        return None
    task = reply.value.get("task", reply.value)
    made = task.get("taskId") if isinstance(task, dict) else None
    return made if isinstance(made, str) else None
