"""The smallest tape and configuration that still show something."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from sluiceway.pipeline.config import from_data, load_text
from sluiceway.pipeline.model.document import Document
from sluiceway.pipeline.model.session import Caller
from sluiceway.pipeline.replay.config_text import config_text
from sluiceway.pipeline.replay.diff.configs import differences
from sluiceway.pipeline.replay.entries import Begun, Entry
from sluiceway.pipeline.replay.reading import Tape
from sluiceway.pipeline.replay.shrink import Shrunk, shrink
from sluiceway.pipeline.replay.violations import Bench, Run, breaks, chief_difference, differs, find_law, open_bench
from sluiceway.pipeline.testing import FakeSink, PipelineHarness

PLUGIN = '''
from attrs import frozen
from sluiceway.pipeline.model.component import Middleware, middleware
from sluiceway.pipeline.model.options import option
from sluiceway.pipeline.protocol.messages import Result

@middleware("forgetful")
class Forgetful(Middleware):
    """Has a bug: who has called `open` and calls `read` twice then gets another one's answer."""

    @frozen
    class Config:
        """Options."""

        limit: int = option(2, doc="After so many reads.")
        loud: bool = option(False, doc="Means nothing.")

    def __init__(self, config, context):
        super().__init__(config, context)
        self._opened = set()
        self._reads = {}

    async def __call__(self, exchange, call_next):
        reply = await call_next(exchange)
        who = exchange.caller.subject
        if exchange.target == "open":
            self._opened.add(who)
        if exchange.target == "read" and who in self._opened:
            self._reads[who] = self._reads.get(who, 0) + 1
            if self._reads[who] >= self.config.limit:
                return Result({"content": ["somebody else's"]})
        return reply
