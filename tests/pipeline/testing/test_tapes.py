"""The fixture `tape`: a test records a gateway, or replays a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from sluiceway.pipeline.config import ConfigError
from sluiceway.pipeline.protocol.messages import Result
from sluiceway.pipeline.replay.reading import TapeError
from sluiceway.pipeline.testing import FakeSink, PipelineHarness, tapes
from sluiceway.pipeline.testing.tapes import TapeKit


def config(burst: int) -> dict[str, Any]:
    """A gateway that lets so many calls pass at once."""
    return {
        "version": 1,
        "sources": {"in": {"http": {"bind": "127.0.0.1:1"}}},
        "pipelines": {"main": {"chain": [{"rate_limit": {"per": "all", "rate": "1/s", "burst": burst}}], "sink": "up"}},
        "sinks": {"up": {"embedded": {}}},
    }


async def record(tape: TapeKit) -> None:
    """Two calls at once."""
    async with (
        tape.recording() as edges,
        PipelineHarness.from_data(config(2), sinks={"up": FakeSink.echo()}, edges=edges) as gateway,
    ):
        replies = await gateway.call_many("tools/call", name="find", times=2)

    assert [type(reply) for reply in replies] == [Result, Result]


async def test_what_a_test_recorded_replays_in_the_same_test(tape: TapeKit, autojump_clock: MockClock) -> None:
    """Inside of the test's own Trio run."""
    await record(tape)

    tape.check(config(2))


def test_a_test_without_trio_replays_too(tape: TapeKit) -> None:
    """The tape can be a file of another test."""
    other = tape.path.with_name("other.jsonl")
    trio.run(record, TapeKit(other), clock=MockClock(autojump_threshold=0))

    tape.check(config(2), other)


async def test_what_comes_out_differently_fails_the_test(tape: TapeKit, autojump_clock: MockClock) -> None:
    """And the failure says what."""
    await record(tape)

    with pytest.raises(AssertionError, match=r"(?s)2 went differently.*rate_limit: refuse"):
        tape.check(config(1))
    assert tape.replay(config(1)).comparison.count == 2


async def test_what_is_ignored_fails_nothing(tape: TapeKit, autojump_clock: MockClock) -> None:
    """Paths that do not count are given as to `sluiceway replay`."""
    await record(tape)

    tape.check(config(1), ignored=["reply", "decisions", "calls", "headers"])


def test_a_configuration_with_errors_is_said_to_have_them(tape: TapeKit) -> None:
    """As wherever it is loaded."""
    trio.run(record, tape, clock=MockClock(autojump_threshold=0))

    with pytest.raises(ConfigError):
        tape.check({"version": 2})


def test_a_file_that_is_no_tape_is_said_to_be_none(tape: TapeKit, tmp_path: Path) -> None:
    """So is one that is not there."""
    with pytest.raises(TapeError):
        tape.check(config(2), tmp_path / "none.jsonl")


def test_what_goes_wrong_in_the_replay_comes_out_of_it(tape: TapeKit, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though it runs in a thread of its own."""
    trio.run(record, tape, clock=MockClock(autojump_threshold=0))

    def fail(*_arguments: object, **_options: object) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr(tapes, "replay", fail)

    with pytest.raises(OSError, match="the disk is gone"):
        tape.check(config(2))
