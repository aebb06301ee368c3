"""
A whole gateway inside a test: real configuration, real engine, real stages, fakes at both ends.

Sources are replaced by fakes that listen to nobody, sinks by whatever the test says, by id. On the mock clock
(`autojump_clock`) everything that has to do with time takes none.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, final

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from ..config import from_data, load
from ..model.component import Component, ComponentKind, Middleware, Sink, Source
from ..model.document import Document, Limits, PipelineSpec, SinkSpec, SourceSpec, StageSpec
from ..model.exchange import Exchange, Service
from ..model.registry import Registry
from ..model.session import ANONYMOUS, Asker, Caller, Client
from ..model.store import Store
from ..protocol.messages import EMPTY, ErrorReply, Json, Notification, Reply, Request
from ..runtime.edges import Edges
from ..runtime.engine import Engine
from ..runtime.nursery import unwrap_single
from .configs import make_config
from .exchanges import MODERN_CLIENT
from .fakes import FakeSink, FakeSource
from .in_flight import InFlight, StageRun
from .leaks import Leak, leak_check

StageLike = Middleware | type[Middleware] | tuple[type[Middleware], Any]
"""A stage for `from_stages`: made already, a class with its defaults, or a class and its config."""

VIRTUAL_BOUND_S: Final = 30 * 86_400.0
"""How long a test may take on a mock clock, in virtual seconds."""
REAL_BOUND_S: Final = 30.0
"""How long a test may take on the real clock."""
_LOG_SIZE: Final = 10_000


@final
class PipelineHarness:
    """
    A gateway to call. Make one with `from_yaml`, `from_data`, `from_stages` or `empty`, and use it in `async with`.

    Leaving the block ends what is in flight, closes the gateway and raises `Leak` if anything stays behind: a task, a
    descriptor, a deadline, a place in a pipeline. Randomness and ids are seeded, so every run is the same. A block
    that takes longer than 30 days of a mock clock, or 30 s of the real one, is ended with `trio.TooSlowError`.

    Args:
        document: The configuration.
        sinks: Used instead of the declared ones, by id.
        sources: Likewise; a declared source that is not named here becomes a `FakeSource`.
        stages: Likewise, by stage id.
        stores: Likewise, by id.
        seed: Of `context.random` and `context.new_id`.
        now: The date as components see it, in seconds since 1970.
        edges: What stands at the gateway's edges: a recorder, a player.

    Raises:
        ValueError: An id that nothing in the configuration has.
    """

    def __init__(
        self,
        document: Document,
        *,
        sinks: Mapping[str, Sink] | None = None,
        sources: Mapping[str, Source] | None = None,
        stages: Mapping[str, Middleware] | None = None,
        stores: Mapping[str, Store] | None = None,
        seed: int = 0,
        now: Callable[[], float] = time.time,
        edges: Edges | None = None,
    ) -> None:
        chains = [p.chain for p in document.pipelines.values()] + [s.chain for s in document.sinks.values()]
        overrides: dict[tuple[ComponentKind, str], Component] = {}
        for kind, given, known in (
            (ComponentKind.SINK, sinks, list(document.sinks)),
            (ComponentKind.SOURCE, sources, list(document.sources)),
            (ComponentKind.STORE, stores, list(document.stores)),
            (ComponentKind.MIDDLEWARE, stages, [stage.id for chain in chains for stage in chain]),
        ):
            overrides.update(_by_id(kind, given or {}, known))
        self._sources: dict[str, FakeSource] = {}
        for source_id in document.sources:
            if (ComponentKind.SOURCE, source_id) not in overrides:
                overrides[ComponentKind.SOURCE, source_id] = self._sources[source_id] = FakeSource()
        self._fakes = [sink for sink in overrides.values() if isinstance(sink, FakeSink)]
        self._stage_ids = dict(_stage_ids(document))
        self.engine = Engine(document, overrides=overrides, seed=seed, probe=self._probe, now=now, edges=edges)
        """The engine under test."""
        self.caller: Caller = ANONYMOUS
        """Who makes the next calls, as if an auth stage had said so."""
        self.client: Client = MODERN_CLIENT
        """What sends the next calls: era, version, capabilities, session, headers."""
        self.ask: Asker | None = None
        """Answers questions to the client; they are refused while it is None."""
        self.source: str = next(iter(self._sources), "")
        """Id of the source that the next calls come in by; the first one to begin with."""
        self.stage_log: deque[StageRun] = deque(maxlen=_LOG_SIZE)
        """Who ran, in the order of entering; the latest 10,000."""
        self._next_id = 0
        self._nursery: trio.Nursery | None = None
        self._exit = AsyncExitStack()

    @classmethod
    def from_yaml(
        cls,
        path: str | Path,
        *,
        sinks: Mapping[str, Sink] | None = None,
        sources: Mapping[str, Source] | None = None,
        seed: int = 0,
        edges: Edges | None = None,
    ) -> PipelineHarness:
        """
        A gateway of a configuration file.

        Raises:
            ConfigError: The file has errors.
            ValueError: `sinks` or `sources` has an id that the file has not.
        """
        return cls(load(Path(path)), sinks=sinks, sources=sources, seed=seed, edges=edges)

    @classmethod
    def from_data(
        cls,
        data: Mapping[str, Json],
        *,
        sinks: Mapping[str, Sink] | None = None,
        sources: Mapping[str, Source] | None = None,
        seed: int = 0,
        edges: Edges | None = None,
    ) -> PipelineHarness:
        """A gateway of a configuration written in Python; otherwise like `from_yaml`."""
        return cls(from_data(data), sinks=sinks, sources=sources, seed=seed, edges=edges)

    @classmethod
    def from_stages(
        cls, stages: Sequence[StageLike], *, sink: Sink | None = None, limits: Limits | None = None, seed: int = 0
    ) -> PipelineHarness:
        """
        A gateway of one pipeline, `main`, between the source `test` and the sink `sink`.

        Args:
            stages: The chain, outermost first. The id of a stage is its class's name in YAML.
            sink: What answers; an echo if absent.
            limits: The pipeline's.
            seed: Of `context.random` and `context.new_id`.
        """
        specs: list[StageSpec] = []
        made: dict[str, Middleware] = {}
        for stage in stages:
            spec, instance = _stage_spec(stage, [s.id for s in specs])
            specs.append(spec)
            if instance is not None:
                made[spec.id] = instance
        end = SinkSpec(id="sink", cls=FakeSink, config=None)
        overrides = {"sink": sink if sink is not None else FakeSink.echo()}
        return cls(_document(specs, end, limits or Limits()), sinks=overrides, stages=made, seed=seed)

    @classmethod
    def empty(cls) -> PipelineHarness:
        """
        A gateway without stages in front of a server that offers nothing, to test what stands around them.

        The server answers handshakes with empty capabilities, and pings; everything else is an unknown method.
        """
        server = Registry().find(ComponentKind.SINK, "embedded")
        assert issubclass(server, Sink)
        end = SinkSpec(id="sink", cls=server, config=make_config(server, {"expose": []}))
        return cls(_document([], end, Limits()))

    async def __aenter__(self) -> Self:
        await self._exit.enter_async_context(self._running())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return await self._exit.__aexit__(kind, error, traceback)  # noqa: ASYNC102  # what it leaves shields itself

    def start(self, method: str, params: Mapping[str, Json] = EMPTY, /, **more: Json) -> InFlight:
        """
        Send a request, or a notification if its method starts with `notifications/`, and do not wait for its reply.

        Args:
            method: For example `tools/call`.
            params: Its params.
            more: Further params by name: `gateway.start("tools/call", name="echo")`.

        Raises:
            RuntimeError: The harness is not running.
        """
        if self._nursery is None:
            raise RuntimeError("the harness is not running; use it in `async with`")
        params = {**params, **more}
        if method.startswith("notifications/"):
            message: Request | Notification = Notification(method, params)
        else:
            self._next_id += 1
            message = Request(self._next_id, method, params)
        source = self._sources.get(self.source)
        if source is None:
            raise ValueError(f"no fake source {self.source!r}; there are: {', '.join(self._sources) or 'none'}")
        client, ask = self.client, self.ask
        call = InFlight(lambda emit: source.handle(message, client=client, emit=emit, ask=ask), self.caller)
        self._nursery.start_soon(call.run, name=f"{method} {self._next_id}")
        return call

    async def call(self, method: str, params: Mapping[str, Json] = EMPTY, /, **more: Json) -> Reply:
        """
        Send a request and wait for its reply; arguments as in `start`. Cancelling the wait cancels the request.

        Raises:
            TypeError: The method is a notification's; use `start`.
        """
        call = self.start(method, params, **more)
        try:
            reply = await call.wait()
        finally:
            call.cancel()
        if reply is None:
            raise TypeError(f"{method} has no reply; use `start`")
        return reply

    async def call_many(
        self, method: str, params: Mapping[str, Json] = EMPTY, /, *, times: int, **more: Json
    ) -> list[Reply]:
        """Call some times, one after the other; for calls at the same time use `start`."""
        return [await self.call(method, params, **more) for _ in range(times)]

    async def advance(self, seconds: float) -> None:
        """
        Let time pass, and everything that becomes due happen.

        Raises:
            RuntimeError: The test does not run on a mock clock.
        """
        clock = trio.lowlevel.current_clock()
        if not isinstance(clock, MockClock):
            raise RuntimeError("advance needs a mock clock; ask for the fixture autojump_clock or mock_clock")
        if clock.autojump_threshold == math.inf:
            await wait_all_tasks_blocked()
            clock.jump(seconds)
        else:
            await trio.sleep(seconds)
        await wait_all_tasks_blocked()

    @asynccontextmanager
    async def _running(self) -> AsyncIterator[None]:
        mock = isinstance(trio.lowlevel.current_clock(), MockClock)
        with trio.fail_after(VIRTUAL_BOUND_S if mock else REAL_BOUND_S), leak_check():
            async with self.engine.running():
                for source in self._sources.values():
                    await source.wait_serving()
                with unwrap_single():
                    async with trio.open_nursery() as nursery:
                        self._nursery = nursery
                        yield
                        nursery.cancel_scope.cancel()
                self._nursery = None
                self._check_rest()

    def _check_rest(self) -> None:
        """Nothing is in flight any more, so nothing may be counted, armed or unforeseen."""
        left = [f"deadlines: {len(self.engine.deadlines)} armed"] if len(self.engine.deadlines) else []
        for pipeline in self.engine.pipelines.values():
            status = pipeline.status()
            left += [
                f"pipeline {pipeline.id}: {status[k]} {k}" for k in ("in_flight", "waiting", "listeners") if status[k]
            ]
        if left:
            raise Leak("left behind:\n" + "\n".join(f"  {line}" for line in left))
        problems = [problem for fake in self._fakes for problem in fake.problems]
        if problems:
            raise AssertionError("a fake sink was used in a way it was not told about: " + "; ".join(problems))

    async def _probe(self, stage_id: str, exchange: Exchange, service: Service) -> Reply:
        run = StageRun(self._stage_ids[stage_id], stage_id, exchange, exchange.method, trio.current_time())
        self.stage_log.append(run)
        outcome = "Cancelled"
        try:
            reply = await service(exchange)
            outcome = "error" if isinstance(reply, ErrorReply) else "result"
        except Exception as error:  # only its name is taken; it goes on
            outcome = type(error).__name__
            raise
        finally:
            run.outcome, run.seconds = outcome, trio.current_time() - run.entered
        return reply


def _document(chain: Sequence[StageSpec], end: SinkSpec, limits: Limits) -> Document:
    """One pipeline between a source and a sink."""
    return Document(
        sources={"test": SourceSpec(id="test", cls=FakeSource, config=None, pipeline="main")},
        pipelines={"main": PipelineSpec(id="main", chain=tuple(chain), sink=end.id, limits=limits)},
        sinks={end.id: end},
    )


def _stage_ids(document: Document) -> Iterator[tuple[str, str]]:
    """The id of every stage in its chain, by component id."""
    for section, owners in (("pipelines", document.pipelines), ("sinks", document.sinks)):
        for owner in owners.values():
            yield from ((f"{section}.{owner.id}.{stage.id}", stage.id) for stage in owner.chain)


def _by_id(kind: ComponentKind, given: Mapping[str, Component], known: Sequence[str]) -> dict[Any, Component]:
    for component_id in given:
        if component_id not in known:
            listed = ", ".join(sorted(set(known))) or "none"
            raise ValueError(f"no {kind} {component_id!r} in the configuration; there are: {listed}")
    return {(kind, component_id): component for component_id, component in given.items()}


def _stage_spec(stage: StageLike, taken: Sequence[str]) -> tuple[StageSpec, Middleware | None]:
    """The declaration of a stage, and the stage itself if it is made already."""
    instance = stage if isinstance(stage, Middleware) else None
    if isinstance(stage, Middleware):
        cls, config = type(stage), stage.config
    else:
        cls, config = (stage, None) if isinstance(stage, type) else stage
        config = make_config(cls, config)
    name = cls.name or cls.__name__
    number = sum(1 for other in taken if other.partition("#")[0] == name)
    return StageSpec(id=f"{name}#{number + 1}" if number else name, cls=cls, config=config), instance
