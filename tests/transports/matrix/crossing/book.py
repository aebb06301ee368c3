"""What one end saw, in order, and waiting for more of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import trio
from attrs import define, field

Entry = dict[str, Any]


@define(eq=False)
class Book:
    """Entries; nobody waits for time to pass, but for one of these."""

    entries: list[Entry] = field(factory=list)
    _news: trio.Event = field(factory=trio.Event)

    def add(self, entry: Entry) -> None:
        """Write something down."""
        self.entries.append(entry)
        self._news.set()
        self._news = trio.Event()

    async def wait_for(self, wanted: Callable[[Entry], bool], start: int = 0) -> Entry:
        """The first entry, from a number on, that is wanted."""
        while True:
            for entry in self.entries[start:]:
                if wanted(entry):
                    return entry
            start = len(self.entries)
            await self._news.wait()

    async def keep(self, stream: trio.SocketStream) -> None:
        """Take entries as lines from another process."""
        rest = b""
        async with stream:
            with suppress(trio.BrokenResourceError):
                async for data in stream:
                    *lines, rest = (rest + data).split(b"\n")
                    for line in lines:
                        self.add(json.loads(line))
