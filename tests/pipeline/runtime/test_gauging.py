"""What a running gateway counts."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.testing import capture_logs

from sluiceway.pipeline.model.component import Middleware, middleware
from sluiceway.pipeline.model.figures import Figure
from sluiceway.pipeline.protocol.errors import CapacityExceeded, ComponentError
from sluiceway.pipeline.testing import FakeSink, PipelineHarness


@middleware("counter")
class Counter(Middleware):
    """Counts, or fails to."""

    broken = False

    def figures(self) -> Any:
        """One."""
        if self.broken:
            raise RuntimeError("planted")
        yield Figure("things_total", 7, "counter", "Things.", {"colour": "red"})


@pytest.fixture(autouse=True)
def _whole() -> Any:
    """Nothing is broken at first."""
    yield
    Counter.broken = False


def _values(snapshot: Any, name: str) -> dict[tuple[str, ...], float]:
    return {tuple(s.labels.values()): s.value for s in snapshot if isinstance(s, Figure) and s.name == name}


async def test_components_pipelines_and_process_are_counted(autojump_clock):
    """Each with what tells it from the others."""
    sink = FakeSink.script([{"a": 1}, CapacityExceeded("full")])
    async with PipelineHarness.from_stages([Counter], sink=sink) as gateway:
        await gateway.call_many("tools/list", times=2)
        snapshot = gateway.engine.snapshot()
        pipeline = gateway.engine.pipelines["main"].id

    assert _values(snapshot, "things_total") == {(f"pipelines.{pipeline}.counter", "red"): 7}
    assert _values(snapshot, "pipeline_exchanges_total") == {
        (pipeline, "served"): 1, (pipeline, "refused"): 1, (pipeline, "cancelled"): 0,
    }  # fmt: skip
    assert _values(snapshot, "pipeline_admitted_total") == {(pipeline,): 2}
    assert _values(snapshot, "pipeline_in_flight") == _values(snapshot, "pipeline_waiting") == {(pipeline,): 0}
    assert _values(snapshot, "component_state")[f"pipelines.{pipeline}.counter", "middleware", "ready"] == 1
    assert _values(snapshot, "component_state")[f"pipelines.{pipeline}.counter", "middleware", "failed"] == 0
    assert _values(snapshot, "process_resident_memory_bytes")[()] > 1_000_000
    assert _values(snapshot, "process_open_fds")[()] > 2
    assert _values(snapshot, "trio_tasks")[()] > 1
    assert _values(snapshot, "process_cpu_seconds_total")[()] > 0
    assert len({(s.name, frozenset(s.labels.items())) for s in snapshot}) == len(snapshot)


async def test_what_waited_was_admitted_too(autojump_clock):
    """And what found no place was not."""
    async with PipelineHarness.from_data(
        {
            "version": 1,
            "sources": {"test": {"stdio": {}, "pipeline": "main"}},
            "pipelines": {"main": {"sink": "up", "max_in_flight": 1, "max_waiting": 1, "wait_at_most": "10s"}},
            "sinks": {"up": {"embedded": {}}},
        },
        sinks={"up": FakeSink.slow(1)},
    ) as gateway:
        calls = [gateway.start("tools/list") for _ in range(3)]
        for call in calls:
            await call.wait()
        await gateway.start("subscriptions/listen").wait()
        snapshot = gateway.engine.snapshot()

    assert _values(snapshot, "pipeline_admitted_total") == {("main",): 3}


async def test_one_component_that_fails_to_count_hides_nothing_of_the_others(autojump_clock):
    """It is named in the log."""
    Counter.broken = True
    async with PipelineHarness.from_stages([Counter]) as gateway:
        with capture_logs() as logs:
            snapshot = gateway.engine.snapshot()

    assert _values(snapshot, "things_total") == {}
    assert _values(snapshot, "pipeline_in_flight") != {}
    assert [(line["event"], line["component"].rsplit(".", 1)[1]) for line in logs] == [("figures failed", "counter")]


async def test_components_are_found_by_id_while_they_are_open(autojump_clock):
    """Afterwards they are there, and not open."""
    async with PipelineHarness.from_stages([Counter]) as gateway:
        engine = gateway.engine
        found = engine.component("pipelines.main.counter")
        everybody = engine.components()
        with pytest.raises(LookupError, match=r"no component 'nobody'; there are: .*pipelines\.main\.counter"):
            engine.component("nobody")

    assert isinstance(found, Counter)
    assert found in everybody
    assert engine.components() == []
    with pytest.raises(ComponentError, match="it is stopped, not open"):
        engine.component("pipelines.main.counter")
