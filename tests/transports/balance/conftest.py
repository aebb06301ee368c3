"""Groups over scripted upstreams."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from sluiceway.pipeline.model.component import Context, State
from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.protocol.messages import Notification, Reply, Result
from sluiceway.pipeline.testing import memory_exchange
from sluiceway.pipeline.testing.configs import make_config
from sluiceway.transports.balance.sink import BalanceSink


class Fake:
    """An upstream that answers with its name, after `delay`, unless it is told to fail."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.delay = 0.0
        self.error: Exception | None = None
        self.answers: dict[str, Callable[[Exchange], Reply]] = {}
        self.tells: Notification | None = None
        self.seen: list[Exchange] = []
        self.probes = 0
        self.inside = 0
        self.peak = 0

    @property
    def methods(self) -> list[str]:
        """What arrived, probes not counted."""
        return [exchange.method for exchange in self.seen]

    async def __call__(self, exchange: Exchange) -> Reply:
        """Answer one exchange."""
        if exchange.client.transport == "probe":
            self.probes += 1
        else:
            self.seen.append(exchange)
        self.inside += 1
        self.peak = max(self.peak, self.inside)
        try:
            await trio.sleep(self.delay)
        finally:
            self.inside -= 1
        if self.error is not None:
            raise self.error
        if self.tells is not None:
            await exchange.relay(self.tells)
        if exchange.method in self.answers:
            return self.answers[exchange.method](exchange)
        if exchange.method == "initialize":
            return Result({"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": self.name}})
        return Result({"by": self.name})


class Setup:
    """A sink over fakes, and what it has said."""

    def __init__(self, names: tuple[str, ...], options: dict[str, Any], kept: dict[str, Any]) -> None:
        self.ups = {name: Fake(name) for name in names}
        self.reports: list[tuple[State, str]] = []
        context = Context(
            id="sinks.all",
            sinks=self.ups.__getitem__,
            report=lambda state, why: self.reports.append((state, why)),
            kept=kept,
        )
        context.random.seed(7)
        options = {"to": list(names), "health": {"probe": "none"}, "slow_start": "0s", **options}
        self.sink = BalanceSink(make_config(BalanceSink, options), context)

    async def call(self, **more: Any) -> str:
        """The name of who has answered a call."""
        reply = await self.sink(memory_exchange("tools/call", {"name": "t", "arguments": {}}, **more))
        assert isinstance(reply, Result)
        return str(reply.value["by"])

    async def calls(self, times: int) -> Counter[str]:
        """How many calls each has answered, one after the other."""
        return Counter([await self.call() for _ in range(times)])

    def state(self, name: str) -> str:
        """What `status` says of an upstream."""
        return str(self.sink.details()["upstreams"][name]["state"])

    @property
    def in_flight(self) -> int:
        """Of all upstreams."""
        return sum(each["in_flight"] + each["listeners"] for each in self.sink.details()["upstreams"].values())


Make = Callable[..., Any]


@pytest.fixture
def group() -> Make:
    """Makes an open group of upstreams by their names, with options."""

    @asynccontextmanager
    async def make(*names: str, kept: dict[str, Any] | None = None, **options: Any) -> AsyncIterator[Setup]:
        setup = Setup(names or ("a", "b", "c"), options, {} if kept is None else kept)
        async with setup.sink.open():
            yield setup

    return make


Waiter = Callable[[], Awaitable[None]]
