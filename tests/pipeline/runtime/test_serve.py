"""The process: real signals, in this process, around fake components on the real clock."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from sluiceway.pipeline.model.component import Middleware, Sink, Source, State
from sluiceway.pipeline.model.document import Document, PipelineSpec, Run, SinkSpec, SourceSpec, StageSpec
from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.session import Client
from sluiceway.pipeline.protocol.errors import SluicewayError
from sluiceway.pipeline.protocol.mcp import Era
from sluiceway.pipeline.protocol.messages import Notification, Reply, Request, Result
from sluiceway.pipeline.runtime import serve as serve_module
from sluiceway.pipeline.runtime.engine import Engine
from sluiceway.pipeline.runtime.memory import THRESHOLDS
from sluiceway.pipeline.runtime.serve import addresses, serve


@attrs.frozen
class Options:
    """What a component does wrong."""

    fails: bool = False
    hangs: bool = False
    crashes: bool = False
    hangs_up: bool = False


class HeldSink(Sink):
    """Answers when told to."""

    Config = Options
    name = "held"
    go: trio.Event

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        if self.config.fails:
            raise OSError("no such server")
        if self.config.hangs:
            await trio.sleep_forever()
        self.go = trio.Event()
        async with trio.open_nursery() as nursery:
            if self.config.crashes:
                nursery.start_soon(self._crash)
            yield
            nursery.cancel_scope.cancel()

    async def _crash(self) -> None:
        await trio.lowlevel.checkpoint()
        raise RuntimeError("boom")

    async def __call__(self, exchange: Exchange) -> Reply:
        await self.go.wait()
        return Result({})


class QuietSource(Source):
    """Takes what the test gives it."""

    Config = Options
    name = "quiet"
    addresses = ("memory:1",)
    ends = True
    handle: Any = None

    async def serve(self, handle: Any) -> None:
        self.handle = handle
        if not self.config.hangs_up:
            await trio.sleep_forever()


class Mark(Middleware):
    Config = Options
    name = "mark"


def document(
    sink: Options = Options(), source: Options = Options(), files: tuple[Path, ...] = (), **run: Any
) -> Document:
    return Document(
        sinks={"k": SinkSpec(id="k", cls=HeldSink, config=sink)},
        pipelines={"main": PipelineSpec(id="main", sink="k", chain=(StageSpec(id="m", cls=Mark, config=Options()),))},
        sources={"p": SourceSpec(id="p", cls=QuietSource, config=source, pipeline="main")},
        run=Run(**run),
        files=files,
    )


async def _emit(_: Notification) -> None:
    """Nobody listens."""


class Running:
    """A gateway served in the background of a test."""

    def __init__(self) -> None:
        self.engine: Engine | None = None
        self.code: int | None = None
        self.ready = trio.Event()
        self.states: list[str] = []

    async def serve(self, load: Callable[[], Document], **options: Any) -> None:
        self.code = await serve(load, ready=self._on_ready, **options)

    def _on_ready(self, engine: Engine) -> None:
        self.engine = engine
        self.ready.set()

    async def call(self) -> Reply | None:
        assert self.engine is not None
        source = self.engine.sources["p"]
        assert isinstance(source, QuietSource)
        await trio.testing.wait_all_tasks_blocked()
        client = Client(era=Era.MODERN, version="2026-07-28")
        return await source.handle(Request(1, "tools/call", {"name": "x"}), client=client, emit=_emit).run()

    def answer(self) -> None:
        assert self.engine is not None
        sink = self.engine.sinks["k"]
        assert isinstance(sink, HeldSink)
        sink.go.set()


@asynccontextmanager
async def with_a_call(running: Running) -> AsyncIterator[None]:
    """It serves, and has a call under way; it has ended when the block is left."""
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(running.serve, document)
            await running.ready.wait()
            nursery.start_soon(running.call)
            await trio.testing.wait_all_tasks_blocked()
            yield


async def test_what_is_there_is_put_aside_from_the_collector_while_it_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once it is ready, and again for a configuration that takes its place; afterwards nothing is aside."""
    running, settled = Running(), []
    monkeypatch.setattr(serve_module, "settle", lambda: settled.append(running.ready.is_set()))
    thresholds = gc.get_threshold()
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(running.serve, document)
            await running.ready.wait()
            inside = gc.get_threshold()
            os.kill(os.getpid(), signal.SIGHUP)
            while len(settled) < 2:  # noqa: ASYNC110  # nobody tells of a reload
                await trio.sleep(0.005)
            os.kill(os.getpid(), signal.SIGTERM)

    assert settled == [False, True]
    assert inside == THRESHOLDS
    assert gc.get_threshold() == thresholds


async def test_sigterm_drains_and_exits_with_0() -> None:
    """The call in flight gets its answer."""
    running, replies = Running(), []

    async def call() -> None:
        replies.append(await running.call())

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(running.serve, document)
            await running.ready.wait()
            nursery.start_soon(call)
            await trio.testing.wait_all_tasks_blocked()
            os.kill(os.getpid(), signal.SIGTERM)
            await trio.testing.wait_all_tasks_blocked(0.02)
            assert running.code is None
            running.answer()

    assert [Result({})] == replies
    assert running.code == 0


