"""
The components of one configuration: constructed (which is pure), hosted, and compiled into pipelines.

A reload builds a second generation beside the first one. A store whose declaration did not change is handed over, and
so is a sink that ends here (one that sends to others holds their services, which are new): its sessions, child
processes and connections live on. Chains and `max_in_flight` around it are new.
"""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from graphlib import TopologicalSorter
from typing import Any, Final, final

import structlog
from attrs import define, field

from ..model.changes import Changes
from ..model.component import Component, ComponentKind, Context, Middleware, Sink
from ..model.document import Document, PipelineSpec, SinkSpec, Spec, StageSpec
from ..model.exchange import Exchange, Service
from ..model.security import Alarm, ignore
from ..model.store import Store
from ..model.worker import Worker
from ..protocol.errors import CODE_TABLES, CapacityExceeded, ComponentError, SluicewayError
from ..protocol.mcp import Kind
from ..protocol.messages import Reply
from .chain import Probe, Stage, around_stages, compile_chain, count_attempts, nest
from .deadlines import Deadlines
from .edges import Edges
from .outside import digest_outside
from .pipeline import Lane, Pipeline
from .status import Row
from .supervisor import Host

Overrides = Mapping[tuple[ComponentKind, str], Component]
"""Components put in the place of declared ones, by kind and id; for tests."""

RETRY_AFTER_S: Final = 1.0


@final
@define(eq=False)
class Needs:
    """What a component has taken of other components: it cannot outlive them."""

    stores: set[Host] = field(factory=set)
    sinks: bool = False
    """It holds services of sinks, chains included; every generation has new ones."""


@final
@define(eq=False, kw_only=True)
class Surroundings:
    """What every component of an engine shares; makes the `Context` of each."""

    random: random.Random
    new_id: Callable[[], str]
    listen: bool
    overrides: Overrides
    probe: Probe | None = None
    """Put around every stage; told component ids."""
    now: Callable[[], float] = time.time
    edges: Edges = field(factory=Edges)
    changes: Changes = field(factory=Changes)
    alarm: Alarm = ignore
    worker: Worker | None = None
    kept: dict[str, dict[str, Any]] = field(factory=dict)
    """What components of earlier generations have left, by their id."""

    def build(
        self,
        kind: ComponentKind,
        component_id: str,
        spec: Spec,
        stores: Mapping[str, Host],
        sinks: Mapping[str, Service],
        *,
        required: bool = True,
        needs: Needs | None = None,
    ) -> tuple[Component, Row]:
        """
        Construct the component of a spec, or take what was put in its place; and the row of its state.

        What it takes later is noted in `needs`.
        """
        row = Row(component_id, kind, required)
        override = self.overrides.get((kind, spec.id))
        if override is not None:
            return override, row

        def store(name: str) -> Store:
            host = stores.get(name)
            if host is None:
                raise LookupError(f"no store named {name!r}; there are: {', '.join(stores) or 'none'}")
            assert isinstance(host.component, Store)
            if needs is not None:
                needs.stores.add(host)
            return host.component

        def sink(name: str) -> Service:
            service = sinks.get(name)
            if service is None:
                raise LookupError(f"no sink named {name!r}; there are: {', '.join(sinks) or 'none'}")
            if needs is not None:
                needs.sinks = True
            return service

        seed = self.edges.seed(component_id, self.random.getrandbits(64))
        context = Context(
            id=component_id,
            path=spec.path,
            log=structlog.get_logger().bind(component=component_id),
            random=random.Random(seed),  # noqa: S311  # jitter and sampling, not secrets
            new_id=self.edges.new_id(component_id, self.new_id),
            now=self.now,
            report=row.become,
            listen=self.listen,
            stores=store,
            sinks=sink,
            changes=self.changes,
            worker=self.worker,
            alarm=self.alarm,
            kept=self.kept.setdefault(component_id, {}),
        )
        return _made(spec, context), row


