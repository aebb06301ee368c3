"""The engine on the mock clock, with components made of logs: who opened, served and closed, and when."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio

from sluiceway.pipeline.model.component import Component, Context, Middleware, Sink, Source
from sluiceway.pipeline.model.document import (
    Document,
    Limits,
    PipelineSpec,
    Run,
    SinkSpec,
    SourceSpec,
    StageSpec,
    StoreSpec,
)
from sluiceway.pipeline.model.exchange import Exchange, Service
from sluiceway.pipeline.model.session import Client
from sluiceway.pipeline.model.store import Store
from sluiceway.pipeline.protocol.errors import ComponentError
from sluiceway.pipeline.protocol.mcp import Era
from sluiceway.pipeline.protocol.messages import ErrorReply, Notification, Reply, Request, Result
from sluiceway.pipeline.runtime.engine import Engine

LOG: list[str] = []
CLIENT = Client(era=Era.MODERN, version="2026-07-28")


@attrs.frozen
class Behaviour:
    """What a component does wrong, and when."""

    fail_make: bool = False
    fail_open: bool = False
    hang_close: bool = False
    crash_after: float | None = None
    delay: float = 0.0
    label: str = ""


class Logged(Component):
    """Writes down its life."""

    def __init__(self, config: Behaviour, context: Context) -> None:
        super().__init__(config, context)
        if config.fail_make:
            raise ZeroDivisionError("a bug")

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        name = self.context.id.rpartition(".")[2] + self.config.label
        if self.config.fail_open:
            raise OSError(f"{name} cannot open")
        LOG.append(f"open {name}")
        async with trio.open_nursery() as nursery:
            if self.config.crash_after is not None:
                nursery.start_soon(self._crash, self.config.crash_after)
            try:
                yield
            finally:
                if self.config.hang_close:
                    await trio.sleep_forever()
                nursery.cancel_scope.cancel()
                LOG.append(f"close {name}")

    async def _crash(self, after: float) -> None:
        await trio.sleep(after)
        raise RuntimeError("boom")


class LoggedSink(Logged, Sink):
    Config = Behaviour
    name = "logged"

    async def __call__(self, exchange: Exchange) -> Reply:
        await trio.sleep(self.config.delay)
        if exchange.method == "subscriptions/listen":
            await exchange.draining.wait()
        return Result({"sink": self.config.label})


class LoggedStage(Logged, Middleware):
    Config = Behaviour
    name = "logged"

    async def __call__(self, exchange: Exchange, call_next: Service) -> Reply:
        reply = await call_next(exchange)
        assert isinstance(reply, Result)
        return Result({**reply.value, self.context.id.rpartition(".")[2]: self.config.label})


class LoggedStore(Logged, Store):
    Config = Behaviour
    name = "logged"


class LoggedSource(Logged, Source):
    Config = Behaviour
    name = "logged"
    handle: Any = None
    accepting = True
    delivery = 0.0

    async def delivered(self) -> None:
        await super().delivered()
        await trio.sleep(self.delivery)

    async def serve(self, handle: Any) -> None:
        LOG.append("serve")
        self.handle = handle
        await trio.sleep_forever()

    def stop_accepting(self) -> None:
        self.accepting = False


def document(
    run: Run | None = None, limits: Limits | None = None, required: bool = True, **behaviours: Behaviour
) -> Document:
    """store s, sink k with stage i in front, pipeline main with stages a and b, source p."""

    def of(name: str) -> Behaviour:
        return behaviours.get(name, Behaviour())

    stage = lambda name: StageSpec(id=name, cls=LoggedStage, config=of(name))  # noqa: E731
    return Document(
        stores={"s": StoreSpec(id="s", cls=LoggedStore, config=of("s"))},
        sinks={"k": SinkSpec(id="k", cls=LoggedSink, config=of("k"), chain=(stage("i"),), required=required)},
        pipelines={
            "main": PipelineSpec(id="main", chain=(stage("a"), stage("b")), sink="k", limits=limits or Limits())
        },
        sources={"p": SourceSpec(id="p", cls=LoggedSource, config=of("p"), pipeline="main")},
        run=run or Run(),
    )


async def emit(_: Notification) -> None:
    """Nobody reads notifications here."""


async def call(engine: Engine, method: str = "tools/call", **params: Any) -> Reply | None:
    source = engine.sources["p"]
    assert isinstance(source, LoggedSource)
    await trio.testing.wait_all_tasks_blocked()
    return await source.handle(Request(1, method, {"name": "x", **params}), client=CLIENT, emit=emit).run()


@pytest.fixture(autouse=True)
def _fresh_log() -> None:
    LOG.clear()


OPENED = ["open s", "open k", "open i", "open b", "open a", "open p"]
CLOSED = ["close p", "close a", "close b", "close i", "close k", "close s"]


async def test_components_open_inside_out_and_close_in_reverse(autojump_clock: Any) -> None:
    """Stores, sinks, stages, sources; then backwards."""
    engine = Engine(document())
    async with engine.running():
        assert await call(engine) == Result({"sink": "", "i": "", "a": "", "b": ""})
        assert engine.ready

    assert [*OPENED, "serve", *CLOSED] == LOG
    assert not engine.board.rows()


async def test_a_failed_start_closes_what_was_open_and_names_the_culprit(autojump_clock: Any) -> None:
    """Newest first, and the original error is the cause."""
    with pytest.raises(ComponentError, match=r"pipelines.main.b: open: b cannot open") as caught:
        async with Engine(document(b=Behaviour(fail_open=True))).running():
            pytest.fail("must not get here")

    assert ["open s", "open k", "open i", "close i", "close k", "close s"] == LOG
    assert isinstance(caught.value.__cause__, OSError)


async def test_a_component_that_hangs_at_stop_is_cancelled_at_the_stop_timeout(autojump_clock: Any) -> None:
    """The others still close, in order."""
    async with Engine(document(run=Run(stop_timeout=3.0), i=Behaviour(hang_close=True))).running():
        start = trio.current_time()

    assert trio.current_time() - start == 3.0
    assert ["close p", "close a", "close b", "close k", "close s"] == LOG[-5:]


async def test_a_crash_ends_the_engine_with_that_error(autojump_clock: Any) -> None:
    """The body is cancelled, everything closes, the error comes out."""
    engine = Engine(document(k=Behaviour(crash_after=2)))
    with pytest.raises(ComponentError, match=r"sinks.k: run: RuntimeError: boom"):
        async with engine.running():
            await trio.sleep_forever()

    assert trio.current_time() == 2
    assert engine.crashed.is_set()
    assert ["close p", "close a", "close b", "close i", "close s"] == [
        line for line in LOG if "close" in line and line != "close k"
    ]


async def test_a_crashed_sink_is_reopened_when_it_may_be(autojump_clock: Any) -> None:
    """Meanwhile exchanges get UpstreamUnavailable, and the status says why."""
    engine = Engine(document(run=Run(on_crash="restart"), k=Behaviour(crash_after=2)), seed=1)
    async with engine.running():
        await trio.sleep(2.1)
        reply = await call(engine)
        state = next(row for row in engine.board.rows() if row["id"] == "sinks.k")
        ready = engine.ready
        await trio.sleep(1)
        again = await call(engine)

    assert isinstance(reply, ErrorReply)
    assert reply.data["reason"] == "upstream_unavailable"
    assert ("failed", "boom", False) == (state["state"], state["reason"], ready)
    assert isinstance(again, Result)


async def test_an_optional_sink_that_cannot_open_does_not_stop_the_start(autojump_clock: Any) -> None:
    """The gateway is ready without it."""
    engine = Engine(document(required=False, k=Behaviour(fail_open=True)))
    async with engine.running():
        assert engine.ready
        assert isinstance(await call(engine), ErrorReply)


async def test_a_hard_cancel_closes_everything_in_order(autojump_clock: Any) -> None:
    """An outside cancel does not reach component tasks before the supervisor has closed them."""
    with trio.move_on_after(1):
        async with Engine(document()).running():
            await trio.sleep_forever()

    assert [*OPENED, "serve", *CLOSED] == LOG


async def test_a_cancel_while_opening_closes_what_was_open(autojump_clock: Any) -> None:
    """Nothing hangs, nothing stays open."""

    class SlowOpen(LoggedStage):
        @asynccontextmanager
        async def open(self) -> AsyncIterator[None]:
            await trio.sleep(10)
            yield

    doc = document()
    slow = attrs.evolve(doc.pipelines["main"].chain[0], cls=SlowOpen)
    doc = attrs.evolve(doc, pipelines={"main": attrs.evolve(doc.pipelines["main"], chain=(slow,))})
    with trio.move_on_after(1) as scope:
        async with Engine(doc).running():
            pytest.fail("must not get here")

    assert scope.cancelled_caught
    assert ["open s", "open k", "open i", "close i", "close k", "close s"] == LOG


async def test_drain_waits_for_exchanges_and_ends_listeners(autojump_clock: Any) -> None:
    """In-flight work finishes, LISTEN ends at once, new work is refused."""
    engine = Engine(document(k=Behaviour(delay=5)))
    replies: list[Any] = []

    async def run(method: str) -> None:
        replies.append(await call(engine, method))

    async with engine.running(), trio.open_nursery() as nursery:
        nursery.start_soon(run, "tools/call")
        nursery.start_soon(run, "subscriptions/listen")
        await trio.sleep(1)
        start = trio.current_time()
        nursery.start_soon(engine.drain)
        await trio.sleep(0.1)
        refused = await call(engine)
        await trio.sleep(4.9)

    assert [Result, Result] == [type(reply) for reply in replies]
    assert isinstance(refused, ErrorReply)
    assert refused.code == 50300
    assert trio.current_time() - start == pytest.approx(5)


async def test_drain_cancels_what_takes_too_long(autojump_clock: Any) -> None:
    """After `drain_timeout` the rest is cancelled and told so."""
    engine = Engine(document(run=Run(drain_timeout=2.0), k=Behaviour(delay=500), p=Behaviour()), seed=1)
    replies: list[Any] = []

    async def run() -> None:
        replies.append(await call(engine))

    async with engine.running(), trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await trio.sleep(1)
        assert await engine.drain() == 1

    assert trio.current_time() == 3
    assert replies[0].data["reason"] == "draining"


@pytest.mark.parametrize(("takes", "drained"), [(3.0, 3.0), (50.0, 10.0)])
async def test_drain_waits_until_the_last_answers_have_left(autojump_clock: Any, takes: float, drained: float) -> None:
    """As long as draining may take at all; or the answer to a client that reads slowly would be cut off."""
    engine = Engine(document(run=Run(drain_timeout=10.0)))
    async with engine.running():
        source = engine.sources["p"]
        assert isinstance(source, LoggedSource)
        source.delivery = takes
        start = trio.current_time()
        assert await engine.drain() == 0

        assert trio.current_time() - start == drained


async def test_replacing_a_stage_under_load_loses_nothing(autojump_clock: Any) -> None:
    """The old stage closes only when its last exchange has left; new ones go through the new stage."""
    engine = Engine(document(k=Behaviour(delay=3), a=Behaviour(label="old")))
    replies: list[Any] = []

    async def run() -> None:
        replies.append(await call(engine))

    async with engine.running(), trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await trio.sleep(1)
        from sluiceway.pipeline.model.component import Context

        new = LoggedStage(Behaviour(label="new"), Context(id="pipelines.main.a"))
        nursery.start_soon(engine.replace, "main", "a", new)
        await trio.sleep(0.5)
        nursery.start_soon(run)
        assert "close aold" not in LOG
        await trio.sleep(2)
        assert "close aold" in LOG

    assert ["old", "new"] == [reply.value["a"] for reply in replies]
    assert LOG.index("open anew") < LOG.index("close aold")


async def test_reload_switches_drains_and_keeps_unchanged_stores(autojump_clock: Any) -> None:
    """A full new generation beside the old one; the store stays open throughout."""
    engine = Engine(document(k=Behaviour(delay=3, label="1")))
    replies: list[Any] = []

    async def run() -> None:
        replies.append(await call(engine))

    async with engine.running(), trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await trio.sleep(1)
        notes = await engine.reload(document(k=Behaviour(delay=3, label="2"), p=Behaviour(delay=1)))
        assert "close k1" in LOG
        nursery.start_soon(run)
        await trio.sleep(5)
        assert engine.status()["generation"] == 2
        assert engine.ready

    assert ["1", "2"] == [reply.value["sink"] for reply in replies]
    assert ["source p has other options; restart to apply them"] == notes
    assert 1 == LOG.count("open s")


async def test_a_reload_that_cannot_open_leaves_everything_as_it_was(autojump_clock: Any) -> None:
    """Nothing is half applied."""
    engine = Engine(document(k=Behaviour(label="1")))
    async with engine.running():
        with pytest.raises(ComponentError):
            await engine.reload(document(k=Behaviour(label="2"), a=Behaviour(fail_open=True)))
        reply = await call(engine)
        assert engine.ready

    assert isinstance(reply, Result)
    assert reply.value["sink"] == "1"
    assert LOG.count("close k2") == 1


async def test_a_reload_whose_component_cannot_be_made_leaves_everything_as_it_was(autojump_clock: Any) -> None:
    """Whatever its constructor raises: a bug in a plugin is no reason to end a gateway that serves."""
    engine = Engine(document(k=Behaviour(label="1")))
    async with engine.running():
        with pytest.raises(ComponentError, match=r"pipelines\.main\.a: open: ZeroDivisionError: a bug"):
            await engine.reload(document(k=Behaviour(label="2"), a=Behaviour(fail_make=True)))
        reply = await call(engine)

    assert isinstance(reply, Result)
    assert reply.value["sink"] == "1"
