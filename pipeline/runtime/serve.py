"""
One process: signals, drain, reload, watching the files, and an exit code.

SIGTERM and SIGINT drain and stop; a second one stops at once, and so does the first before everything is open. SIGHUP,
and a change of a watched file, load the configuration again; one with an error changes nothing.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Final, final

import structlog
import trio

from ..model.document import Document
from ..protocol.errors import ComponentError, SluicewayError
from .edges import Edges
from .engine import Engine
from .memory import settle, short_pauses
from .nursery import unwrap_single
from .orphans import adopt_orphans, reap_orphans
from .status import Watcher
from .watching import watch

if TYPE_CHECKING:
    from .workers.link import Link

OK: Final = 0
COULD_NOT_START: Final = 3
CRASHED: Final = 4
INTERRUPTED: Final = 130
"""Exit codes (docs: command line)."""

LAST_RESORT_S: Final = 10.0
"""
Seconds after a second signal when the process ends whatever still runs in it: a stage that swallows its cancellation
cannot be stopped in any other way. A thread's timer, because the event loop may be what hangs.
"""

Load = Callable[[], Document]
"""Reads the configuration; raises a `SluicewayError` that tells everything that is wrong with it."""

OpenEdges = Callable[[Document], AbstractAsyncContextManager[Edges | None]]
"""Opens what stands at the edges of a gateway with this configuration: a recorder. Outlives the gateway."""


def no_edges(_document: Document) -> AbstractAsyncContextManager[None]:
    """Nothing stands there."""
    return nullcontext()


async def serve(
    load: Load,
    *,
    watch: bool = False,
    dry_run: bool = False,
    progress: Watcher | None = None,
    ready: Callable[[Engine], None] | None = None,
    edges: OpenEdges = no_edges,
    link: Link | None = None,
) -> int:
    """
    Run a gateway until it is told to stop, its stdio client hangs up, or it crashes.

    Args:
        load: Called once to start, and again for every reload.
        watch: Reload when a file of the configuration changes.
        dry_run: Open everything, report ready, close everything.
        progress: Told of every component's state changes.
        ready: Called once everything is open.
        edges: Opens what stands at the edges.
        link: To the supervisor, if this process is one of several workers.

    Returns:
        The process's exit code.

    Raises:
        SluicewayError: The first `load` failed.
    """
    return await _Process(load, watch, dry_run, progress, ready, edges, link).run()


@final
class _Process:
    def __init__(
        self,
        load: Load,
        watch: bool,
        dry_run: bool,
        progress: Watcher | None,
        ready: Callable[[Engine], None] | None,
        edges: OpenEdges,
        link: Link | None,
    ) -> None:
        self._load = load
        self._watch = watch
        self._dry_run = dry_run
        self._progress = progress
        self._ready = ready
        self._edges = edges
        self._link = link
        self._everything = trio.CancelScope()
        self._stop = trio.Event()
        self._started = False
        self._code = OK
        self._last_resort = threading.Timer(LAST_RESORT_S, os._exit, (INTERRUPTED,))
        self._last_resort.daemon = True
        self._log: Any = structlog.get_logger()

    async def run(self) -> int:
        document = self._load()
        try:
            async with self._edges(document) as edges:
                place = None if self._link is None else self._link.place
                return await self._run(Engine(document, progress=self._progress, edges=edges, worker=place))
        except ComponentError as error:
            self._log.error("gateway could not start", error=str(error))
            return COULD_NOT_START

    async def _run(self, engine: Engine) -> int:
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        with adopt_orphans(), short_pauses(), trio.open_signal_receiver(*numbers) as signals:
            try:
                with unwrap_single():
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self._obey, signals, engine, nursery)
                        nursery.start_soon(reap_orphans)
                        if self._link is not None:
                            nursery.start_soon(self._link.obey, self._stop_soon, self._stop_at_once)
                        with self._everything:
                            async with engine.running():
                                self._started = True
                                await self._serve(engine)
                        nursery.cancel_scope.cancel()
            except ComponentError as error:
                self._log.error("gateway crashed" if self._started else "gateway could not start", error=str(error))
                return CRASHED if self._started else COULD_NOT_START
            finally:
                self._last_resort.cancel()
        self._log.info("gateway stopped")
        return self._code

    async def _serve(self, engine: Engine) -> None:
        """From ready to drained."""
        async with trio.open_nursery() as nursery:
            if engine.document.run.admin is not None and not self._dry_run and self._link is None:
                from ..admin import serve_admin

                await nursery.start(serve_admin, engine.document.run.admin, engine.status, engine)
            if not self._dry_run:
                settle()
            self._log.info("gateway ready" if self._link is None else "worker ready", **addresses(engine))
            if self._ready is not None:
                self._ready(engine)
            if self._dry_run:
                return
            if self._watch:
                nursery.start_soon(watch, lambda: engine.document, lambda: self._reload(engine))
            nursery.start_soon(self._wait_finished, engine)
            async with nullcontext() if self._link is None else self._link.serving(engine):
                await self._stop.wait()
                await self._drain(engine)
            nursery.cancel_scope.cancel()

    async def _drain(self, engine: Engine) -> None:
        if self._link is not None:
            self._link.place.leave()
        self._log.info("gateway draining", in_flight=sum(p.admission.in_flight for p in engine.pipelines.values()))
        cancelled = await engine.drain()
        if cancelled:
            self._log.warning("exchanges cancelled at shutdown", count=cancelled)

    async def _wait_finished(self, engine: Engine) -> None:
        await engine.wait_finished()
        self._stop.set()

    async def _obey(self, signals: AsyncIterator[int], engine: Engine, nursery: trio.Nursery) -> None:
        async for number in signals:
            if number == signal.SIGHUP:
                nursery.start_soon(self._reload, engine)
                continue
            again = self._stop.is_set()
            if number == signal.SIGINT or again:
                self._code = INTERRUPTED
            if again or not self._started:
                self._log.warning("gateway stops at once", signal=signal.Signals(number).name)
                self._stop_at_once()
            self._stop.set()

    def _stop_soon(self) -> None:
        if not self._started:
            self._stop_at_once()
        self._stop.set()

    def _stop_at_once(self) -> None:
        if not self._everything.cancel_called:
            self._last_resort.start()
        self._everything.cancel(reason="told to stop at once")
        self._stop.set()

    async def _reload(self, engine: Engine) -> None:
        try:
            document = self._load()
            notes = await engine.reload(document)
            settle()
        except SluicewayError as error:
            self._log.error("reload refused; the running configuration stays", error=str(error))
            return
        self._log.info("reloaded", generation=engine.status()["generation"])
        for note in notes:
            self._log.warning("needs a restart", what=note)


def addresses(engine: Engine) -> dict[str, list[str]]:
    """Where each source of an engine listens, by source id; sources without addresses are left out."""
    found: dict[str, list[str]] = {
        source_id: list(getattr(source, "addresses", ())) for source_id, source in engine.sources.items()
    }
    return {source_id: where for source_id, where in found.items() if where}
