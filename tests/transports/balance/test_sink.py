"""The sink as a whole."""

from __future__ import annotations

from collections import Counter
from contextlib import asynccontextmanager

import pytest
import trio

from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.protocol.errors import ConnectFailed, UpstreamUnavailable
from sluiceway.pipeline.protocol.messages import Result
from sluiceway.pipeline.testing import FakeSink, cancel_everywhere, check_sink, memory_exchange
from sluiceway.transports.balance.config import BalanceConfig, HealthConfig
from sluiceway.transports.balance.sink import BalanceSink


async def _echo(exchange):
    await trio.lowlevel.checkpoint()
    return Result({"method": exchange.method})


class OverFakes(BalanceSink):
    """The sink with upstreams of its own."""

    def __init__(self, config, context):
        context.sinks = lambda _: _echo
        super().__init__(config, context)


def test_the_sink_keeps_the_contract():
    """Cancelled at every checkpoint, opened twice, asked for many things."""
    check_sink(OverFakes, {"to": ["one", "two"], "health": {"probe": "none"}})
