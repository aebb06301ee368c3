"""A reader/writer lock for state that handlers share across checkpoints."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import final

import trio


@final
class ReadWriteLock:
    """
    Many readers together, or one writer alone; a waiting writer lets no further reader in, so it is never starved.

    State that is read and changed without an `await` in between needs no lock on Trio: nothing else runs meanwhile.
    Keep what is held across an `await` small, and never hold a lock across a call to somebody else.
    """

    def __init__(self) -> None:
        self._readers = 0
        self._turnstile = trio.Lock()
        """Everybody passes here; a writer keeps it until it is done."""
        self._waiting: trio.Event | None = None
        """The writer that waits for the readers to leave."""

    @asynccontextmanager
    async def read(self) -> AsyncIterator[None]:
        """Hold the lock together with other readers."""
        async with self._turnstile:
            self._readers += 1
        try:
            yield
        finally:
            self._readers -= 1
            if self._readers == 0 and self._waiting is not None:
                self._waiting.set()

    @asynccontextmanager
    async def write(self) -> AsyncIterator[None]:
        """Hold the lock alone."""
        async with self._turnstile:
            if self._readers:
                self._waiting = trio.Event()
                try:
                    await self._waiting.wait()
                finally:
                    self._waiting = None
            yield
