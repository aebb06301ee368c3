"""
Exporting spans over OTLP/HTTP, with the exporter of OpenTelemetry's SDK (`pip install "sluiceway[otel]"`).

The SDK's batch processor would bring a thread of its own and the wall clock. Here a task gathers spans and hands them
to the exporter in a worker thread, so that a collector that hangs holds up nobody, and closing takes no longer than
one `timeout`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, final

import trio
from attrs import frozen

from sluiceway.pipeline.model.figures import Figure
from sluiceway.pipeline.model.options import SECOND, Duration, Secret, option
from sluiceway.pipeline.runtime.nursery import farewell, open_background_nursery

if TYPE_CHECKING:
    from sluiceway.pipeline.telemetry.spans import Span

MAX_BATCH: Final = 512
"""Spans of one request to the collector."""
MISSING: Final = 'exporting spans needs OpenTelemetry\'s SDK and exporter: pip install "sluiceway[otel]"'


@final
@frozen(kw_only=True)
class Otlp:
    """A collector that takes spans."""

    endpoint: str = option(doc="Where spans are posted to.", example="http://127.0.0.1:4318/v1/traces")
    headers: Mapping[str, Secret] = option(
        {}, doc="Headers of each request, with secret values.", example={"x-api-key": {"from_env": "COLLECTOR_KEY"}}
    )
    service: str = option("sluiceway", doc="Name of this gateway in the traces (`service.name`).")
    every: Duration = option(Duration(5 * SECOND), gt=0, doc="Longest time a span waits to be exported.")
    timeout: Duration = option(
        Duration(2 * SECOND), gt=0, doc="Time one request may take, and closing the stage may wait for the last one."
    )
    max_waiting: int = option(2048, ge=1, doc="Spans that may wait; the oldest go when there are more.")


@final
class Exporter:
    """
    Spans on their way to a collector.

    Args:
        config: Where to, how often, how many.
        send: Posts a batch; blocks, and returns whether it arrived.
        log: Told of batches that were lost.
    """

    def __init__(self, config: Otlp, send: Callable[[Sequence[Span]], bool], log: Any) -> None:
        self._config = config
        self._send = send
        self._log = log
        self._waiting: deque[Span] = deque()
        self._full = trio.Event()
        self._sending = trio.Lock()
        self.exported = 0
        self.lost = 0

    def put(self, span: Span) -> None:
        """Have a span exported soon. Never blocks: when too many wait, the oldest is lost and counted."""
        if len(self._waiting) >= self._config.max_waiting:
            self._waiting.popleft()
            self.lost += 1
        self._waiting.append(span)
        if len(self._waiting) >= min(MAX_BATCH, self._config.max_waiting):
            self._full.set()

    def figures(self) -> Iterable[Figure]:
        """What arrived and what did not."""
        yield Figure("trace_exported_spans_total", self.exported, "counter", "Spans that the collector took.")
        yield Figure("trace_lost_spans_total", self.lost, "counter", "Spans that were dropped, or not taken.")

    async def serve(self) -> None:
        """Export what comes, until cancelled."""
        while True:
            with trio.move_on_after(self._config.every):
                await self._full.wait()
            self._full = trio.Event()
            await self.flush()

    async def flush(self) -> None:
        """Export everything that waits, after what is under way; gives up when the collector does not take it."""
        async with self._sending:
            while self._waiting and await self._send_batch():
                pass

    async def _send_batch(self) -> bool:
        batch = [self._waiting.popleft() for _ in range(min(MAX_BATCH, len(self._waiting)))]
        arrived = False
        try:
            arrived = await trio.to_thread.run_sync(self._send, batch, abandon_on_cancel=True)
        finally:
            if arrived:
                self.exported += len(batch)
            else:
                self.lost += len(batch)
                self._log.warning("spans lost", count=len(batch), endpoint=self._config.endpoint)
        return arrived


@asynccontextmanager
async def open_exporter(config: Otlp, log: Any) -> AsyncIterator[Exporter]:
    """
    An exporter that works while the block runs; what waits at its end is flushed within `timeout`.

    Raises:
        LookupError: A header's secret cannot be read.
        ModuleNotFoundError: The extra is not installed; the text says how to install it.
    """
    headers = {name: secret.resolve() for name, secret in config.headers.items()}
    try:
        from sluiceway.pipeline.telemetry.otlp_sdk import Sender
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(MISSING, name=error.name) from error

    sender = await trio.to_thread.run_sync(
        partial(Sender, config.endpoint, headers, service=config.service, timeout_s=config.timeout)
    )
    exporter = Exporter(config, sender.send, log)
    try:
        async with open_background_nursery() as nursery:
            nursery.start_soon(exporter.serve)
            try:
                yield exporter
            finally:
                with farewell(config.timeout):
                    await exporter.flush()  # noqa: ASYNC102  # farewell is a bounded shield
    finally:
        sender.close()
