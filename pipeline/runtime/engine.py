"""
From a configuration to a running gateway, and back.

The engine builds a generation of components, has the supervisor open it, connects the sources, and owns what happens
to the whole: drain, reload, replacing one stage while serving, status.
"""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any, Final, TypeVar, final

import structlog
import trio

from ..model.component import Component, ComponentKind, Middleware, Sink, Source, State
from ..model.document import Document, SourceSpec
from ..model.session import Asker, Client, Session
from ..model.store import Store
from ..model.worker import Worker
from ..protocol.errors import CODE_TABLES, ComponentError
from ..protocol.messages import EMPTY, Json, Notification, Request
from ..telemetry.metrics import Snapshot
from ..telemetry.security import SecurityEvents
from .alerting import Alerting
from .chain import Probe
from .deadlines import Deadlines
from .edges import Edges, both
from .entrance import Entrances
from .gauging import take_snapshot
from .generation import Generation, Overrides, Surroundings
from .ids import random_id
from .nursery import open_background_nursery
from .pipeline import Pipeline
from .status import Board, Row, Watcher
from .supervisor import Host, Supervisor
from .ticket import PipelineTicket

_GRACE_S: Final = 1.0
"""What cancelled exchanges get to unwind, in seconds, before their components close under them."""
_LISTS: Final = ("tools", "resources", "prompts")
"""What a server can offer, and tell its clients about (`notifications/<list>/list_changed`)."""


