"""Which sinks live on through a reload, and which are made anew."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from sluiceway.pipeline.model.component import Middleware, Sink
from sluiceway.pipeline.model.document import Document, PipelineSpec, Run, SinkSpec, StageSpec, StoreSpec
from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.options import Secret
from sluiceway.pipeline.model.session import Client
from sluiceway.pipeline.model.store import Store
from sluiceway.pipeline.protocol.mcp import Era
from sluiceway.pipeline.protocol.messages import Notification, Reply, Request, Result
from sluiceway.pipeline.runtime.engine import Engine

CLIENT = Client(era=Era.MODERN, version="2026-07-28")


@attrs.frozen
class Options:
    """Of the sinks here."""

    label: str = ""
    store: str | None = None
    to: str | None = None
    secret: Secret | None = None
    crash_after: float | None = None


class Counted(Sink):
    """Answers with the number of the instance that served, or what the sink behind it says."""

    Config = Options
    opened = 0
    closed = 0

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        Counted.opened += 1
        self.number = Counted.opened
        self.next = None if self.config.to is None else self.context.sink(self.config.to)
        if self.config.store is not None:
            self.context.store(self.config.store)
        async with trio.open_nursery() as nursery:
            if self.config.crash_after is not None:
                nursery.start_soon(self._crash, self.config.crash_after)
            yield
            nursery.cancel_scope.cancel()
        Counted.closed += 1

    async def _crash(self, after: float) -> None:
        await trio.sleep(after)
        raise RuntimeError("boom")

    async def __call__(self, exchange: Exchange) -> Reply:
        number = self.number
        await trio.sleep(3)
        behind = await self.next(exchange) if self.next is not None else Result()
        assert isinstance(behind, Result)
        return Result({**behind.value, self.context.id: number})


class Memory(Store):
    """A store to refer to."""

    Config = Options


class Plain(Middleware):
    """A stage that does nothing."""

    Config = Options


def document(*, run: Run | None = None, store: Options | None = None, stage: str = "", **sinks: Options) -> Document:
    """Sinks by id, the first of which the pipeline feeds, through one stage."""
    declared = {
        key: SinkSpec(id=key, cls=Counted, config=config, required=config.crash_after is None)
        for key, config in sinks.items()
    }
    chain = (StageSpec(id="s", cls=Plain, config=Options(label=stage)),)
    ordered = {
        key: attrs.evolve(spec, sends_to=(spec.config.to,) if spec.config.to else ()) for key, spec in declared.items()
    }
    return Document(
        pipelines={"main": PipelineSpec(id="main", chain=chain, sink=next(iter(sinks)))},
        sinks=ordered,
        stores={"kept": StoreSpec(id="kept", cls=Memory, config=store or Options())},
        run=run or Run(),
    )


@pytest.fixture(autouse=True)
def _counters() -> None:
    Counted.opened = Counted.closed = 0


async def ask(engine: Engine) -> Any:
    """The sinks that served one request."""

    async def emit(_: Notification) -> None:
        await trio.lowlevel.checkpoint()

    reply = (
        await engine.pipelines["main"].handle(Request(1, "tools/call", {"name": "x"}), client=CLIENT, emit=emit).run()
    )
    assert isinstance(reply, Result)
    return dict(reply.value)


async def test_a_sink_lives_on_when_only_what_is_around_it_changed(autojump_clock: Any) -> None:
    """Chains are new; what the sink holds is not, and a request in flight does not notice."""
    engine = Engine(document(a=Options()))
    replies: list[Any] = []

    async def run() -> None:
        replies.append(await ask(engine))

    async with engine.running(), trio.open_nursery() as nursery:
        before = engine.sinks["a"]
        nursery.start_soon(run)
        await trio.sleep(1)
        nursery.start_soon(engine.reload, document(stage="other", a=Options()))
        await trio.sleep(1)
        nursery.start_soon(run)
        await trio.sleep(10)
        assert engine.sinks["a"] is before
        assert engine.status()["generation"] == 2
        assert engine.ready
        assert Counted.closed == 0
        rows = [row["id"] for row in engine.status()["components"]]

    assert [{"sinks.a": 1}, {"sinks.a": 1}] == replies
    assert rows.count("sinks.a") == 1
    assert (Counted.opened, Counted.closed) == (1, 1)


async def test_other_options_are_another_sink(autojump_clock: Any) -> None:
    """The old one closes when its exchanges have ended."""
    engine = Engine(document(a=Options()))
    async with engine.running():
        await engine.reload(document(a=Options(label="x")))
        assert {"sinks.a": 2} == await ask(engine)
        assert Counted.closed == 1


async def test_a_sink_that_sends_to_others_is_made_anew_and_they_are_not(autojump_clock: Any) -> None:
    """It holds the services of its generation, chains included."""
    engine = Engine(document(r=Options(to="a"), a=Options()))
    async with engine.running():
        assert {"sinks.a": 1, "sinks.r": 2} == await ask(engine)
        await engine.reload(document(stage="other", r=Options(to="a"), a=Options()))
        assert {"sinks.a": 1, "sinks.r": 3} == await ask(engine)
        await engine.reload(document(r=Options(to="a"), a=Options()))
        assert {"sinks.a": 1, "sinks.r": 4} == await ask(engine)

    assert (Counted.opened, Counted.closed) == (4, 4)


@pytest.mark.parametrize("changed", [False, True])
async def test_a_sink_goes_with_the_store_it_uses(autojump_clock: Any, changed: bool) -> None:
    """It must not write to a store that is closed."""
    sink = Options(store="kept")
    engine = Engine(document(a=sink))
    async with engine.running():
        await engine.reload(document(store=Options(label="x") if changed else None, a=sink))
        assert {"sinks.a": 2 if changed else 1} == await ask(engine)


async def test_a_secret_that_changed_takes_effect(autojump_clock: Any, tmp_path: Path) -> None:
    """Though the options say the same: the next reload makes the sink anew, the one after that does not."""
    file = tmp_path / "token"
    file.write_text("old")
    sink = Options(secret=Secret(from_file=file))
    engine = Engine(document(a=sink))
    async with engine.running():
        await engine.reload(document(a=sink))
        assert {"sinks.a": 1} == await ask(engine)
        file.write_text("new")
        await engine.reload(document(a=sink))
        assert {"sinks.a": 2} == await ask(engine)
        await engine.reload(document(a=sink))
        assert {"sinks.a": 2} == await ask(engine)


async def test_another_crash_policy_is_another_host(autojump_clock: Any) -> None:
    """Whether a sink is reopened belongs to how it is hosted."""
    engine = Engine(document(a=Options()))
    async with engine.running():
        await engine.reload(document(run=Run(on_crash="restart"), a=Options()))
        assert {"sinks.a": 2} == await ask(engine)


async def test_a_sink_that_is_down_is_opened_by_the_reload(autojump_clock: Any) -> None:
    """Nobody wants to wait for its back-off then."""
    broken = Options(crash_after=0.1)
    engine = Engine(document(a=broken))
    async with engine.running():
        await trio.sleep(0.11)
        assert not engine._generation.sinks["a"].is_open
        await engine.reload(document(a=broken))
        assert engine._generation.sinks["a"].is_open


async def test_a_reload_that_cannot_open_leaves_kept_sinks_alone(autojump_clock: Any) -> None:
    """They belong to the generation that goes on."""
    engine = Engine(document(a=Options()))
    async with engine.running():
        with pytest.raises(Exception, match="no store named"):
            await engine.reload(document(a=Options(), b=Options(store="none")))
        assert {"sinks.a": 1} == await ask(engine)
        assert Counted.closed == 0


async def test_a_sink_that_is_no_longer_declared_closes(autojump_clock: Any) -> None:
    """And one that comes back later is another one."""
    engine = Engine(document(a=Options(), b=Options()))
    async with engine.running():
        await engine.reload(document(a=Options()))
        assert Counted.closed == 1
        await engine.reload(document(b=Options(), a=Options()))
        assert {"sinks.b": 3} == await ask(engine)


CHANGES = st.lists(
    st.fixed_dictionaries(
        {
            "stage": st.sampled_from(["a", "b"]),
            "store": st.sampled_from(["a", "b"]),
            "plain": st.sampled_from(["", "x"]),
            "stored": st.sampled_from(["", "x", None]),
        }
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=40, deadline=None)
@given(changes=CHANGES)
def test_a_sink_is_kept_exactly_when_what_it_is_made_of_is_the_same(changes: list[dict[str, Any]]) -> None:
    """Law: through any sequence of reloads under load, no call fails, and what was opened is closed, once."""

    def made(change: dict[str, Any]) -> Document:
        sinks = {"r": Options(to="p"), "p": Options(label=change["plain"])}
        if change["stored"] is not None:
            sinks["s"] = Options(label=change["stored"], store="kept")
        return document(stage=change["stage"], store=Options(label=change["store"]), **sinks)

    def essence(change: dict[str, Any]) -> dict[str, Any]:
        stored = None if change["stored"] is None else (change["stored"], change["store"])
        return {"p": change["plain"], "s": stored}

    async def main() -> None:
        Counted.opened = Counted.closed = 0
        engine, before = Engine(made(changes[0])), changes[0]
        calls = [0]

        async def load() -> None:
            while True:
                assert {"sinks.p", "sinks.r"} == (await ask(engine)).keys()
                calls[0] += 1

        async with engine.running(), trio.open_nursery() as nursery:
            for offset in range(3):
                nursery.start_soon(load)
                await trio.sleep(offset)
            for change in changes[1:]:
                sinks = engine.sinks
                await engine.reload(made(change))
                for name in ("p", "s"):
                    same = essence(before)[name] == essence(change)[name]
                    assert (sinks.get(name) is engine.sinks.get(name)) is same
                before = change
            await trio.sleep(10)
            nursery.cancel_scope.cancel()
        assert calls[0]
        assert Counted.opened == Counted.closed

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
