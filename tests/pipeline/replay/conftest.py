"""A gateway that is recorded, and its tape."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import evolve

from sluiceway.pipeline.config import from_data
from sluiceway.pipeline.model.component import Sink
from sluiceway.pipeline.model.document import Record
from sluiceway.pipeline.model.options import ConfigPath
from sluiceway.pipeline.replay.entries import Entry
from sluiceway.pipeline.replay.reading import Tape
from sluiceway.pipeline.replay.recording import open_recorder
from sluiceway.pipeline.testing import FakeSink, PipelineHarness

EPOCH = 1_800_000_000.0

Recorded = Callable[..., AbstractAsyncContextManager[PipelineHarness]]


@pytest.fixture
def tape_path(tmp_path: Path) -> Path:
    """Where the tape goes."""
    return tmp_path / "calls.jsonl"


@pytest.fixture
def options(tmp_path: Path) -> Record:
    """How it is recorded: by default, but on any disk."""
    return Record(folder=ConfigPath(tmp_path), min_free=0)  # type: ignore[arg-type]  # a number of bytes


@pytest.fixture
def recorded(tape_path: Path, options: Record) -> Recorded:
    """A recorded gateway of a chain in front of the sink `up`; the tape is complete when the block is left."""

    @asynccontextmanager
    async def gateway(
        chain: list[Any] | None = None,
        *,
        sink: Sink | None = None,
        path: Path = tape_path,
        more: Mapping[str, Any] | None = None,
        now: Callable[[], float] | None = None,
        **changed: Any,
    ) -> AsyncIterator[PipelineHarness]:
        zero = trio.current_time()
        date = (lambda: EPOCH + trio.current_time() - zero) if now is None else now
        data = {
            "version": 1,
            "sources": {"in": {"http": {"bind": "127.0.0.1:1"}}},
            "pipelines": {"main": {"chain": chain or [], "sink": "up"}},
            "sinks": {"up": {"embedded": {}}},
            **(more or {}),
        }
        async with open_recorder(path, evolve(options, **changed), now=date, inline=True) as recorder:
            sinks = {"up": FakeSink.echo() if sink is None else sink}
            async with PipelineHarness(from_data(data), sinks=sinks, edges=recorder, now=date) as harness:
                yield harness

    return gateway


@pytest.fixture
def entries(tape_path: Path) -> Callable[..., list[Any]]:
    """What is on the tape, of some kinds only if they are given. Nothing may be wrong with it."""

    def read(*kinds: type[Entry], path: Path = tape_path) -> list[Any]:
        tape = Tape(path)
        found = [entry for entry in tape.entries() if not kinds or isinstance(entry, kinds)]
        assert tape.findings == []
        return found

    return read
