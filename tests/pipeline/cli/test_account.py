"""`explain ID`: one exchange on a tape, or in a running gateway."""

import json

import pytest
import trio
from trio.testing import MockClock

from sluiceway.pipeline.cli.exits import Exit
from sluiceway.pipeline.config import load
from sluiceway.pipeline.model.document import Record
from sluiceway.pipeline.model.session import Caller
from sluiceway.pipeline.protocol.errors import UpstreamClosed
from sluiceway.pipeline.protocol.messages import Result
from sluiceway.pipeline.replay.recording import open_recorder
from sluiceway.pipeline.testing import FakeSink, PipelineHarness

CONFIG = """\
version: 1
sources: {public: {http: {bind: "127.0.0.1:8080"}, pipeline: main}}
pipelines:
  main:
    chain:
      - request_id
      - access:
          rules:
            - {allow: "tools:read"}
            - {id: finders, subject: ana, allow: "tools:find"}
      - rate_limit:
          per: all
          rate: 1/h
          burst: 2
      - cache: {when: {method: "resources/*"}}
      - log: {enabled: false}
    sink: demo
sinks:
  demo:
    embedded: {server: demo}
    chain:
      - retry: {repeat: [find], base_delay: 1s, jitter: none}
"""
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture
def taped(tmp_path):
    """A configuration, and its tape: a call that is tried twice, one that is refused, one too many."""
    config, tape = tmp_path / "gateway.yaml", tmp_path / "calls.jsonl"
    config.write_text(CONFIG)

    def make(**changed):
        tries = iter([True])

        async def answer(_exchange):
            await trio.sleep(0.5)
            if next(tries, False):
                raise UpstreamClosed("gone")
            return Result({"content": []})

        async def main():
            record = Record(folder=tmp_path, min_free=0, **changed)
            async with open_recorder(tape, record, now=lambda: 1.8e9, inline=True) as recorder:
                sinks = {"demo": FakeSink(answer)}
                async with PipelineHarness(load(config), sinks=sinks, edges=recorder) as gateway:
                    gateway.caller = Caller("ana", tenant="acme", how="api_key")
                    parent = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
                    await gateway.call("tools/call", name="find", arguments={}, _meta=parent)
                    await gateway.call("tools/call", name="drop", arguments={})
                    await gateway.call("tools/call", name="read", arguments={})
                    await gateway.call("tools/call", name="read", arguments={})

        trio.run(main, clock=MockClock(autojump_threshold=0))
        return config, tape

    return make


def test_every_stage_says_what_it_decided_and_which_line_did(sluiceway, taped):
    """With what the sink was asked and said, and when."""
    config, tape = taped()
    outcome = sluiceway("explain", 1, config, "--tape", tape)

    assert (Exit.OK, "") == (outcome.code, outcome.err)
    lines = outcome.out.splitlines()
    assert "exchange 1, tools/call find" == lines[0]
    assert "  began at 0.000 s, took 2.000 s (times are of the tape)" == lines[1]
    assert f"  trace: {TRACE}" in lines
    access = next(at for at, line in enumerate(lines) if "main.access:" in line)
    assert lines[access].endswith("pipelines.main.access: allow: finders")
    assert lines[access + 1].endswith("gateway.yaml:7:9")
    assert lines[access + 2].endswith("gateway.yaml:10:15")
    assert any(line.endswith("cache: not for this exchange: its `when` wants method resources/*") for line in lines)
    assert any(line.endswith("main.log: switched off") for line in lines)
    assert any("sinks.demo.retry: " in line and "at attempt 1" in line for line in lines)
    assert "  +0.000  0.500 s -> sinks.demo: attempt 1: UpstreamClosed: gone" in lines
    assert "  +1.500  0.500 s -> sinks.demo: attempt 2: a result" in lines
    assert lines[-1].strip() == "ended with a result"


def test_a_refusal_names_the_rule_or_the_limit_that_made_it(sluiceway, taped):
    """What nobody allows has no line of its own."""
    config, tape = taped()
    drop, late = (sluiceway("explain", number, config, "--tape", tape).out for number in (2, 4))

    assert "pipelines.main.access: refuse: no rule allows it" in drop
    assert "sinks.demo:" not in drop
    assert "ended with error -32602" in drop or "ended with error 40300" in drop
    lines = [line.strip() for line in late.splitlines()]
    refused = next(at for at, line in enumerate(lines) if "main.rate_limit: refuse" in line)
    assert lines[refused + 1].endswith("gateway.yaml:11:9")
    assert lines[refused + 2].endswith("gateway.yaml:13:17")


def test_an_exchange_is_found_by_its_correlation_and_its_trace(sluiceway, taped):
    """And what is nobody's is told."""
    config, tape = taped()
    first = json.loads(sluiceway("explain", 1, config, "--tape", tape, "--format", "json").out)

    for what in (first["correlation"], TRACE):
        again = sluiceway("explain", what, config, "--tape", tape, "--format", "json")
        assert first == json.loads(again.out)
    lost = sluiceway("explain", 77, config, "--tape", tape)
    assert (Exit.FOUND, True) == (lost.code, "no exchange with this number" in lost.err)


