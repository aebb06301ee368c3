"""What every test of a stage needs: an exchange, a context, a log to look at, and a chain around the stage."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping
from itertools import count
from typing import Any

import pytest
import structlog
from attrs import define, field
from structlog.testing import LogCapture

from sluiceway.pipeline.model.component import Context, Middleware
from sluiceway.pipeline.model.exchange import Exchange, Link, Service
from sluiceway.pipeline.model.session import ANONYMOUS, Caller, Client
from sluiceway.pipeline.protocol.mcp import Era, Kind, method_of
from sluiceway.pipeline.protocol.messages import EMPTY, Json, Notification, Reply, Request, Result
from sluiceway.pipeline.runtime.chain import Stage, compile_chain


@define(eq=False)
class Bench:
    """Makes exchanges and sends them through stages; keeps what the client got and what was logged."""

    sent: list[Notification] = field(factory=list)
    """Notifications that reached the client."""
    logged: LogCapture = field(factory=LogCapture)
    """Log lines, context variables included."""

    def context(self, stage_id: str = "stage", *, level: int = 10, seed: int = 0) -> Context:
        """A context with a log at `level`, a seeded random source and ids `id-1`, `id-2`, ..."""
        ids = count(1)
        log = structlog.wrap_logger(
            None,
            processors=[structlog.contextvars.merge_contextvars, self.logged],
            wrapper_class=structlog.make_filtering_bound_logger(level),
        )
        return Context(id=stage_id, log=log, random=random.Random(seed), new_id=lambda: f"id-{next(ids)}")

    def exchange(
        self,
        method: str = "tools/call",
        params: Mapping[str, Json] | None = None,
        *,
        headers: Mapping[str, str] = EMPTY,
        caller: Caller = ANONYMOUS,
    ) -> Exchange:
        """A request of `method`; of the tool `echo` if nothing else is said."""
        if params is None:
            params = {"name": "echo", "arguments": {}} if method == "tools/call" else {}
        kind = method_of(method).kind
        return Exchange(
            request=Notification(method, params) if kind is Kind.NOTIFY else Request(1, method, params),
            kind=kind,
            client=Client(
                era=Era.MODERN,
                version="2026-07-28",
                headers=headers,
                transport="http" if headers else "memory",
                address="192.0.2.1",
            ),
            caller=caller,
            link=Link(self._emit),
        )

    async def _emit(self, notification: Notification) -> None:
        self.sent.append(notification)

    def service(self, sink: Service, *stages: Middleware) -> Service:
        """Stages around a sink, with their way back, as the engine links them."""
        chain = compile_chain([Stage(stage.context.id, stage) for stage in stages], sink)

        def serve(exchange: Exchange) -> Awaitable[Reply]:
            exchange.way_back = chain.relay
            return chain.service(exchange)

        return serve

    def events(self) -> list[str]:
        """The events that were logged, in order."""
        return [entry["event"] for entry in self.logged.entries]

    def lines(self) -> list[Mapping[str, Any]]:
        """The log lines, in order."""
        return list(self.logged.entries)


@pytest.fixture
def bench() -> Bench:
    """A fresh bench."""
    return Bench()


async def _answer(exchange: Exchange) -> Reply:
    return Result({"answered": exchange.method})


@pytest.fixture
def answer() -> Callable[[Exchange], Any]:
    """A sink that answers everything at once."""
    return _answer
