"""
The way of entries into the trail: one task, which writes what has gathered meanwhile as one batch in a thread.

Exchanges that wait for their record share one event a batch. While a batch is written the next one gathers, so the
busier the gateway is, the less a record costs.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, Literal, final

import trio
from attrs import define, field

from sluiceway.pipeline.model.component import Context, State
from sluiceway.pipeline.runtime.nursery import farewell, open_background_nursery
from sluiceway.pipeline.telemetry.audit_journal import EVERY_S, Journal, event

Sync = Literal["always", "batch", "never"]

GROUP_S: Final = 0.010
"""Longest time that a record waits to be safe from a power cut, with `batch`."""
GROUP_RECORDS: Final = 128
"""Records after which it waits no longer."""
REOPEN_S: Final = 5.0
"""Seconds after which a trail that failed is tried again."""
LAST_S: Final = 5.0
"""Seconds that closing waits for what is still to be written."""
TELL_S: Final = 60.0
"""Seconds between two log lines about entries that were lost."""
_OPENED: Final = "opened"


@final
@define(eq=False)
class Batch:
    """Entries that are written together."""

    entries: list[bytes] = field(factory=list)
    done: trio.Event = field(factory=trio.Event)
    failed: bool = False


@final
class Writer:
    """
    Writes entries to a journal.

    Args:
        journal: The place; blocks.
        context: For log and status.
        sync: What a reply waits for; see the stage.
        max_waiting: Entries that may wait before exchanges do.
    """

    def __init__(self, journal: Journal, context: Context, *, sync: Sync, max_waiting: int) -> None:
        self._journal = journal
        self._context = context
        self._sync = sync
        self._max_waiting = max_waiting
        self._next = Batch()
        self._writing = 0
        self._news = trio.Event()
        self._room = trio.Event()
        self._closing = False
        self._ended = trio.Event()
        self._unsynced = 0
        self._told_at = float("-inf")
        self._untold = 0
        self.failure = ""
        """Why nothing can be written now; empty if it can."""
        self.written = 0
        self.lost = 0

    @property
    def waiting(self) -> int:
        """Entries that are not written yet."""
        return len(self._next.entries) + self._writing

    async def make_room(self) -> None:
        """Wait until no more than `max_waiting` entries wait. No checkpoint if so."""
        while self.waiting >= self._max_waiting and not self.failure and not self._closing:
            self._room = trio.Event() if self._room.is_set() else self._room
            await self._room.wait()

    def put(self, entry: bytes) -> Batch | None:
        """Have an entry written soon. None if it is lost: nothing can be written, or far too many wait already."""
        if self.failure or self._closing or self.waiting >= 2 * self._max_waiting:
            self._lose(1)
            return None
        batch = self._next
        batch.entries.append(entry)
        if len(batch.entries) == 1:
            self._news.set()
        return batch

    async def is_safe(self, batch: Batch | None) -> bool:
        """Wait until a batch is as safe as `sync` says; False if it could not be. No checkpoint with `never`."""
        if batch is None:
            return False
        if self._sync == "never":
            return True
        await batch.done.wait()
        return not batch.failed

    def _lose(self, count: int) -> None:
        self.lost += count
        self._untold += count
        now = trio.current_time()
        if now - self._told_at >= TELL_S:
            self._context.log.error("audit entries lost", count=self._untold, reason=self.failure or "too many wait")
            self._told_at, self._untold = now, 0

    # The task.

    async def serve(self) -> None:
        """Write what comes, until told to close and nothing is left."""
        try:
            while not (self._closing and not self._next.entries):
                if self.failure:
                    await self._reopen()
                    continue
                await self._wait()
                if self._next.entries:
                    await self._write()
                else:
                    await self._settle()
        finally:
            self._ended.set()

    async def _wait(self) -> None:
        """Until there are entries, or it is time to care about those written last."""
        if self._next.entries or self._closing:
            return
        self._news = trio.Event()
        with trio.move_on_after(GROUP_S if self._unsynced else EVERY_S):
            await self._news.wait()

    async def _write(self) -> None:
        batch, self._next = self._next, Batch()
        self._writing = len(batch.entries)
        if await self._attempt(self._append, batch.entries):
            self.written += len(batch.entries)
            self._writing = 0
            batch.done.set()
        else:
            self._writing = 0
            self._give_up(batch)
        self._room.set()

    def _give_up(self, batch: Batch) -> None:
        if batch.entries:
            self._lose(len(batch.entries))
        batch.failed = True
        batch.done.set()

    def _append(self, entries: list[bytes]) -> None:
        """In the thread."""
        self._journal.append(entries)
        self._unsynced += len(entries)
        if self._sync == "always" or (self._sync == "batch" and self._unsynced >= GROUP_RECORDS):
            self._journal.sync()
            self._unsynced = 0
        elif self._sync == "never":
            self._unsynced = 0
        self._journal.checkpoint()

    async def _settle(self) -> None:
        await self._attempt(self._sync_and_checkpoint)

    def _sync_and_checkpoint(self) -> None:
        if self._unsynced:
            self._journal.sync()
            self._unsynced = 0
        self._journal.checkpoint()

    async def _attempt(self, blocking: Callable[..., None], *args: object) -> bool:
        """Do something with the journal in a thread; whether it went well."""
        try:
            await trio.to_thread.run_sync(blocking, *args, abandon_on_cancel=True)
        except OSError as error:
            self._fail(str(error))
            return False
        return True

    def _fail(self, reason: str) -> None:
        self.failure = reason
        self._unsynced = 0
        self._room.set()
        self._journal.close()
        self._context.report(State.DEGRADED, f"the audit trail cannot be written: {reason}")
        self._context.log.error("audit trail failed", reason=reason, again_in_s=REOPEN_S)

    async def _reopen(self) -> None:
        """Give up what waits, pause, and try from the start: what is on the disk is looked at anew."""
        batch, self._next = self._next, Batch()
        self._give_up(batch)
        self._news = trio.Event()
        if self._closing:
            return
        with trio.move_on_after(REOPEN_S):
            await self._news.wait()
        if self._closing:
            return
        self.failure, before = "", self.failure
        entry = event(_OPENED, self._context.now(), after=before, lost=self.lost)
        if await self._attempt(self._open, entry):
            self._context.report(State.READY, "")
            self._context.log.info("audit trail is written again", lost=self.lost)

    def _open(self, entry: bytes) -> None:
        self._journal.open()
        self._journal.append([entry])

    async def close(self) -> None:
        """Take no more entries, and end when all are written."""
        self._closing = True
        self._news.set()
        self._room.set()
        await self._ended.wait()


@asynccontextmanager
async def open_writer(
    journal: Journal, context: Context, *, sync: Sync, max_waiting: int, tell: Callable[[], Any]
) -> AsyncIterator[Writer]:
    """
    A writer that works while the block runs. At the end it writes what waits, within `LAST_S`.

    Args:
        journal: Where to.
        context: The stage's.
        sync: See `Writer`.
        max_waiting: See `Writer`.
        tell: Called at the end, before the last entry is taken; may still put some.

    Raises:
        OSError: The trail cannot be opened.
    """
    writer = Writer(journal, context, sync=sync, max_waiting=max_waiting)
    is_stuck = False
    try:
        await trio.to_thread.run_sync(journal.open)
        async with open_background_nursery() as nursery:
            nursery.start_soon(writer.serve)
            writer.put(event(_OPENED, context.now(), component=context.id))
            try:
                yield writer
            finally:
                tell()
                writer.put(event("closed", context.now(), component=context.id))
                with farewell(LAST_S) as scope:
                    await writer.close()  # noqa: ASYNC102  # farewell is a bounded shield
                    if not writer.failure:
                        finish = partial(_finish, journal, sync != "never")
                        await trio.to_thread.run_sync(finish, abandon_on_cancel=True)  # noqa: ASYNC102  # likewise
                is_stuck = scope.cancelled_caught
                if is_stuck:
                    context.log.error("audit trail was not written to its end", waiting=writer.waiting)
    finally:
        if not is_stuck:  # a thread that is at it still must not find its descriptor in other hands
            journal.close()


def _finish(journal: Journal, sync: bool) -> None:
    """The last that is done with a journal: what is written is safe, and a checkpoint names the last record."""
    if sync:
        journal.sync()
    journal.checkpoint(at_once=True)