@final
class Generation:
    """
    Stores, sinks, stages and pipelines of one document.

    Args:
        document: What to build.
        around: Shared with every other generation of the engine.
        deadlines: The engine's.
        before: The generation this one follows; its unchanged stores and sinks are taken over, not built.
    """

    def __init__(
        self, document: Document, around: Surroundings, deadlines: Deadlines, before: Generation | None = None
    ) -> None:
        self.document = document
        self._around = around
        self._sees_stages = _sees_stages(document)
        self._deadlines = deadlines
        self._before = before
        self._needs: dict[str, Needs] = {}
        self.stores: dict[str, Host] = {}
        self.sinks: dict[str, Host] = {}
        self.stages: dict[str, Host] = {}
        """Every enabled stage, by `<chain>.<stage id>`."""
        self.pipelines: dict[str, Pipeline] = {}
        self._inside_out: list[Host] = []
        self._services: dict[str, Service] = {}
        for store_id, spec in document.stores.items():
            old = before.stores.get(store_id) if before is not None else None
            if old is not None and before is not None and _same(spec, before.document.stores[store_id]):
                self.stores[store_id] = old
            else:
                self.stores[store_id] = Host(*around.build(ComponentKind.STORE, f"stores.{store_id}", spec, {}, {}))
        for sink_id in TopologicalSorter({s.id: s.sends_to for s in document.sinks.values()}).static_order():
            self._services[sink_id] = self._sink(document.sinks[sink_id])
        for pipeline in document.pipelines.values():
            self.pipelines[pipeline.id] = self._pipeline(pipeline, self._services[pipeline.sink])
        self._before = None  # else every generation would keep all before it

    def hosts(self) -> list[Host]:
        """Everything it uses, in start order: stores, sinks (those that others send to first), stages inside out."""
        return [*self.stores.values(), *self.sinks.values(), *self._inside_out]

    def stage(self, pipeline_id: str, stage_id: str) -> Host:
        """
        The host of a pipeline's stage.

        Raises:
            LookupError: There is no such pipeline or stage.
        """
        host = self.stages.get(f"pipelines.{pipeline_id}.{stage_id}")
        if host is None:
            raise LookupError(f"no stage pipelines.{pipeline_id}.{stage_id}; there are: {', '.join(self.stages)}")
        return host

    def replace(self, pipeline_id: str, stage_id: str, host: Host) -> tuple[Host, Lane]:
        """
        Put another middleware in the place of a stage; new exchanges go through it.

        Returns:
            The host that was there, and the exchanges that still go through it.

        Raises:
            LookupError: There is no such pipeline or stage.
        """
        old = self.stage(pipeline_id, stage_id)
        pipeline, middleware = self.pipelines[pipeline_id], host.component
        assert isinstance(middleware, Middleware)
        chain = pipeline.lane.chain
        stages = [Stage(s.id, middleware, s.guard) if s.id == stage_id else s for s in chain.stages]
        self.stages[old.id] = host
        self._inside_out[self._inside_out.index(old)] = host
        return old, pipeline.swap(compile_chain(stages, chain.sink, probe=self._probe(f"pipelines.{pipeline_id}")))

    def _sink(self, spec: SinkSpec) -> Service:
        host = self._kept_sink(spec)
        if host is None:
            needs = self._needs[spec.id] = Needs()
            component, row = self._around.build(
                ComponentKind.SINK,
                f"sinks.{spec.id}",
                spec,
                self.stores,
                self._services,
                required=spec.required,
                needs=needs,
            )
            outside = partial(digest_outside, spec.config)
            host = Host(component, row, restarts=self._restarts, outside=outside)
        self.sinks[spec.id] = host
        assert isinstance(host.component, Sink)
        service: Service = host.component.__call__
        if host.restarts:
            service = _checked(host, service)
        leads_out = not spec.routes or (ComponentKind.SINK, spec.id) in self._around.overrides
        if leads_out:
            service = self._around.edges.sink(spec.id, service)
        if spec.max_in_flight is not None:
            service = _bounded(spec.id, spec.max_in_flight, service)
        if leads_out:
            service = count_attempts(spec.id, service)
        if not spec.chain:
            return service
        owner = f"sinks.{spec.id}"
        return nest(compile_chain(self._chain(owner, spec.chain), service, probe=self._probe(owner)))

    @property
    def _restarts(self) -> bool:
        return self.document.run.on_crash == "restart"

    def _kept_sink(self, spec: SinkSpec) -> Host | None:
        """The sink of the generation before, if it is open and nothing it was made of has changed."""
        before = self._before
        if before is None or spec.id not in before.sinks:
            return None
        host, was = before.sinks[spec.id], before.document.sinks[spec.id]
        if not (host.is_open and _same(spec, was) and spec.required == was.required):
            return None
        if self._restarts != before._restarts:
            return None
        needs = before._needs[spec.id]
        if needs.sinks or not needs.stores <= set(self.stores.values()):
            return None
        if host.opened_with != digest_outside(spec.config):
            return None
        self._needs[spec.id] = needs
        return host

    def _probe(self, owner: str) -> Probe | None:
        """What stands around the stages of one chain."""
        probe = self._around.probe
        told = None if probe is None else _named(owner, probe)
        return around_stages(told) if self._sees_stages else told

    def _chain(self, owner: str, specs: Sequence[StageSpec]) -> list[Stage]:
        stages: list[Stage] = []
        for spec in specs:
            if not spec.enabled:
                continue
            component_id = f"{owner}.{spec.id}"
            component, row = self._around.build(
                ComponentKind.MIDDLEWARE, component_id, spec, self.stores, self._services
            )
            assert isinstance(component, Middleware)
            self.stages[component_id] = Host(component, row)
            stages.append(Stage(spec.id, component, spec.when.compile() if spec.when is not None else None))
        self._inside_out += [self.stages[f"{owner}.{stage.id}"] for stage in reversed(stages)]
        return stages

    def _pipeline(self, spec: PipelineSpec, sink: Service) -> Pipeline:
        owner = f"pipelines.{spec.id}"
        chain = compile_chain(self._chain(owner, spec.chain), sink, probe=self._probe(owner))
        codes = CODE_TABLES[self.document.run.error_codes]
        return Pipeline(
            spec.id,
            chain,
            spec.limits,
            self._deadlines,
            codes=codes,
            new_id=self._around.edges.new_id(owner, self._around.new_id),
            alarm=self._around.alarm,
        )


