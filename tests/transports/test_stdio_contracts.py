"""Both ends of stdio keep the contracts of their kinds."""

import sys
from contextlib import asynccontextmanager
from pathlib import Path

import trio
import trio.testing

from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.testing import check_sink, check_source, memory_exchange
from sluiceway.transports.stdio_sink import StdioSink
from sluiceway.transports.stdio_source import StdioSource, StdioSourceConfig

PLAIN = Path(__file__).parent / "children" / "plain.py"


class Warm(StdioSink):
    """The sink with its child already started: what serves a child waits for work, and is meant to stay."""

    @asynccontextmanager
    async def open(self):
        """Open, and make the first use."""
        async with super().open():
            await self(memory_exchange("tools/list"))
            yield


def test_the_sink_keeps_the_contract():
    """With a real child, cancelled at every checkpoint."""
    check_sink(Warm, {"command": [sys.executable, "-S", str(PLAIN)]}, virtual_time=False)


def test_the_source_keeps_the_contract():
    """Over memory instead of our own standard streams."""

    class OverMemory(StdioSource):
        """The source with a client in the same process."""

        def __init__(self, config: StdioSourceConfig, context: Context) -> None:
            self.client, ours = trio.testing.memory_stream_pair()
            super().__init__(config, context, reader=ours, writer=ours)

    async def drive(source: OverMemory) -> None:
        await source.client.send_all(b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n')

        assert b'"id":1,"result"' in await source.client.receive_some()

    check_source(OverMemory, drive=drive)
