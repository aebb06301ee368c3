"""
The supervisor's process: signals, reload, renewal, watching the files, and an exit code.

SIGTERM and SIGINT drain every worker and stop; a second one stops at once. SIGHUP, and a change of a watched file, give
every worker another configuration, or none. SIGUSR2 puts a new worker in the place of each, one after the other.
"""

from __future__ import annotations

import random
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, Final, final

import structlog
import trio

from ...model.document import Document
from ...protocol.errors import ComponentError, SluicewayError
from ..nursery import unwrap_single
from ..orphans import adopt_orphans, reap_orphans
from ..serve import COULD_NOT_START, CRASHED, INTERRUPTED, OK
from ..watching import watch
from .fleet import LAST_RESORT_S, Fleet, open_fleet
from .messages import Snapshot
from .plan import Plan
from .sockets import Sockets

Load = Callable[[], tuple[Document, Snapshot]]
"""Reads the configuration; raises a `SluicewayError` that tells everything that is wrong with it."""
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)


async def supervise(
    load: Load,
    files: Sequence[Path],
    *,
    workers: int,
    follow: bool = False,
    ready: Callable[[dict[str, list[str]]], None] | None = None,
) -> int:
    """
    Run a gateway of several workers until it is told to stop, or its workers die again and again.

    Args:
        load: Called once to start, and again for every reload and renewal.
        files: What workers are told to load, from the texts that came with it: the main file first.
        workers: How many.
        follow: Reload when a file of the configuration changes.
        ready: Called with the addresses of the sources once all workers are ready.

    Returns:
        The process's exit code.

    Raises:
        SluicewayError: The first `load` failed.
    """
    document, snapshot = load()
    sockets = Sockets()
    log: Any = structlog.get_logger()
    try:
        sockets.bind(document)
    except ComponentError as error:
        log.error("gateway could not start", error=str(error))
        return COULD_NOT_START
    file, *overlays = (str(each.absolute()) for each in files)
    plan = Plan(file, tuple(overlays), document, snapshot, sockets)
    return await _Process(load, plan, workers, follow, ready).run()


@final
class _Process:
    def __init__(
        self,
        load: Load,
        plan: Plan,
        workers: int,
        follow: bool,
        ready: Callable[[dict[str, list[str]]], None] | None,
    ) -> None:
        self._load = load
        self._plan = plan
        self._workers = workers
        self._follow = follow
        self._ready = ready
        self._stop = trio.Event()
        self._at_once = trio.Event()
        self._started = False
        self._code = OK
        self._log: Any = structlog.get_logger()

    async def run(self) -> int:
        """From bound sockets to the exit code."""
        with adopt_orphans(), trio.open_signal_receiver(*_SIGNALS) as signals:
            try:
                with unwrap_single():
                    await self._run(signals)
            except ComponentError as error:
                self._log.error("gateway crashed" if self._started else "gateway could not start", error=str(error))
                return CRASHED if self._started else COULD_NOT_START
        self._log.info("gateway stopped")
        return self._code

    async def _run(self, signals: AsyncIterator[int]) -> None:
        rng = random.SystemRandom()
        async with open_fleet(self._plan, self._workers, rng) as fleet, trio.open_nursery() as nursery:
            nursery.start_soon(reap_orphans)
            nursery.start_soon(self._obey, signals, fleet, nursery)
            await self._serve(fleet)
            nursery.cancel_scope.cancel()

    async def _serve(self, fleet: Fleet) -> None:
        """From the first worker to the last."""
        if not await self._start(fleet):
            return
        self._started = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fleet.alerting.serve)
            admin = fleet.plan.document.run.admin
            if admin is not None:
                from .admin import serve_merged

                await nursery.start(serve_merged, admin, fleet, lambda: nursery.start_soon(self._renew, fleet))
            addresses = fleet.plan.sockets.addresses()
            self._log.info("gateway ready", workers=self._workers, **addresses)
            if self._ready is not None:
                self._ready(addresses)
            if self._follow:
                nursery.start_soon(watch, lambda: fleet.plan.document, lambda: self._reload(fleet))
            nursery.start_soon(self._give_up, fleet)
            await self._stop.wait()
            self._log.info("gateway draining", workers=len(fleet.members))
            await self._end(fleet)
            nursery.cancel_scope.cancel()

    async def _start(self, fleet: Fleet) -> bool:
        """Start all workers; False if somebody says stop before they are ready."""
        async with trio.open_nursery() as nursery:

            async def start() -> None:
                await fleet.start()
                nursery.cancel_scope.cancel()

            nursery.start_soon(start)
            await self._stop.wait()
            nursery.cancel_scope.cancel()
        return fleet.announced

    async def _end(self, fleet: Fleet) -> None:
        """Drain; on a second signal, have what is left end at once, and kill who does not."""
        async with trio.open_nursery() as nursery:

            async def drain() -> None:
                await fleet.drain()
                nursery.cancel_scope.cancel()

            nursery.start_soon(drain)
            await self._at_once.wait()
            await fleet.stop()
            await trio.sleep(LAST_RESORT_S)
            nursery.cancel_scope.cancel()  # who is left is killed as the fleet's tasks are cancelled

    async def _give_up(self, fleet: Fleet) -> None:
        await fleet.gave_up.wait()
        self._code = CRASHED
        self._stop.set()

    async def _obey(self, signals: AsyncIterator[int], fleet: Fleet, nursery: trio.Nursery) -> None:
        async for number in signals:
            if number == signal.SIGHUP:
                nursery.start_soon(self._reload, fleet)
            elif number == signal.SIGUSR2:
                nursery.start_soon(self._renew, fleet)
            else:
                again = self._stop.is_set()
                if number == signal.SIGINT or again:
                    self._code = INTERRUPTED
                if again:
                    self._log.warning("gateway stops at once", signal=signal.Signals(number).name)
                    self._at_once.set()
                self._stop.set()

    async def _reload(self, fleet: Fleet) -> None:
        if not self._started or self._stop.is_set():
            return
        try:
            notes = await fleet.reload(self._load)
        except SluicewayError as error:
            self._log.error("reload refused; every worker goes on with the running configuration", error=str(error))
            return
        self._log.info("reloaded", generation=fleet.generation, workers=len(fleet.members))
        for note in notes:
            self._log.warning("needs a restart; SIGUSR2 renews the workers one by one", what=note)

    async def _renew(self, fleet: Fleet) -> None:
        if not self._started or self._stop.is_set():
            return
        self._log.info("workers are renewed, one by one")
        try:
            await fleet.renew(self._load)
        except SluicewayError as error:
            self._log.error("renewal ended early", error=str(error))
            return
        self._log.info("workers renewed", generation=fleet.generation, workers=len(fleet.members))
