"""
Hosts components: each in a task of its own, opened in order, closed in reverse, on every path.

Rules (architecture 1.7). A component's task is shielded from outside cancellation while it is ready; only the
supervisor ends it, so an exchange in flight can still tell its upstream goodbye. One that does not close in time is
cancelled and named in the log. One that crashes ends the engine, or is reopened with back-off where that is allowed.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, final

import structlog
import trio

from ..model.component import Component, State
from ..protocol.errors import ComponentError, UpstreamUnavailable
from .nursery import unwrap_single
from .status import Board, Row

BACKOFF_S: Final = (1.0, 60.0)
"""Shortest and longest pause before a component is reopened, in seconds; full jitter below it."""
STABLE_S: Final = 60.0
"""A component that was open this long has recovered: its back-off starts anew."""

Body = Callable[[], Awaitable[None]]
"""What a component does while it is open, other than being there; its end is not an error."""


@final
class Host:
    """
    One component and its task.

    Args:
        component: What to host.
        row: Where its state is recorded.
        body: Runs while the component is open, once `release` was called (a source's `serve`).
        restarts: Whether it is reopened after a crash; one that is not required always is.
        outside: Digests what it reads when it opens, beside its options; for whoever asks whether that has changed.
    """

    def __init__(
        self,
        component: Component,
        row: Row,
        *,
        body: Body | None = None,
        restarts: bool = False,
        outside: Callable[[], bytes] = bytes,
    ) -> None:
        self.component = component
        self.row = row
        row.details = component.details
        self.restarts = restarts or not row.required
        self.is_open = False
        self.failure: Exception | None = None
        """Why the component is not open, after a failed start or a crash."""
        self.opened_with = b""
        """What `outside` said when it was opened last."""
        self.closed = trio.Event()
        self.finished = trio.Event()
        """The body has returned of its own accord."""
        self._body = body
        self._outside = outside
        self._stop = trio.Event()
        self._release = trio.Event()

    @property
    def id(self) -> str:
        """The component's id, as status shows it."""
        return self.row.id

    @property
    def is_stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._stop.is_set()

    def note_outside(self) -> None:
        """Remember what the component is about to read."""
        self.opened_with = self._outside()

    def release(self) -> None:
        """Let the body run: everything it needs is ready."""
        self._release.set()

    def stop(self) -> None:
        """Ask the component to close; `closed` tells when it has."""
        self._stop.set()

    async def serve(self) -> None:
        """What happens between open and close: run the body, wait for `stop`."""
        if self._body is None:
            await self._stop.wait()
            return
        with unwrap_single():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._run_body, self._body)
                await self._stop.wait()
                nursery.cancel_scope.cancel()

    async def _run_body(self, body: Body) -> None:
        await self._release.wait()
        await body()
        self.finished.set()

    async def stopped_within(self, seconds: float) -> bool:
        """Whether `stop` is called before `seconds` have passed."""
        with trio.move_on_after(seconds):
            await self._stop.wait()
        return self._stop.is_set()

    def check_open(self) -> None:
        """
        Refuse an exchange while the component is closed.

        Raises:
            UpstreamUnavailable: It crashed or could not be opened, and is being reopened.
        """
        if not self.is_open:
            raise UpstreamUnavailable(f"{self.id} is down: {self.failure}", retry_after_s=BACKOFF_S[0])


