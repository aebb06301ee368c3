"""A reload and those who listen: nobody waits for calls of another pipeline."""

from __future__ import annotations

from typing import Any

import attrs
import trio

from sluiceway.pipeline.model.component import Sink, Source
from sluiceway.pipeline.model.document import Document, PipelineSpec, SinkSpec, SourceSpec
from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.session import Client
from sluiceway.pipeline.protocol.mcp import Era, Kind
from sluiceway.pipeline.protocol.messages import Notification, Reply, Request, Result
from sluiceway.pipeline.runtime.engine import Engine


@attrs.frozen
class NoOptions:
    """Nothing to choose."""


class SlowSink(Sink):
    """Takes five seconds for a call; a listener stays until it is asked to finish."""

    Config = NoOptions
    name = "slow"

    async def __call__(self, exchange: Exchange) -> Reply:
        if exchange.kind is Kind.LISTEN:
            await exchange.draining.wait()
        else:
            await trio.sleep(5)
        return Result({})


class QuietSource(Source):
    """Takes what the test gives it."""

    Config = NoOptions
    name = "quiet"
    handle: Any = None

    async def serve(self, handle: Any) -> None:
        self.handle = handle
        await trio.sleep_forever()


async def _emit(_: Notification) -> None:
    """Nobody reads it."""


async def test_listeners_of_every_pipeline_end_at_once(autojump_clock: Any) -> None:
    """Though a call of the first pipeline takes its time."""
    names = ("first", "second")
    document = Document(
        sinks={"k": SinkSpec(id="k", cls=SlowSink, config=NoOptions())},
        pipelines={name: PipelineSpec(id=name, sink="k") for name in names},
        sources={name: SourceSpec(id=name, cls=QuietSource, config=NoOptions(), pipeline=name) for name in names},
    )
    engine = Engine(document)
    ended: dict[str, float] = {}

    async def ask(source: str, method: str) -> None:
        handle: Any = engine.sources[source].handle  # type: ignore[attr-defined]  # it is a QuietSource
        client = Client(era=Era.MODERN, version="2026-07-28")
        await handle(Request(1, method, {"name": "x"}), client=client, emit=_emit).run()
        ended[method] = trio.current_time() - start

    async with engine.running(), trio.open_nursery() as nursery:
        await trio.testing.wait_all_tasks_blocked()
        start = trio.current_time()
        nursery.start_soon(ask, "first", "tools/call")
        nursery.start_soon(ask, "second", "subscriptions/listen")
        await trio.sleep(1)
        await engine.reload(document)

    assert {"subscriptions/listen": 1.0, "tools/call": 5.0} == ended