@final
class Engine:
    """
    A gateway made of one configuration at a time.

    Args:
        document: The configuration to start with.
        listen: False when another server owns the listening sockets (a plain hypercorn).
        overrides: Components to use instead of declared ones, by kind and id; for tests.
        seed: Makes randomness and ids deterministic; for tests and replays.
        progress: Told of every component's state changes.
        probe: Compiled in around every stage, and told its component id; for tests.
        now: The date, in seconds since 1970 (`Context.now`); for tests and replays.
        edges: What stands where the gateway meets the world; nothing by default.
        worker: The place of this process among several; None if it is the only one.
    """

    def __init__(
        self,
        document: Document,
        *,
        listen: bool = True,
        overrides: Overrides | None = None,
        seed: int | None = None,
        progress: Watcher | None = None,
        probe: Probe | None = None,
        now: Callable[[], float] = time.time,
        edges: Edges | None = None,
        worker: Worker | None = None,
    ) -> None:
        self.document = document
        self.deadlines = Deadlines()
        self._edges = Edges() if edges is None else edges
        self.board = Board(_watchers(progress, edges))
        self.crashed = trio.Event()
        """Set when a component crashed that may not be reopened."""
        self.failure: ComponentError | None = None
        """What crashed, once `crashed` is set."""
        rng = random.SystemRandom() if seed is None else random.Random(seed)  # noqa: S311  # determinism is the point
        seeded = random.Random(seed)  # noqa: S311  # likewise
        self._security = SecurityEvents()
        self._around = Surroundings(
            random=rng,
            new_id=random_id if seed is None else (lambda: f"{seeded.getrandbits(128):032x}"),
            listen=listen,
            overrides=overrides or {},
            probe=both(self._edges.probe(), probe),
            now=self._edges.now(now),
            edges=self._edges,
            alarm=self._security,
            worker=worker,
        )
        self._edges.configured(document, 1, self._around.changes)
        self._generation = Generation(document, self._around, self.deadlines)
        self._targets = {source_id: spec.pipeline for source_id, spec in document.sources.items()}
        self._sources = {source_id: self._source(spec) for source_id, spec in document.sources.items()}
        self._sessions: dict[Session, None] = {}
        """The live legacy sessions, to tell of changes; the sources bound their number."""
        self._alerting = Alerting(self.snapshot, document.run.alerts)
        self._number = 1
        self._draining = False
        self._started = 0.0
        self._changing = trio.Lock()
        self._supervisor: Supervisor | None = None
        self._body = trio.CancelScope()
        self._log: Any = structlog.get_logger()

    @property
    def sources(self) -> Mapping[str, Source]:
        """The sources, by id."""
        return {k: _as(Source, host) for k, host in self._sources.items()}

    @property
    def sinks(self) -> Mapping[str, Sink]:
        """The current generation's sinks, by id."""
        return {k: _as(Sink, host) for k, host in self._generation.sinks.items()}

    @property
    def stores(self) -> Mapping[str, Store]:
        """The current generation's stores, by id."""
        return {k: _as(Store, host) for k, host in self._generation.stores.items()}

    @property
    def pipelines(self) -> Mapping[str, Pipeline]:
        """The current generation's pipelines, by id."""
        return self._generation.pipelines

    @property
    def ready(self) -> bool:
        """Whether new exchanges are welcome: everything required is open, and nobody drains."""
        return not self._draining and not self.crashed.is_set() and self.board.ready

    def status(self) -> dict[str, Any]:
        """Everything `sluiceway status` shows, as JSON."""
        return {
            "version": version("sluiceway"),
            "uptime_s": round(trio.current_time() - self._started, 3),
            "ready": self.ready,
            "draining": self._draining,
            "generation": self._number,
            "components": self.board.rows(),
            "pipelines": [pipeline.status() for pipeline in self.pipelines.values()],
            "alerts": self._alerting.rows(),
        }

    def alerts(self) -> Mapping[str, Json]:
        """Alerts that fire or are about to, and every rule there is, as JSON."""
        return self._alerting.report()

    def snapshot(self) -> Snapshot:
        """Everything that the gateway counts, now; for metrics."""
        others = (*self._security.figures(), *self._edges.figures(), *self._alerting.figures())
        return take_snapshot(self._hosts(), self.pipelines.values(), others)

    def component(self, component_id: str) -> Component:
        """
        An open component, by the id that `status` shows.

        Raises:
            LookupError: There is none of that id.
            ComponentError: It is not open.
        """
        for host in self._hosts():
            if host.id == component_id:
                if not host.is_open:
                    raise ComponentError(component_id, "run", f"it is {host.row.state}, not open")
                return host.component
        raise LookupError(f"no component {component_id!r}; there are: {', '.join(host.id for host in self._hosts())}")

    def components(self) -> list[Component]:
        """Every open component."""
        return [host.component for host in self._hosts() if host.is_open]

    def _hosts(self) -> list[Host]:
        return [*self._generation.hosts(), *self._sources.values()]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Engine]:
        """
        Open everything, serve inside the block, close everything in reverse, on every path. Use it once.

        Raises:
            ComponentError: A component could not be opened, or crashed while the block ran.
        """
        async with open_background_nursery() as nursery:
            run = self.document.run
            self._started = trio.current_time()
            self._supervisor = Supervisor(
                nursery, self.board, stop_timeout_s=run.stop_timeout, on_crash=self._crash, rng=self._around.random
            )
            nursery.start_soon(self.deadlines.serve)
            nursery.start_soon(self._alerting.serve)
            await self._supervisor.open(self._hosts())
            try:
                for host in self._sources.values():
                    host.release()
                with self._body:
                    yield self
            finally:
                with trio.CancelScope(shield=True):
                    await self._close()
        if self.failure is not None:
            raise self.failure from self.failure.__cause__

    async def _close(self) -> None:
        assert self._supervisor is not None
        for pipeline in self.pipelines.values():
            pipeline.draining = True
            await pipeline.lane.finish(0, _GRACE_S)
        await self._supervisor.close(self._hosts())

    def _crash(self, host: Host) -> None:
        failure = ComponentError(host.id, "run", f"{type(host.failure).__name__}: {host.failure}")
        failure.__cause__ = host.failure
        if self.failure is None:
            self.failure = failure
        self.crashed.set()
        self._body.cancel(reason=f"{host.id} crashed")

    async def wait_finished(self) -> None:
        """Wait until every source has ended of its own accord: a stdio client hung up. Others never do."""
        for host in self._sources.values():
            await host.finished.wait()

    async def drain(self) -> int:
        """
        Stop accepting, let LISTEN exchanges finish, wait for the rest and for their answers to leave up to
        `drain_timeout`, cancel what is left.

        Returns:
            How many exchanges had to be cancelled.
        """
        self._draining = True
        for source in self.sources.values():
            source.stop_accepting()
        cancelled = 0
        for pipeline in self.pipelines.values():
            pipeline.draining = True
            pipeline.lane.draining.set()
        deadline = trio.current_time() + self.document.run.drain_timeout
        for pipeline in self.pipelines.values():
            left = max(0.0, deadline - trio.current_time())
            cancelled += await pipeline.lane.finish(left, _GRACE_S)
        with trio.move_on_after(max(_GRACE_S, deadline - trio.current_time())):
            for source in self.sources.values():
                await source.delivered()
        return cancelled

    async def reload(self, document: Document, agreed: Callable[[], Awaitable[bool]] | None = None) -> list[str]:
        """
        Serve another configuration: open its components beside the old ones, switch, drain and close the old.

        If sinks or pipelines changed, so may what the gateway offers: every legacy session is told that its lists
        changed. Modern listeners end, and ask again.

        Args:
            document: The configuration.
            agreed: Asked when everything is open; if it says no, that is closed again.

        Returns:
            What the new configuration says that only a restart can bring about.

        Raises:
            ComponentError: Something of it cannot be opened, or nobody agreed. The old one goes on unharmed.
        """
        async with self._changing:
            assert self._supervisor is not None
            old = self._generation
            self._edges.configured(document, self._number + 1, self._around.changes)
            new = Generation(document, self._around, self.deadlines, before=old)
            fresh = [host for host in new.hosts() if host not in old.hosts()]
            await self._supervisor.open(fresh, agreed)
            notes = self._restart_notes(document)
            offers_change = (document.sinks, document.pipelines) != (self.document.sinks, self.document.pipelines)
            self.document, self._generation = document, new
            self._alerting.configure(document.run.alerts)
            self._number += 1
            for source_id, spec in document.sources.items():
                if source_id in self._targets:
                    self._targets[source_id] = spec.pipeline
            if offers_change:
                self._tell_sessions()
            await self._retire(old, new)
            return notes

    async def replace(self, pipeline_id: str, stage_id: str, middleware: Middleware) -> None:
        """
        Put another middleware in the place of a stage: open it, switch, let the old chain finish, close the old one.

        Raises:
            LookupError: There is no such pipeline or stage.
            ComponentError: The new middleware cannot be opened; the old one goes on.
        """
        async with self._changing:
            assert self._supervisor is not None
            stage = self._generation.stage(pipeline_id, stage_id)
            host = Host(middleware, Row(stage.id, ComponentKind.MIDDLEWARE))
            await self._supervisor.open([host])
            old, passed = self._generation.replace(pipeline_id, stage_id, host)
            await passed.finish(self.document.run.drain_timeout, _GRACE_S)
            await self._supervisor.close([old])

    async def _retire(self, old: Generation, new: Generation) -> None:
        """Let the exchanges of an old generation finish, then close what the new one did not take over."""
        assert self._supervisor is not None
        for pipeline in old.pipelines.values():
            pipeline.lane.draining.set()
        for pipeline in old.pipelines.values():
            await pipeline.lane.finish(self.document.run.drain_timeout, _GRACE_S)
        await self._supervisor.close([host for host in old.hosts() if host not in new.hosts()])

    def _tell_sessions(self) -> None:
        for session in self._sessions:
            if session.version is not None:  # else its handshake is under way, and tells it the new state
                for name in _LISTS:
                    session.notify(Notification(f"notifications/{name}/list_changed", EMPTY))

    def _remember(self, session: Session) -> None:
        if not session.closed and session not in self._sessions:
            self._sessions[session] = None
            session.on_close(lambda: self._sessions.pop(session))

    def _restart_notes(self, document: Document) -> list[str]:
        notes = []
        for source_id, spec in document.sources.items():
            was = self.document.sources.get(source_id)
            if was is None:
                notes.append(f"source {source_id} is new; restart to open it")
            elif was.cls is not spec.cls or was.config != spec.config:
                notes.append(f"source {source_id} has other options; restart to apply them")
        notes += [
            f"source {i} is gone; restart to close it" for i in self.document.sources if i not in document.sources
        ]
        if document.run != self.document.run:
            notes.append("run: has other options; some apply only after a restart")
        return notes

    def _source(self, spec: SourceSpec) -> Host:
        component, row = self._around.build(ComponentKind.SOURCE, f"sources.{spec.id}", spec, {}, {})
        assert isinstance(component, Source)
        worker = self._around.worker
        component.readiness = lambda: self.ready and (worker is None or worker.is_announced)
        component.context.codes = CODE_TABLES[self.document.run.error_codes]
        targets, source_id = self._targets, spec.id
        entrances = Entrances(lambda: self._generation.pipelines[targets[source_id]].lane.chain, source_id)
        component.resource_metadata, component.identify = entrances.resource_metadata, entrances.identify
        component.refuse_unread = entrances.refuse_unread

        def handle(
            message: Request | Notification,
            *,
            client: Client,
            emit: Callable[[Notification], Awaitable[None]],
            ask: Asker | None = None,
        ) -> PipelineTicket:
            if client.session is not None and message.method == "initialize":
                self._remember(client.session)
            pipeline = self._generation.pipelines[targets[source_id]]
            return pipeline.handle(message, client=client, emit=emit, ask=ask, source=source_id)

        feed = self._edges.client(source_id, lambda: targets[source_id], handle)

        async def serve() -> None:
            await component.serve(feed)
            if not component.ends:
                raise ComponentError(f"sources.{spec.id}", "run", "serve returned, though nobody asked it to")

        return Host(component, row, body=serve)


def _watchers(progress: Watcher | None, edges: Edges | None) -> Watcher | None:
    """Whoever wants to be told of states."""
    if progress is None or edges is None:
        return progress if edges is None else edges.became

    def tell(component: str, state: State, reason: str) -> None:
        edges.became(component, state, reason)
        progress(component, state, reason)

    return tell


_C = TypeVar("_C", bound=Component)


def _as(kind: type[_C], host: Host) -> _C:
    assert isinstance(host.component, kind)
    return host.component
