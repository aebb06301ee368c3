"""Alerts of a running gateway: on its clock, from what it counts, told in its log, figures and status."""

from __future__ import annotations

from typing import Any

import trio
from attrs import evolve
from structlog.testing import capture_logs

from sluiceway.pipeline.config import from_data
from sluiceway.pipeline.model.figures import Figure
from sluiceway.pipeline.protocol.errors import UpstreamClosed
from sluiceway.pipeline.testing import FakeSink, PipelineHarness


def configuration(chain: list[Any] | None = None, **alerts: Any) -> dict[str, Any]:
    """A gateway of one pipeline, with alerts."""
    return {
        "version": 1,
        "sources": {"in": {"stdio": {}}},
        "pipelines": {"main": {"chain": chain or [], "sink": "up", "max_in_flight": 4}},
        "sinks": {"up": {"embedded": {}}},
        "run": {"alerts": alerts},
    }


def told(logs: list[Any]) -> list[tuple[str, str, Any]]:
    """What the log says of alerts: the line, its level, the rule."""
    return [
        (line["event"], line["log_level"], line["rule"]) for line in logs if str(line["event"]).startswith("alert ")
    ]


def counted(gateway: PipelineHarness) -> dict[tuple[str, str], float]:
    """Figures of alerts, by name and rule."""
    return {
        (each.name, each.labels["rule"]): each.value
        for each in gateway.engine.snapshot()
        if isinstance(each, Figure) and each.name.startswith("alerts")
    }


async def test_an_alert_fires_and_clears_on_the_gateways_clock(autojump_clock):
    """At more than half of what may be in flight, and again at half: in the log, in figures, in the status."""
    sink = FakeSink()
    async with PipelineHarness.from_data(configuration(every="2s"), sinks={"up": sink}) as gateway:
        with capture_logs() as logs:
            calls = [gateway.start("tools/list") for _ in range(2)]
            await trio.sleep(4)
            at_half = told(logs)
            calls.append(gateway.start("tools/list"))
            await trio.sleep(4)
            (row,) = gateway.engine.status()["alerts"]
            firing = counted(gateway)
            calls.pop().cancel()
            await trio.sleep(4)

        assert at_half == []
        assert told(logs) == [("alert firing", "warning", "pending"), ("alert cleared", "info", "pending")]
        assert (row["rule"], row["state"], row["labels"], row["value"]) == (
            "pending", "firing", {"pipeline": "main"}, 0.75,
        )  # fmt: skip
        assert firing["alerts", "pending"] == firing["alerts_fired_total", "pending"] == 1
        assert counted(gateway)["alerts", "pending"] == 0
        assert gateway.engine.status()["alerts"] == []


async def test_every_says_how_often_is_looked(autojump_clock):
    """In between nothing fires."""
    rules = {"all": {"figure": "pipeline_in_flight", "above": 0}}
    for every, fired in (("1s", True), ("1m", False)):
        async with PipelineHarness.from_data(
            configuration(every=every, rules=rules), sinks={"up": FakeSink()}
        ) as gateway:
            gateway.start("tools/list")
            await trio.sleep(10)

            assert bool(gateway.engine.status()["alerts"]) is fired


async def test_preset_none_has_only_rules_of_ones_own(autojump_clock):
    """And without any, nobody looks."""
    rules = {"mine": {"figure": "a", "above": 0}}
    names = []
    for given in ({}, {"preset": "none", "rules": rules}, {"preset": "none"}):
        async with PipelineHarness.from_data(configuration(**given)) as gateway:
            names.append([each["rule"] for each in gateway.engine.alerts()["rules"]])

    assert names == [
        ["pending", "pending_critical", "success_rate", "pool_reuse", "operation_failed", "worker_died", "worker_hung"],
        ["mine"], [],
    ]  # fmt: skip


async def test_a_failing_operation_raises_one_alert(autojump_clock):
    """However often it fails, and it is logged as an error; needs the stage `metrics`."""
    sink = FakeSink.script([UpstreamClosed("gone")] * 5 + [{"tools": []}])
    async with PipelineHarness.from_data(configuration(["metrics"]), sinks={"up": sink}) as gateway:
        with capture_logs() as logs:
            for _ in range(5):
                await gateway.call("tools/call", name="pay")
                await trio.sleep(6)
            await gateway.call("tools/list")
            await trio.sleep(70)

    lines = [line for line in told(logs) if line[2] == "operation_failed"]
    assert lines == [("alert firing", "error", "operation_failed"), ("alert cleared", "info", "operation_failed")]
    (fired,) = [line for line in logs if line["event"] == "alert firing" and line["rule"] == "operation_failed"]
    assert (fired["labels"], fired["summary"]) == ({"method": "tools/call"}, "an operation failed")


async def test_a_reload_brings_new_rules_and_keeps_what_fires(autojump_clock):
    """The alert that fires does not fire again; one whose rule is gone is gone."""
    stays = {"figure": "pipeline_max_in_flight", "above": 1}
    before = configuration(preset="none", rules={"stays": stays, "goes": {**stays, "above": 2}})
    after = configuration(preset="none", rules={"stays": stays})
    async with PipelineHarness.from_data(before) as gateway:
        await trio.sleep(6)
        with capture_logs() as logs:
            await gateway.engine.reload(from_data(after))
            await trio.sleep(6)
            kept = [row["rule"] for row in gateway.engine.status()["alerts"]]
            await gateway.engine.reload(evolve(from_data(after), run=evolve(from_data(after).run, alerts=None)))
            await trio.sleep(6)

        assert (kept, told(logs)) == (["stays"], [])
        assert gateway.engine.alerts() == {"alerts": [], "rules": []}
