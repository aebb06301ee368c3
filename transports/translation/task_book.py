"""The tasks that one legacy session has created at a modern upstream, which lists none. Pure but for events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final, final

import trio
from attrs import define, field

from sluiceway.pipeline.protocol.errors import CapacityExceeded
from sluiceway.pipeline.protocol.messages import Json, Result

from .task_messages import CANCELLED, is_over

MAX_TASKS: Final = 100
"""Tasks of one session, until they are over; of those that are over, the oldest go first."""
MAX_BYTES: Final = 32 * 1024 * 1024
"""Results that are kept for one session; the latest is kept however long it is."""
TTL_S: Final = (300.0, 3600.0)
"""How long a result is kept whose client does not say how long, and at most."""


@final
@define(eq=False)
class Entry:
    """A task."""

    id: str
    task: Mapping[str, Json]
    """As its client was told last."""
    began: float = field(factory=trio.current_time)
    """When it was created, in Trio clock seconds."""
    reply: Result | None = None
    """Its result, where the upstream gave that at once, and knows of no task."""
    claimed: set[str] = field(factory=set)
    """Keys of the upstream's questions that are being asked, or were answered."""
    news: trio.Event = field(factory=trio.Event)
    """Set when it has changed without anybody having asked, and replaced."""

    @property
    def until(self) -> float:
        """When it may be forgotten, in Trio clock seconds: its time to live counts from its creation."""
        ttl = self.task.get("ttl")
        return self.began + ttl / 1000 if isinstance(ttl, int | float) else float("inf")

    @property
    def is_settled(self) -> bool:
        """Whether the upstream has nothing more to say about it: it answered at once, or the client cancelled it."""
        return self.reply is not None or self.task.get("status") == CANCELLED

    def learn(self, task: Mapping[str, Json]) -> None:
        """The upstream tells how it is. What was cancelled stays so (2025-11-25, basic/utilities/tasks)."""
        if not self.is_settled:
            self.task = task

    def wake(self) -> None:
        """Who waits for it looks again."""
        self.news.set()
        self.news = trio.Event()


@final
class TaskBook:
    """Empty at first."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._creating = 0

    def __len__(self) -> int:
        return len(self._entries)

    @contextmanager
    def creating(self) -> Iterator[None]:
        """
        A task may be created in the body, and then added.

        Raises:
            CapacityExceeded: The session has `MAX_TASKS` that are not over.
        """
        self._prune()
        while len(self._entries) + self._creating >= MAX_TASKS:
            done = next((entry.id for entry in self._entries.values() if is_over(entry.task)), None)
            if done is None:
                raise CapacityExceeded(
                    f"this session has {MAX_TASKS} tasks of which none is known to be over; ask for them with "
                    "tasks/get, or cancel some"
                )
            del self._entries[done]
        self._creating += 1
        try:
            yield
        finally:
            self._creating -= 1

    def add(self, entry: Entry) -> None:
        """Note a task; in the body of `creating`."""
        self._entries[entry.id] = entry
        kept = 0
        for each in reversed(list(self._entries.values())):
            if each.reply is None:
                continue
            kept += len(each.reply.raw)
            if kept > MAX_BYTES and each is not entry:
                del self._entries[each.id]

    def find(self, task_id: Json) -> Entry | None:
        """The task with this id, if the session has created it."""
        self._prune()
        return self._entries.get(task_id) if isinstance(task_id, str) else None

    def forget(self, entry: Entry) -> None:
        """The upstream does not know it any more."""
        if self._entries.get(entry.id) is entry:
            del self._entries[entry.id]

    def listed(self) -> list[Json]:
        """All tasks, oldest first, as their client was told last."""
        self._prune()
        return [dict(entry.task) for entry in self._entries.values()]

    def unfinished(self) -> tuple[str, ...]:
        """Ids of those that may change yet."""
        return tuple(entry.id for entry in self._entries.values() if not is_over(entry.task))

    def _prune(self) -> None:
        now = trio.current_time()
        for entry in [each for each in self._entries.values() if each.until <= now]:
            del self._entries[entry.id]
