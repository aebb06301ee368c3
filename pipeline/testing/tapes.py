"""
Tapes in tests: record what a gateway under test is sent and answered, and replay it, or a file, under a configuration.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar, final

from ..config import from_data, load
from ..model.document import Document, Record
from ..model.options import ConfigPath, Size
from ..protocol.messages import Json
from ..replay.reading import Tape
from ..replay.recorder import Recorder
from ..replay.recording import open_recorder
from ..replay.replaying import Replayed, replay

Config = Document | Path | Mapping[str, Json]
"""A configuration: as it is loaded, as a file, or as Python data."""

T = TypeVar("T")


@final
class TapeKit:
    """
    What the fixture `tape` gives.

    Args:
        path: Where a recording goes; nothing is there yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        """The tape that is recorded, and the one that is replayed if no other is named."""

    @asynccontextmanager
    async def recording(self, *, stages: bool = True, now: Callable[[], float] = time.time) -> AsyncIterator[Recorder]:
        """
        Record one gateway: `PipelineHarness(..., edges=recorder)` inside the block. The tape is complete behind it.

        Args:
            stages: Whether each stage is on it: only then a replay tells the order of what happens at one instant.
            now: The date, in seconds since 1970; the one that the gateway is given.

        Raises:
            ComponentError: The tape cannot be begun.
        """
        options = Record(folder=ConfigPath(self.path.parent), stages=stages, min_free=Size(0))
        async with open_recorder(self.path, options, now=now, inline=True) as recorder:
            yield recorder

    def replay(self, config: Config, file: Path | None = None, *, ignored: Collection[str] = ()) -> Replayed:
        """
        Replay a tape; time on it is free. Works inside of a Trio run, which waits, and outside.

        Args:
            config: Under which configuration.
            file: The tape; the one that was recorded here if absent.
            ignored: Globs of paths that do not count, as for `sluiceway replay --ignore`.

        Returns:
            What was different (`comparison.changed`) or is not on the tape (`played.lacking`).

        Raises:
            ConfigError: The configuration has errors.
            TapeError: There is no such tape.
            ComponentError: A component cannot be opened.
        """
        tape, document = Tape(self.path if file is None else file), _loaded(config)
        return _apart(lambda: replay(tape, document, ignored=ignored))

    def check(self, config: Config, file: Path | None = None, *, ignored: Collection[str] = ()) -> None:
        """
        Replay a tape, and fail if anything comes out differently. Arguments and errors are those of `replay`.

        Raises:
            AssertionError: Something did; the text says what.
        """
        found = self.replay(config, file, ignored=ignored)
        if found.comparison.count or found.played.lacked:
            raise AssertionError("\n".join(found.lines()))


def _loaded(config: Config) -> Document:
    if isinstance(config, Document):
        return config
    return load(config) if isinstance(config, Path) else from_data(config)


def _apart(work: Callable[[], T]) -> T:
    """Do something in a thread of its own, for a Trio run cannot have another one inside."""
    with ThreadPoolExecutor(1, "replay") as pool:
        return pool.submit(work).result()
