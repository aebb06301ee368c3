"""What another configuration would have made of a tape's traffic."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from sluiceway.pipeline.config import from_data
from sluiceway.pipeline.model.document import Document
from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.session import Caller
from sluiceway.pipeline.protocol.errors import UpstreamClosed, UpstreamUnavailable
from sluiceway.pipeline.protocol.messages import ErrorReply, Reply, Result
from sluiceway.pipeline.replay.reading import Tape
from sluiceway.pipeline.replay.recording import open_recorder
from sluiceway.pipeline.replay.repertoire import Repertoire
from sluiceway.pipeline.replay.simulating import simulate
from sluiceway.pipeline.testing import FakeSink, PipelineHarness, memory_exchange


def document(chain: list[Any], sink_chain: list[Any] | None = None) -> Document:
    """A gateway of one pipeline in front of the sink `up`."""
    return from_data(
        {
            "version": 1,
            "sources": {"in": {"http": {"bind": "127.0.0.1:1"}}},
            "pipelines": {"main": {"chain": chain, "sink": "up"}},
            "sinks": {"up": {"embedded": {}, "chain": sink_chain or []}},
        }
    )


Call = tuple[float, str, str]
"""Seconds until it is made, caller, tool."""


async def calls(gateway: PipelineHarness, traffic: list[Call]) -> list[str]:
    """Make some calls, and how each ended: a reason, or nothing if it was answered."""
    ends: list[str] = [""] * len(traffic)

    async def one(index: int, tool: str) -> None:
        reply = await gateway.call("tools/call", name=tool, arguments={"n": index})
        if isinstance(reply, ErrorReply):
            ends[index] = str(reply.data["reason"])

    async with trio.open_nursery() as nursery:
        for index, (wait, caller, tool) in enumerate(traffic):
            await trio.sleep(wait)
            gateway.caller = Caller(caller, tenant=caller[:1], how="api_key")
            nursery.start_soon(one, index, tool)
            await trio.testing.wait_all_tasks_blocked()
    return ends


async def answer(exchange: Exchange) -> Reply:
    """A slow tool, a quick one, and one that fails."""
    tool = exchange.target
    await trio.sleep({"slow": 2.0, "quick": 0.05}.get(tool or "", 0.1))
    if tool == "broken":
        raise UpstreamClosed("gone")
    return Result({"content": []})


def run(config: Document, traffic: list[Call], tape: Path | None = None) -> list[str]:
    """Run some traffic under a configuration in virtual time; what it ended with."""

    async def main() -> list[str]:
        if tape is None:
            async with PipelineHarness(config, sinks={"up": FakeSink(answer)}) as gateway:
                return await calls(gateway, traffic)
        async with (
            open_recorder(tape, inline=True) as recorder,
            PipelineHarness(config, sinks={"up": FakeSink(answer)}, edges=recorder) as gateway,
        ):
            return await calls(gateway, traffic)

    return trio.run(main, clock=MockClock(autojump_threshold=0))


def refusals(tape: Path, config: Document) -> dict[int, str]:
    """What a simulation says is refused, by number of the exchange."""
    found = simulate(Tape(tape), config)
    return {each["exchange"]: each["reason"] for each in found.after.tallies.refusals}


TRAFFIC = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.0, 0.13, 0.7, 3.1]),
        st.sampled_from(["ana", "ben", "cid"]),
        st.sampled_from(["quick", "slow"]),
    ),
    min_size=1,
    max_size=25,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(traffic=TRAFFIC, burst=st.integers(1, 4), places=st.integers(1, 3))
def test_a_tighter_limit_refuses_in_a_run_what_the_simulation_says(tmp_path_factory, traffic, burst, places):
    """Law: the predicted refusals are those of a run with that configuration, each with its reason."""
    tape = tmp_path_factory.mktemp("tapes") / "calls.jsonl"
    tight = document(
        [
            {"rate_limit": {"per": "caller", "rate": "1/s", "burst": burst}},
            {"concurrency_limit": {"max_in_flight": places}},
        ]
    )
    run(document([]), traffic, tape)

    ends = run(tight, traffic)

    assert refusals(tape, tight) == {number: why for number, why in enumerate(ends, 1) if why}


@pytest.fixture
def tape(tmp_path: Path) -> Callable[[list[Call], list[Any]], Tape]:
    """Records some traffic."""

    def record(traffic: list[Call], chain: list[Any]) -> Tape:
        run(document(chain), traffic, tmp_path / "calls.jsonl")
        return Tape(tmp_path / "calls.jsonl")

    return record


def test_callers_tenants_and_tools_are_counted_by_themselves(tape):
    """Each exchange counts once in every table."""
    found = simulate(
        tape([(0, "ana", "quick"), (0, "ben", "quick"), (0, "ana", "slow"), (0, "ana", "broken")], []),
        document([{"rate_limit": {"per": "caller", "rate": "1/min", "burst": 1}}]),
    )
    tallies = found.after.tallies

    assert {name: tally.requests for name, tally in tallies.by_target.items()} == {
        "tools/call quick": 2,
        "tools/call slow": 1,
        "tools/call broken": 1,
    }
    assert {name: dict(tally.counts) for name, tally in tallies.by_caller.items()} == {
        "ana": {"answered": 1, "refused": 2},
        "ben": {"answered": 1},
    }
    assert {name: tally.requests for name, tally in tallies.by_tenant.items()} == {"a": 3, "b": 1}
    assert dict(tallies.all.reasons) == {"rate_limited": 2}
    assert dict(found.before.tallies.all.counts) == {"answered": 3, "failed": 1}


def test_times_are_those_of_the_upstream(tape):
    """Half of the answers took two seconds, half a twentieth; each is known to a twentieth of itself."""
    found = simulate(tape([(0, "ana", "quick"), (0, "ana", "slow")] * 10, []), document([]))
    latencies = found.after.tallies.all.latencies

    assert latencies.quantile(0.5) == pytest.approx(0.05, rel=0.06)
    assert latencies.quantile(0.95) == pytest.approx(2.0, rel=0.06)


def test_retries_that_were_not_made_are_supposed(tape):
    """The tape has one attempt of each call; the others get what that one got."""
    config = document([], [{"retry": {"repeat": ["broken"], "reserve": "100/s"}}])
    found = simulate(tape([(0, "ana", "broken")] * 3, []), config)

    assert found.after.tallies.all.counts["retried"] > 0
    assert found.after.supposed > 0
    assert found.after.unanswered == 0


def test_a_breaker_moves_when_it_would_have(tape):
    """Failures on the tape open a circuit that was not there."""
    found = simulate(tape([(0.2, "ana", "broken")] * 12, []), document([], [{"circuit_breaker": {"min_calls": 5}}]))

    assert [(move["stage"], move["to"]) for move in found.after.tallies.moves][:1] == [
        ("sinks.up.circuit_breaker", "open")
    ]
    assert found.after.tallies.all.reasons["circuit_open"] > 0


def test_two_configurations_are_compared_with_each_other(tape):
    """With an old one, both sides are simulated."""
    limit = [{"rate_limit": {"per": "all", "rate": "1/min", "burst": 1}}]
    found = simulate(tape([(0, "ana", "quick")] * 3, []), document([]), document(limit))

    assert found.before.tallies.all.counts["refused"] == 2
    assert found.after.tallies.all.counts["refused"] == 0
    assert found.as_json()["before"]["all"]["refused"] == 2


def test_a_call_that_was_cut_off_takes_as_long_as_others_did(tape):
    """The deadline cut some calls off after one second; without it they take the two seconds of the others."""
    traffic = [(0.0, "ana", "slow"), (3.0, "ben", "slow")]
    recorded = tape(traffic, [{"timeout": {"after": "1s", "when": {"caller": "ana"}}}])
    found = simulate(recorded, document([]))

    assert dict(found.before.tallies.all.counts) == {"timed_out": 1, "answered": 1}
    assert dict(found.after.tallies.all.counts) == {"answered": 2}
    assert found.after.supposed == 1
    assert found.after.tallies.all.latencies.quantile(0) == pytest.approx(2.0, rel=0.06)


def test_the_same_seed_supposes_the_same(tape):
    """What is drawn is drawn alike."""
    recorded = tape([(0.1, "ana", "broken"), (0.1, "ana", "quick")] * 5, [])
    config = document([], [{"retry": {"repeat": ["broken"]}}])

    assert simulate(recorded, config, seed=3).as_json() == simulate(recorded, config, seed=3).as_json()


def test_nothing_like_it_fails():
    """A sink of a new name with tools that nobody ever called."""
    repertoire = Repertoire()
    exchange = memory_exchange("tools/call", {"name": "x"})

    with pytest.raises(UpstreamUnavailable, match="the tape has no answer to tools/call"):
        trio.run(repertoire.suppose, exchange, "up", 0.0)
    assert repertoire.unanswered == 1
