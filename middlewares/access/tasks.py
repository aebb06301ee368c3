"""Whose a task is: only who made it may ask for it (MCP 2026-07-28, tasks; security best practices)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, TypeAlias, final

from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.keys import digest
from sluiceway.pipeline.model.remembered import Remembered
from sluiceway.pipeline.model.store import Store
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
    Who made which task. Bounded in this process: the oldest go first. With a store it is asked for what is unknown.

    Args:
        name: Of the stage; keys in a store begin with it.
        max_tasks: Tasks that are kept in this process.
        max_age_s: Seconds after which one is forgotten.
    """

    def __init__(self, name: str, *, max_tasks: int, max_age_s: float) -> None:
        self._name = name
        self._max_age_s = max_age_s
        self._made = Remembered[tuple[Principal, str], float](max_tasks)
        self.store: Store | None = None
        """Where owners are kept as well, for other processes and after a reload; set while the stage is open."""

    def __len__(self) -> int:
        return len(self._made)

    async def learn(self, principal: Principal, task: str, now: float) -> None:
        """
        Note that a principal made a task. A checkpoint only with a store.

        Raises:
            SluicewayError: The store failed; this process knows it nonetheless. Or OSError.
        """
        if len(task) > MAX_ID:
            return
        self._made.keep((principal, task), now + self._max_age_s)
        if self.store is not None:
            await self.store.put(self._key(principal, task), b"1", ttl_s=self._max_age_s)

    async def made(self, principal: Principal, tasks: Iterable[object], now: float) -> set[str]:
        """
        Those of some tasks that a principal made. A checkpoint only for tasks that this process does not know.

        Raises:
            SluicewayError: The store failed. Or OSError.
        """
        found: set[str] = set()
        for task in tasks:
            if not isinstance(task, str) or len(task) > MAX_ID:
                continue
            known = self._made.get((principal, task), now) > now
            if known or (self.store is not None and await self.store.get(self._key(principal, task)) is not None):
                found.add(task)
        return found

    def _key(self, principal: Principal, task: str) -> str:
        return f"{self._name}:task:{digest(*principal, task)}"


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