'''


def answers_are_those_of_the_upstream(run: Run) -> str | None:
    """A law: what an upstream said is what its client gets."""
    for each in run.exchanges:
        last = [*each.calls.values()][-1:]
        if each.ended is not None and each.ended.reply is not None and last and last[0].ended is not None:
            theirs = last[0].ended.reply
            if theirs is not None and theirs.result != each.ended.reply.result:
                return f"exchange {each.number} got {each.ended.reply.result}"
    return None


@pytest.fixture
def document(tmp_path: Path) -> Callable[..., Document]:
    """A gateway with a bug, and much that has nothing to do with it."""
    plugin = tmp_path / "stage.py"
    plugin.write_text(PLUGIN)

    def make(**forgetful: Any) -> Document:
        return from_data(
            {
                "version": 1,
                "plugins": [str(plugin)],
                "sources": {"in": {"http": {"bind": "127.0.0.1:1"}, "pipeline": "main"}},
                "pipelines": {
                    "main": {
                        "timeout": "20s",
                        "chain": [
                            "request_id",
                            {"rate_limit": {"rate": "1000/s"}},
                            {"forgetful": {"loud": True, **forgetful}},
                            {"log": {"level": "debug", "params": "none"}},
                        ],
                        "sink": "up",
                    },
                    "spare": {"sink": "other"},
                },
                "sinks": {"up": {"embedded": {}, "chain": ["retry", "circuit_breaker"]}, "other": {"embedded": {}}},
            }
        )

    return make


@pytest.fixture
def tape(recorded: Any, tape_path: Path) -> list[Entry]:
    """Sixty calls of three callers, of which few show the bug. Recorded without it: a player makes it happen."""

    async def traffic(gateway: PipelineHarness) -> None:
        rng = random.Random(1)
        for number in range(60):
            gateway.caller = Caller(rng.choice(["ana", "ben", "eve"]), how="api_key")
            name = rng.choice(["open", "read", "list", "find"])
            await gateway.call("tools/call", name=name, arguments={"n": number, "deep": {"a": [1], "b": 2}})
            await trio.sleep(0.1)

    async def main() -> None:
        async with recorded([], sink=FakeSink.echo()) as gateway:
            await traffic(gateway)

    trio.run(main, clock=MockClock(autojump_threshold=0))
    return list(Tape(tape_path).entries())


@pytest.fixture
def bench() -> Iterator[Bench]:
    """A place to try things."""
    with open_bench() as opened:
        yield opened


def requests_of(shrunk: Shrunk) -> list[Any]:
    """What clients still send."""
    return [entry.message.params for entry in shrunk.entries if isinstance(entry, Begun)]


def test_a_planted_bug_is_shrunk_to_the_calls_and_the_stage_that_it_takes(
    tape: list[Entry], bench: Bench, document: Callable[..., Document]
) -> None:
    """Three calls of one caller: who opens, and reads twice."""
    shrunk = shrink(tape, document(), breaks(answers_are_those_of_the_upstream, bench))

    assert shrunk.is_least
    assert 3 == shrunk.messages
    assert [{"name": "open"}, {"name": "read"}, {"name": "read"}] == requests_of(shrunk)
    assert {"main": ["forgetful"]} == {
        key: [s.id for s in each.chain] for key, each in shrunk.document.pipelines.items()
    }
    (stage,) = shrunk.document.pipelines["main"].chain
    assert {"up": ()} == {key: each.chain for key, each in shrunk.document.sinks.items()}
    assert type(stage.config)() == stage.config
    assert 30.0 == shrunk.document.pipelines["main"].limits.timeout


def test_an_option_that_it_takes_stays(tape: list[Entry], bench: Bench, document: Callable[..., Document]) -> None:
    """With a limit of one, two calls do."""
    shrunk = shrink(tape, document(limit=1), breaks(answers_are_those_of_the_upstream, bench))

    assert 2 == shrunk.messages
    (stage,) = shrunk.document.pipelines["main"].chain
    assert type(stage.config)(limit=1) == stage.config


def test_the_same_tape_shrinks_to_the_same_again(
    tape: list[Entry], bench: Bench, document: Callable[..., Document]
) -> None:
    """Nothing is left to chance."""
    fails = breaks(answers_are_those_of_the_upstream, bench)
    first, second = shrink(tape, document(), fails), shrink(tape, document(), fails)

    assert (first.entries, first.runs) == (second.entries, second.runs)


def test_the_number_of_runs_is_bounded(tape: list[Entry], bench: Bench, document: Callable[..., Document]) -> None:
    """What was found until then is a smaller tape nonetheless, and does show it."""
    asked = 0
    breaking = breaks(answers_are_those_of_the_upstream, bench)

    def fails(entries: Sequence[Entry], config: Document) -> bool:
        nonlocal asked
        asked += 1
        return breaking(entries, config)

    shrunk = shrink(tape, document(), fails, max_runs=12)

    assert (12, 12, False) == (asked, shrunk.runs, shrunk.is_least)
    assert shrunk.messages < 60
    assert breaking(shrunk.entries, shrunk.document)


def test_what_is_not_there_is_not_shrunk(tape: list[Entry], document: Callable[..., Document]) -> None:
    """There would be nothing left."""
    with pytest.raises(ValueError, match="does not show it"):
        shrink(tape, document(), lambda _entries, _document: False)


def test_a_difference_keeps_being_the_same_difference(tape: list[Entry], bench: Bench) -> None:
    """A limit refuses the fifth call: what is left of sixty is that call, and those that used up the burst."""
    config = from_data(
        {
            "version": 1,
            "sources": {"in": {"http": {"bind": "127.0.0.1:1"}}},
            "pipelines": {"main": {"chain": [{"rate_limit": {"rate": "1/h", "burst": 4, "per": "all"}}], "sink": "up"}},
            "sinks": {"up": {"embedded": {}}},
        }
    )
    meant = chief_difference(bench.replay(tape, config))
    assert meant is not None
    shrunk = shrink(tape, config, differs(*meant, bench))

    assert 5 == meant[0]
    assert [1, 2, 3, 4, 5] == [entry.exchange for entry in shrunk.entries if isinstance(entry, Begun)]
    assert 4 == shrunk.document.pipelines["main"].chain[0].config.burst


def test_laws_are_found_by_their_import_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And what is none is told."""
    text = "def law(run):\n    assert run.played.begun < 3, 'too many'\nword = 'x'\n"
    (tmp_path / "laws_of_mine.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    law: Callable[[Run], str | None] = find_law("laws_of_mine:law")

    assert "law" == getattr(law, "__name__", "")
    for wrong, text in (
        ("laws_of_mine", "is not module:function"),
        ("laws_of_mine:other", "no attribute 'other'"),
        ("no_such_module:law", "No module named"),
        ("laws_of_mine:word", "is no function"),
    ):
        with pytest.raises(ValueError, match=text):
            find_law(wrong)


def test_a_smaller_document_is_written_as_a_configuration_that_loads() -> None:
    """The way back gives the same document."""
    text = """
version: 1
stores: {state: {sqlite: {path: ./state.db}}}
sources: {public: {http: {bind: "127.0.0.1:8080", tls: {cert: ./c.pem, key: ./k.pem}}, pipeline: main}}
pipelines:
  main:
    timeout: 5s
    chain:
      - auth_api_key: {pepper: {from_env: PEPPER}, file: ./keys.json}
      - rate_limit: {id: all, rate: [60/min, 5/s], store: state, when: {method: [tools/call], tenant: acme}}
      - cache: {enabled: false}
    sink: files
sinks:
  files: {http: {url: "https://a.example.com/", headers: {x-key: {from_env: KEY}}}, max_in_flight: 4, required: false}
run: {drain_timeout: 3s}
"""
    first = load_text(text)
    second = load_text(config_text(first))

    assert () == differences(first, second)
    assert config_text(first) == config_text(second)
    assert first.sinks["files"].config == second.sinks["files"].config
