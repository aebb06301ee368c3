"""What a stage puts around the calls further in: `Exchange.around_sink` and `around_stage`."""

from __future__ import annotations

import pytest

from sluiceway.pipeline.config import from_data
from sluiceway.pipeline.model.component import Middleware, middleware
from sluiceway.pipeline.protocol.messages import ErrorReply, Result
from sluiceway.pipeline.testing import FakeSink, PipelineHarness


@middleware("watcher")
class Watcher(Middleware):
    """Notes what it stands around."""

    seen: list = []  # one test at a time

    @classmethod
    def sees_stages(cls, config):
        """Always."""
        return True

    async def __call__(self, exchange, call_next):
        """Watch."""
        exchange.around_sink = self.around
        exchange.around_stage = self.around
        return await call_next(exchange)

    async def around(self, component_id, exchange, call):
        """Note it, and pass on another view."""
        self.seen.append(component_id)
        reply = await call(exchange.with_request(exchange.request.with_params({"seen_by": component_id})))
        self.seen.append(type(reply).__name__)
        return reply


@middleware("blind")
class Blind(Watcher):
    """Sets what nobody looks at."""

    @classmethod
    def sees_stages(cls, config):
        """Never."""
        return False


@middleware("twice")
class Twice(Middleware):
    """Tries again, once."""

    replays = True

    async def __call__(self, exchange, call_next):
        """Fork for the second try."""
        reply = await call_next(exchange)
        return await call_next(exchange.fork()) if isinstance(reply, ErrorReply) else reply


@pytest.fixture(autouse=True)
def _fresh():
    Watcher.seen.clear()


async def test_every_call_of_a_leaf_sink_and_of_every_stage_further_in_is_seen(autojump_clock):
    """Attempts of a retry count one by one; the sink sees the view that was passed on."""
    sink = FakeSink.script([ErrorReply(1, "no"), Result({"ok": True})])
    async with PipelineHarness.from_stages([Watcher, Twice], sink=sink) as gateway:
        gateway_reply = await gateway.call("tools/list")

    assert gateway_reply == Result({"ok": True})
    assert Watcher.seen == ["twice", "sink", "ErrorReply", "sink", "Result", "Result"]
    assert [request.params["seen_by"] for request in sink.requests] == ["sink", "sink"]
    assert [run.stage for run in gateway.stage_log] == ["watcher", "twice"]


async def test_stages_are_looked_at_only_if_a_stage_says_so(autojump_clock):
    """Chains without such a stage have nothing to skip."""
    async with PipelineHarness.from_stages([Blind, Twice]) as gateway:
        await gateway.call("tools/list")

    assert Watcher.seen == ["sink", "Result"]


def test_a_sink_that_sends_to_others_is_no_leaf():
    """Known from its options, and not from those of its chain."""
    demo = {"embedded": {"server": "demo"}}
    document = from_data(
        {
            "version": 1,
            "pipelines": {"main": {"chain": [], "sink": "all"}},
            "sinks": {"one": demo, "two": demo, "all": {"route": {"to": ["one", "two"]}}},
        }
    )

    assert {sink.id: sink.routes for sink in document.sinks.values()} == {"one": False, "two": False, "all": True}
