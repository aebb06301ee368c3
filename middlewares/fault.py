"""`fault`: make upstreams fail on purpose, to see what everything around them does."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from typing import final

from attrs import frozen

from sluiceway.pipeline.model.component import Context, Middleware, middleware
from sluiceway.pipeline.model.exchange import Exchange, Service
from sluiceway.pipeline.model.faults import Fault, FaultPlan
from sluiceway.pipeline.model.figures import Figure
from sluiceway.pipeline.model.options import option
from sluiceway.pipeline.model.order import Advice
from sluiceway.pipeline.model.suffering import suffer
from sluiceway.pipeline.model.when import When
from sluiceway.pipeline.protocol.mcp import Kind
from sluiceway.pipeline.protocol.messages import Reply


@final
@middleware("fault")
class FaultStage(Middleware):
    """
    Make what stands behind the stage slow, broken or silent, for some exchanges. For trials, never by default.

    Put it innermost, in the chain of a sink: then retries, breakers, time-outs and fallbacks further out act as they
    would if the server itself failed. Which exchanges are hit depends on the seed and on their order only.
    Notifications (`notifications/...`) pass: nobody would notice.

    Every exchange that is hit has the decision `harm`; `check` warns as long as the stage is in a chain.

    Raises:
        UpstreamFault: A fault says so.
    """

    @frozen(kw_only=True)
    class Config:
        """Options of `fault`."""

        faults: tuple[Fault, ...] = option(
            doc="What goes wrong, tried in order for each exchange: delays add up, the first effect counts.",
            example=[{"latency": "200ms", "jitter": "300ms"}, {"effect": "reset", "share": "5%"}],
        )
        seed: int | None = option(
            None, doc="Makes the same faults happen again, to the same exchanges in order; random if absent.", example=7
        )

    config: Config

    def __init__(self, config: Config, context: Context) -> None:
        super().__init__(config, context)
        rng = context.random if config.seed is None else random.Random(config.seed)  # noqa: S311  # chance, not secrets
        self._plan = FaultPlan(config.faults, rng)
        self._passed = 0

    @classmethod
    def advise(cls, config: Config, when: When | None, sinks: Sequence[str]) -> Iterable[Advice]:
        """It is on."""
        yield Advice(
            "fault/on",
            "warning",
            "makes upstreams fail on purpose",
            "clients get errors and wait although nothing is wrong",
            "remove it after the trial, or set enabled: false",
        )

    async def __call__(self, exchange: Exchange, call_next: Service) -> Reply:
        """Call the inner chain as well as the plan lets it."""
        if exchange.kind is Kind.NOTIFY:
            return await call_next(exchange)
        self._passed += 1
        return await suffer(self._plan, exchange, call_next, self.context.id)

    def figures(self) -> Iterator[Figure]:
        """How many came, and were hit."""
        yield Figure("fault_exchanges_total", self._passed, "counter", "Exchanges that a fault plan was asked about.")
        yield Figure("fault_harmed_total", self._plan.harmed, "counter", "Exchanges that a fault plan has harmed.")