def test_without_a_configuration_the_decisions_are_told(sluiceway, taped):
    """Without lines."""
    _, tape = taped()
    outcome = sluiceway("explain", 2, "--tape", tape)

    assert "pipelines.main.access: refuse: no rule allows it" in outcome.out
    assert "gateway.yaml" not in outcome.out
    assert Exit.FOUND == sluiceway("explain", 2, "--tape", tape, "--replay").code


def test_a_tape_that_has_its_configuration_names_its_lines(sluiceway, taped):
    """As the file was called then."""
    _, tape = taped(config=True)
    outcome = sluiceway("explain", 1, "--tape", tape)

    assert "at gateway.yaml:7:9" in outcome.out


@pytest.mark.parametrize("how", ["recorded", "replayed"])
def test_each_stage_says_how_long_it_took(sluiceway, taped, how):
    """On a tape with stages, or from a replay."""
    config, tape = taped(stages=how == "recorded")
    words = ["--replay"] if how == "replayed" else []
    said = json.loads(sluiceway("explain", 1, config, "--tape", tape, "--format", "json", *words).out)
    took = {step["id"]: step["took_s"] for step in said["steps"] if step["kind"] == "stage"}

    assert ("of the tape" if how == "recorded" else "virtual") == said["clock"]
    assert 2.0 == pytest.approx(took["pipelines.main.access"])
    assert 2.0 == pytest.approx(took["sinks.demo.retry"])
    assert took["pipelines.main.cache"] is None


def test_a_running_gateway_is_asked_for_what_it_remembers(sluiceway, monkeypatch, tmp_path):
    """By correlation id or trace id, with lines if its configuration is named."""
    config = tmp_path / "gateway.yaml"
    config.write_text(
        CONFIG.replace("    sink: demo", "    sink: demo") + "run: {admin: {bind: 'unix:./admin.sock'}}\n"
    )
    ns = 1_000_000_000

    def span(span_id, parent, kind, name, start, ms, **facts):
        return {
            "trace_id": TRACE, "span_id": span_id, "parent_id": parent, "kind": kind, "name": name,
            "start_ns": start * ns, "duration_ms": ms, "status": "ok", "description": None, "events": [], "links": [],
            "attributes": {"sluiceway.outcome": "success", **facts},
        }  # fmt: skip

    root = span("a", "client", "server", "tools/call find", 10, 2500.0, **{
        "request_id": "abc", "mcp.principal": "ana", "sluiceway.tenant": "acme", "sluiceway.source": "public",
        "sluiceway.decisions": ["pipelines.main.access: allow finders", "pipelines.main.rate_limit: admit"],
    })  # fmt: skip
    spans = [
        span("c", "b", "client", "tools/call find", 11, 500.0, **{"sluiceway.sink": "demo", "sluiceway.attempt": 1}),
        span("b", "a", "internal", "access", 10, 2400.0, **{"sluiceway.stage": "pipelines.main.access"}),
        root,
        span("x", None, "server", "tools/list", 9, 1.0),
    ]
    asked = []

    def ask(_self, _method, path, _content=None):
        asked.append(path)
        return {"spans": [] if "trace=abc" in path else spans}

    monkeypatch.setattr("sluiceway.pipeline.cli.asking.AdminListener.ask", ask)
    by_correlation = sluiceway("explain", "abc", config, "--live")
    by_trace = sluiceway("explain", TRACE, config, "--live")

    assert (Exit.OK, "") == (by_correlation.code, by_correlation.err)
    assert by_correlation.out == by_trace.out
    assert ["/-/traces?trace=abc", "/-/traces", f"/-/traces?trace={TRACE}"] == asked
    lines = by_trace.out.splitlines()
    assert "  caller: ana of acme" in lines
    access = next(at for at, line in enumerate(lines) if "main.access" in line)
    assert "  +0.000  2.400 s pipelines.main.access: allow: finders" == lines[access]
    assert lines[access + 2].endswith("gateway.yaml:10:15")
    assert "  +1.000  0.500 s -> sinks.demo: attempt 1: success" in lines
    assert any("main.rate_limit: admit" in line for line in lines)
    unknown = sluiceway("explain", "nobody", config, "--live")
    assert (Exit.FOUND, True) == (unknown.code, "does not know 'nobody'" in unknown.err)


def test_a_tape_and_a_running_gateway_are_not_asked_together(sluiceway, taped):
    """One of them knows."""
    config, tape = taped()

    assert Exit.USAGE == sluiceway("explain", 1, config, "--tape", tape, "--live").code
    assert Exit.USAGE == sluiceway("explain").code