async def test_a_second_signal_stops_at_once() -> None:
    """Whatever is still in flight."""
    running = Running()
    async with with_a_call(running):
        os.kill(os.getpid(), signal.SIGINT)
        await trio.testing.wait_all_tasks_blocked(0.02)
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)

    assert running.code == 130


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
async def test_a_signal_during_the_start_stops_at_once(number: signal.Signals, code: int) -> None:
    """What would end a gateway in good order ends one that is not ready with the same code."""
    running = Running()
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(running.serve, lambda: document(sink=Options(hangs=True)))
            await trio.testing.wait_all_tasks_blocked(0.02)
            os.kill(os.getpid(), number)

    assert running.code == code


async def test_a_gateway_that_is_not_ready_any_more_drains_all_the_same() -> None:
    """An upstream that has failed does not cost the calls at the others their time."""
    running = Running()
    async with with_a_call(running):
        assert running.engine is not None
        running.engine.sinks["k"].context.report(State.FAILED, "gone")
        os.kill(os.getpid(), signal.SIGTERM)
        await trio.testing.wait_all_tasks_blocked(0.02)
        assert (running.code, running.engine.ready) == (None, False)
        running.answer()

    assert running.code == 0


async def test_a_network_source_that_ends_by_itself_is_a_crash() -> None:
    """Not a drain that went well: its clients cannot connect any more."""

    class Deaf(QuietSource):
        ends = False

    def load() -> Document:
        good = document(source=Options(hangs_up=True))
        return attrs.evolve(good, sources={"p": attrs.evolve(good.sources["p"], cls=Deaf)})

    running = Running()
    with trio.fail_after(10):
        await running.serve(load)

    assert running.code == 4


async def test_the_end_of_the_only_client_ends_the_process() -> None:
    """A stdio client that hangs up."""
    running = Running()
    with trio.fail_after(10):
        await running.serve(lambda: document(source=Options(hangs_up=True)))

    assert running.code == 0


async def test_a_dry_run_opens_and_closes_everything() -> None:
    """And reports ready in between."""
    running = Running()
    with trio.fail_after(10):
        await running.serve(document, dry_run=True)

    assert running.code == 0
    assert running.engine is not None
    assert {"p": ["memory:1"]} == addresses(running.engine)


async def test_what_cannot_start_exits_with_3(capsys: pytest.CaptureFixture[str]) -> None:
    """And the log names the component and the reason."""
    running = Running()
    with trio.fail_after(10):
        await running.serve(lambda: document(Options(fails=True)))

    assert running.code == 3


async def test_what_crashes_exits_with_4() -> None:
    """When it may not be reopened."""
    running = Running()
    with trio.fail_after(10):
        await running.serve(lambda: document(Options(crashes=True)))

    assert running.code == 4


async def test_sighup_loads_again_and_a_bad_file_changes_nothing() -> None:
    """Nothing is half applied."""
    running = Running()
    good = [document(), document(drain_timeout=3.0)]

    def load() -> Document:
        if not good:
            raise SluicewayError("gateway.yaml:1:1: error: broken")
        return good.pop(0)

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(running.serve, load)
            await running.ready.wait()
            assert running.engine is not None
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGHUP)
                await trio.testing.wait_all_tasks_blocked(0.05)
            assert running.engine.status()["generation"] == 2
            assert running.engine.ready
            os.kill(os.getpid(), signal.SIGTERM)

    assert running.code == 0


async def test_a_changed_file_is_loaded_again(tmp_path: Path) -> None:
    """Also when it is replaced atomically, as editors do; a touch without a change does nothing."""
    running = Running()
    file = tmp_path / "gateway.yaml"
    file.write_text("one")

    def load() -> Document:
        return attrs.evolve(document(files=(file,)), digest=sha256(b"\0" + file.read_bytes()).hexdigest())

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:

            async def go() -> None:
                await running.serve(load, watch=True)

            nursery.start_soon(go)
            await running.ready.wait()
            engine = running.engine
            assert engine is not None
            for generation, text in ((2, "two"), (3, "three")):
                (tmp_path / "new").write_text(text)
                (tmp_path / "new").replace(file)
                while engine.status()["generation"] < generation:  # noqa: ASYNC110  # it tells nobody but the log
                    await trio.sleep(0.02)
            os.kill(os.getpid(), signal.SIGTERM)

    assert running.code == 0


async def test_a_file_that_came_before_the_watcher_is_seen(tmp_path: Path) -> None:
    """Between loading and watching nothing is missed: neither a change nor a new file that a glob matches."""
    running, loads = Running(), 0
    (tmp_path / "sinks").mkdir()

    def load() -> Document:
        nonlocal loads
        loads += 1
        if loads == 1:  # somebody is quick
            (tmp_path / "sinks/a.yaml").write_text("a")
            return attrs.evolve(document(), includes=(f"{tmp_path}/sinks/*.yaml",), digest=sha256().hexdigest())
        return attrs.evolve(document(files=(tmp_path / "sinks/a.yaml",)), digest=sha256(b"\0a").hexdigest())

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:

            async def go() -> None:
                await running.serve(load, watch=True)

            nursery.start_soon(go)
            await running.ready.wait()
            while loads < 2:  # noqa: ASYNC110  # it tells nobody but the log
                await trio.sleep(0.02)
            os.kill(os.getpid(), signal.SIGTERM)

    assert running.code == 0


async def test_the_first_load_may_fail_loudly() -> None:
    """There is nothing to fall back to."""

    def load() -> Document:
        raise SluicewayError("broken")

    with pytest.raises(SluicewayError, match="broken"):
        await serve(load)
