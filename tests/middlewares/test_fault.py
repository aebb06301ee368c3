"""The stage `fault`."""

from __future__ import annotations

import pytest

from sluiceway.middlewares.fault import FaultStage
from sluiceway.middlewares.retry import Retry
from sluiceway.pipeline.config import check_text
from sluiceway.pipeline.protocol.messages import ErrorReply, Result
from sluiceway.pipeline.testing import FakeSink, PipelineHarness, cancel_everywhere

REFUSE = {"faults": [{"effect": "refuse", "times": 1}]}


async def test_what_is_further_out_acts_as_if_the_server_had_failed(autojump_clock):
    """A retry repeats; the client sees nothing of it."""
    sink = FakeSink.echo()
    async with PipelineHarness.from_stages([Retry, (FaultStage, REFUSE)], sink=sink) as gateway:
        assert isinstance(await gateway.call("tools/list"), Result)

    assert len(sink.requests) == 1


async def test_notifications_pass():
    """They are not even counted."""
    async with PipelineHarness.from_stages([(FaultStage, {"faults": [{"effect": "refuse"}]})]) as gateway:
        await gateway.start("notifications/roots/list_changed").wait()
        reply = await gateway.call("tools/list")
        figures = {figure.name: figure.value for figure in gateway.engine.component("pipelines.main.fault").figures()}

    assert isinstance(reply, ErrorReply)
    assert figures == {"fault_exchanges_total": 1, "fault_harmed_total": 1}


async def test_the_seed_says_who_is_hit():
    """The same seed hits the same exchanges, another one others."""

    async def day(seed: int) -> list[bool]:
        config = {"faults": [{"effect": "refuse", "share": "50%"}], "seed": seed}
        async with PipelineHarness.from_stages([(FaultStage, config)]) as gateway:
            return [isinstance(await gateway.call("tools/list"), Result) for _ in range(40)]

    first, again, other = await day(1), await day(1), await day(2)

    assert first == again
    assert first != other


@pytest.mark.parametrize("effect", ["drop", "hang"])
async def test_it_can_be_cancelled_anywhere(effect, autojump_clock):
    """Nothing stays, even of what would never end."""
    stages = [(FaultStage, {"faults": [{"latency": "1s"}, {"effect": effect, "skip": 10**6}]})]
    async with PipelineHarness.from_stages(stages) as gateway:
        await cancel_everywhere(lambda: gateway.call("tools/list"))


def test_check_warns_as_long_as_it_is_on():
    """An operator who forgets it is told."""
    text = """
version: 1
sources: {local: {stdio: {}}}
pipelines: {main: {chain: [{fault: {enabled: ENABLED, faults: [{latency: 1s}]}}]}}
sinks: {demo: {embedded: {}}}
"""
    on, off = (check_text(text.replace("ENABLED", word)).problems for word in ("true", "false"))

    assert [(problem.rule, problem.level) for problem in on] == [("fault/on", "warning")]
    assert off == ()


def test_a_fault_that_harms_nobody_is_an_error():
    """With the place and the remedy."""
    checked = check_text(
        "version: 1\nsources: {l: {stdio: {}}}\npipelines: {main: {chain: [{fault: {faults: [{share: 5%}]}}]}}\n"
        "sinks: {demo: {embedded: {}}}\n"
    )

    assert "nothing goes wrong" in checked.problems[0].message
