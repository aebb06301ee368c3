"""`shrink`: a tape and a configuration, made as small as they can be."""

import json

import pytest
import trio
from trio.testing import MockClock

from sluiceway.pipeline.cli.exits import Exit
from sluiceway.pipeline.config import load
from sluiceway.pipeline.config.declarations import Group, to_data
from sluiceway.pipeline.model.document import Record
from sluiceway.pipeline.replay.recording import open_recorder
from sluiceway.pipeline.testing import FakeSink, PipelineHarness

CONFIG = """\
version: 1
sources: {public: {http: {bind: "127.0.0.1:8080"}, pipeline: main}}
pipelines:
  main:
    chain: [request_id, {rate_limit: {rate: 1/h, burst: 2, per: all}}, log]
    sink: demo
sinks: {demo: {embedded: {server: demo}}}
"""
SUITE = """\
tests:
  - name: find is never refused
    sinks: {demo: {reply: {content: []}}}
    request: {method: tools/call, params: {name: find}}
    expect: {result: {}}
  - name: it is quick
    sinks: {demo: {reply: {content: []}}}
    request: {method: tools/call, params: {name: find}}
    expect: {takes: 1s}
  - name: the limit has decided to admit it
    sinks: {demo: {reply: {content: []}}}
    request: {method: tools/call, params: {name: find}}
    expect: {decided: {rate_limit: admit}, cancelled: false}
"""


@pytest.fixture
def taped(tmp_path):
    """A configuration, and a tape on which a limit refuses calls."""
    config, tape = tmp_path / "gateway.yaml", tmp_path / "calls.jsonl"
    config.write_text(CONFIG)
    (tmp_path / "gateway_test.yaml").write_text(SUITE)

    async def main():
        async with open_recorder(tape, Record(folder=tmp_path, min_free=0), now=lambda: 1.8e9, inline=True) as recorder:
            sinks = {"demo": FakeSink.echo()}
            async with PipelineHarness(load(config), sinks=sinks, edges=recorder) as gateway:
                for name in ("list", "list", "find", "list"):
                    await gateway.call("tools/call", name=name, arguments={"q": "x"})

    trio.run(main, clock=MockClock(autojump_threshold=0))
    return config, tape


def test_a_law_of_ones_own_is_what_is_left(sluiceway, taped, tmp_path, monkeypatch):
    """The files that come of it show it by themselves."""
    config, tape = taped
    (tmp_path / "my_laws.py").write_text(
        "def nobody_is_refused(run):\n"
        "    for each in run.exchanges:\n"
        "        assert each.ended.reply.error is None, each.number\n"
    )
    monkeypatch.chdir(tmp_path)
    small = tmp_path / "small.jsonl"
    outcome = sluiceway("shrink", tape, "--to", small, "--config", config, "--law", "my_laws:nobody_is_refused",
                        "--format", "json")  # fmt: skip

    assert (Exit.OK, "") == (outcome.code, outcome.err)
    said = json.loads(outcome.out)
    assert (4, 3, True) == (said["messages_before"], said["messages"], said["least"])
    (stage,) = load(tmp_path / "small.jsonl.yaml").pipelines["main"].chain
    assert ("rate_limit", {"burst": 2}) == (stage.id, to_data(stage.config, Group(type(stage.config))))
    assert "3 exchanges" in sluiceway("replay", small).out


def test_what_a_test_expects_is_what_is_left(sluiceway, taped, tmp_path):
    """Of the call that the test is about, and what came before."""
    config, tape = taped
    suite = tmp_path / "gateway_test.yaml"
    for number, case in enumerate(("find is never refused", "the limit has decided to admit it")):
        outcome = sluiceway("shrink", tape, "--to", tmp_path / f"{number}.jsonl", "--config", config,
                            "--expect", suite, "--case", case)  # fmt: skip

        assert (Exit.OK, "") == (outcome.code, outcome.err)
        assert "of 4 messages" in outcome.out


def test_a_difference_is_what_is_left(sluiceway, taped, tmp_path):
    """Under a tighter limit, the second call is refused."""
    config, tape = taped
    config.write_text(CONFIG.replace("burst: 2", "burst: 1"))
    outcome = sluiceway("shrink", tape, "--to", tmp_path / "s.jsonl", "--config", config, "--exchange", 2)

    assert (Exit.OK, "") == (outcome.code, outcome.err)
    assert f"{tmp_path / 's.jsonl'}: 2 of 4 messages" in outcome.out


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--law", "nothing"], Exit.USAGE, "is not module:function"),
        (["--law", "a:b", "--expect", "x.yaml", "--case", "c"], Exit.USAGE, "name one thing"),
        (["--expect", "gateway_test.yaml"], Exit.USAGE, "name one thing"),
        (["--expect", "gateway_test.yaml", "--case", "nobody"], Exit.USAGE, "has no test 'nobody'"),
        (["--expect", "gateway_test.yaml", "--case", "it is quick"], Exit.USAGE, "not to takes"),
        ([], Exit.FOUND, "no exchange goes differently"),
        (["--exchange", "3"], Exit.FOUND, "exchange 3 does not go differently"),
    ],
)
def test_what_cannot_be_shrunk_is_told(sluiceway, taped, tmp_path, monkeypatch, words, code, said):
    """Nothing is written then."""
    config, tape = taped
    monkeypatch.chdir(tmp_path)
    outcome = sluiceway("shrink", tape, "--to", "s.jsonl", "--config", config, *words)

    assert (code, False) == (outcome.code, (tmp_path / "s.jsonl").exists())
    assert said in outcome.err


def test_a_file_that_exists_is_not_written_to(sluiceway, taped):
    """The tape itself least of all."""
    config, tape = taped
    outcome = sluiceway("shrink", tape, "--to", tape, "--config", config)

    assert (Exit.USAGE, True) == (outcome.code, "exists" in outcome.err)
