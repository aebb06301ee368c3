"""Sinks that send to other sinks."""

from contextlib import asynccontextmanager

import pytest
from attrs import frozen

from sluiceway.pipeline.config import from_data
from sluiceway.pipeline.model.component import Context, Sink
from sluiceway.pipeline.model.options import option
from sluiceway.pipeline.protocol.errors import ConnectFailed
from sluiceway.pipeline.testing import FakeSink, PipelineHarness


class Forward(Sink):
    """Sends on what it gets."""

    name = "forward"

    @frozen
    class Config:
        """Where to."""

        to: str = option(doc="A sink.", example="files", refers="sink")

    opened: list[str] = []

    @asynccontextmanager
    async def open(self):
        """Take the sink and say so."""
        self.opened.append(self.context.id)
        self.target = self.context.sink(self.config.to)
        yield
        self.opened.append(f"{self.context.id} closed")

    async def __call__(self, exchange):
        return await self.target(exchange)


def _data(**sinks):
    return {"version": 1, "sources": {"in": {"stdio": {}}}, "pipelines": {"main": {"sink": "first"}}, "sinks": sinks}


def _forward(to):
    return {f"{__name__}:Forward": {"to": to}}


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """The class of this file can be named in a configuration."""
    import sys

    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or type(sys)(__name__))
    monkeypatch.setattr(sys.modules[__name__], "Forward", Forward, raising=False)
    Forward.opened.clear()


async def test_a_sink_sends_to_another_with_its_chain_and_limits(autojump_clock):
    """In whatever order they are declared; those sent to open first and close last."""
    end = {"embedded": {}, "chain": [{"timeout": {"after": "5s"}}]}
    data = _data(first=_forward("second"), second=_forward("end"), end=end)
    async with PipelineHarness.from_data(data, sinks={"end": FakeSink.slow(60)}) as gateway:
        reply = await gateway.call("tools/call", name="x")

    assert "deadline_exceeded" == reply.data["reason"]
    assert ["sinks.second", "sinks.first", "sinks.first closed", "sinks.second closed"] == Forward.opened


async def test_a_sink_that_is_not_required_may_be_away(autojump_clock):
    """Whoever sends to it gets the error that every pipeline gets."""

    class Broken(FakeSink):
        """Does not open."""

        @asynccontextmanager
        async def open(self):
            """Fail."""
            raise ConnectFailed("no such server")
            yield

    data = _data(first=_forward("end"), end={"embedded": {}, "required": False})
    async with PipelineHarness.from_data(data, sinks={"end": Broken()}) as gateway:
        reply = await gateway.call("tools/call", name="x")

    assert "upstream_unavailable" == reply.data["reason"]


def test_a_sink_that_is_not_there_is_named():
    """For components made by hand; in a file the reference is checked."""
    with pytest.raises(LookupError, match="no sink named 'x'"):
        Context(id="a").sink("x")
    document = from_data(_data(first={"embedded": {}}))

    assert () == document.sinks["first"].sends_to