@final
class Supervisor:
    """
    Opens and closes hosts.

    Args:
        nursery: Where their tasks live; must outlast every host.
        board: Where they are listed while they are hosted.
        stop_timeout_s: Time each component gets to close.
        on_crash: Called with a host that crashed and will not be reopened.
        rng: Jitter of the back-off.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        board: Board,
        *,
        stop_timeout_s: float,
        on_crash: Callable[[Host], None],
        rng: random.Random,
    ) -> None:
        self._nursery = nursery
        self._board = board
        self._stop_timeout_s = stop_timeout_s
        self._on_crash = on_crash
        self._rng = rng
        self._log: Any = structlog.get_logger()

    async def open(self, hosts: Sequence[Host], agreed: Callable[[], Awaitable[bool]] | None = None) -> None:
        """
        Open hosts in the order given. If a required one fails, those already open are closed, newest first.

        Args:
            hosts: What to open.
            agreed: Asked when all are open; if it says no, they are closed likewise.

        Raises:
            ComponentError: Naming the component that could not be opened, or the workers that did not agree.
        """
        opened: list[Host] = []
        complete = False
        try:
            for host in hosts:
                opened.append(host)
                self._board.put(host.row)
                await self._nursery.start(self._run, host)
                if host.row.required and not host.is_open:
                    assert host.failure is not None
                    raise ComponentError(host.id, "open", str(host.failure)) from host.failure
            if agreed is not None and not await agreed():
                raise ComponentError("run.workers", "open", "another worker cannot serve this configuration")
            complete = True
        finally:
            if not complete:
                with trio.CancelScope(shield=True):
                    await self.close(opened)

    async def close(self, hosts: Sequence[Host]) -> None:
        """Close hosts in reverse order, each within the stop time-out."""
        for host in reversed(hosts):
            host.stop()
            await host.closed.wait()
            self._board.remove(host.row)

    async def _run(self, host: Host, task_status: trio.TaskStatus[None]) -> None:
        """The task of one component, from its first opening to its last closing. `started` means: open, or failed."""
        pause = BACKOFF_S[0]
        reported = False

        def report() -> None:
            nonlocal reported
            if not reported:
                reported = True
                task_status.started()

        try:
            while True:
                since = trio.current_time()
                if await self._open_once(host, report) or not host.restarts:
                    break
                self._down(host, report)
                pause = BACKOFF_S[0] if trio.current_time() - since > STABLE_S else pause
                if await host.stopped_within(self._rng.uniform(pause / 2, pause)):
                    break
                pause = min(pause * 2, BACKOFF_S[1])
                host.row.become(State.STARTING)
            self._end(host, started=reported)
            report()
        finally:
            host.closed.set()

    async def _open_once(self, host: Host, report: Callable[[], None]) -> bool:
        """Open, serve and close a component once; whether it ended because it was asked to."""
        try:
            async with self._opened(host):
                report()
                await host.serve()
                host.row.become(State.STOPPING)
        except Exception as error:  # a boundary too: a component may raise anything
            host.failure = error
        return host.is_stopping

    def _down(self, host: Host, report: Callable[[], None]) -> None:
        host.row.become(State.FAILED, str(host.failure))
        self._log.warning("component down", component=host.id, error=str(host.failure))
        report()

    def _end(self, host: Host, *, started: bool) -> None:
        if host.failure is None:
            host.row.become(State.STOPPED)
            return
        host.row.become(State.FAILED, str(host.failure))
        if host.is_stopping:
            self._log.error("component failed while closing", component=host.id, exc_info=host.failure)
        elif started:
            self._log.error("component crashed", component=host.id, exc_info=host.failure)
            self._on_crash(host)

    @asynccontextmanager
    async def _opened(self, host: Host) -> AsyncIterator[None]:
        """The component, open; closing is bounded, and shielded from everybody but the clock."""
        with trio.CancelScope() as scope, unwrap_single():
            host.note_outside()
            async with host.component.open():
                # a start that is cancelled ignores `started`, and would wait for this task while it waits for `stop`
                await trio.lowlevel.checkpoint_if_cancelled()
                host.is_open, host.failure = True, None
                host.row.become(State.READY)
                scope.shield = True
                try:
                    yield
                finally:
                    host.is_open = False
                    scope.deadline = trio.current_time() + self._stop_timeout_s
        if scope.cancelled_caught and scope.shield:
            self._log.error("component did not close in time", component=host.id, seconds=self._stop_timeout_s)