def _made(spec: Spec, context: Context) -> Component:
    try:
        return spec.cls(spec.config, context)
    except SluicewayError:
        raise
    except Exception as error:  # the boundary: a reload is refused for it, and does not end the gateway
        raise ComponentError(context.id, "open", f"{type(error).__name__}: {error}") from error


def _named(owner: str, probe: Probe) -> Probe:
    """A probe of one chain that is told component ids."""

    def told(stage_id: str, exchange: Exchange, stage: Service) -> Awaitable[Reply]:
        return probe(f"{owner}.{stage_id}", exchange, stage)

    return told


def _sees_stages(document: Document) -> bool:
    chains = (*(each.chain for each in document.pipelines.values()), *(each.chain for each in document.sinks.values()))
    return any(spec.enabled and spec.cls.sees_stages(spec.config) for chain in chains for spec in chain)


def _same(one: Spec, other: Spec) -> bool:
    return one.cls is other.cls and one.config == other.config


def _checked(host: Host, service: Service) -> Service:
    async def call(exchange: Exchange) -> Reply:
        host.check_open()
        return await service(exchange)

    return call


def _bounded(sink_id: str, max_in_flight: int, service: Service) -> Service:
    """Shed what exceeds a sink's own `max_in_flight` (LISTEN not counted); to wait is a `concurrency_limit`'s job."""
    inside = 0

    async def call(exchange: Exchange) -> Reply:
        nonlocal inside
        if exchange.kind is Kind.LISTEN:
            return await service(exchange)
        if inside >= max_in_flight:
            raise CapacityExceeded(
                f"sink {sink_id} has {max_in_flight} exchanges in flight, its max_in_flight",
                retry_after_s=RETRY_AFTER_S,
            )
        inside += 1
        try:
            return await service(exchange)
        finally:
            inside -= 1

    return call
