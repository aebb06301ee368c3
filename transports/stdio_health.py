"""
What the deaths and the noise of its servers mean for a sink: who waits, who is refused, and what `status` says.

A call that finds a short pause waits for its end and is served by the next server; one that finds a longer one is
refused with the time after which it can succeed, for a caller can make better use of that time than we can.
"""

from __future__ import annotations

from typing import Final, Protocol, final

import trio

from sluiceway.pipeline.model.component import Context, State
from sluiceway.pipeline.protocol.errors import UpstreamUnavailable

from .restarts import RestartConfig, Restarts

_WORTH_WAITING_S: Final = 1.0


class Server(Protocol):
    """A server as far as its health goes: a child process, or a connection to something elsewhere."""

    proven: bool
    """It has answered a request."""
    started_at: float
    """Trio clock seconds."""


@final
class Health:
    """
    The condition of a sink's servers, from its opening to its closing.

    Args:
        context: The sink's; it is told of every change.
        config: How often servers may die.
        nursery: Where the end of a quarantine is waited for.
    """

    def __init__(self, context: Context, config: RestartConfig, nursery: trio.Nursery) -> None:
        self._context = context
        self._nursery = nursery
        self._restarts = Restarts(config, context.random)
        self._noisy: set[Server] = set()
        self._why = ""
        self._last_death = float("-inf")
        self._state = State.READY
        self._closed = False

    async def admit(self) -> bool:
        """
        Wait until a server may be started. Not a checkpoint if that is now.

        Returns:
            Whether there was a wait: what the caller knew before may not be so any more.

        Raises:
            UpstreamUnavailable: The wait is longer than a call should be held up; `retry_after_s` says how long it is.
        """
        now = trio.current_time()
        wait_s = self._restarts.wait_s(now)
        if not wait_s:
            return False
        quarantined = self._restarts.is_quarantined(now)
        if quarantined or wait_s > _WORTH_WAITING_S:
            error = UpstreamUnavailable(f"{self._context.id}: {self._why}", retry_after_s=wait_s)
            error.event = "quarantined" if quarantined else ""
            raise error
        await trio.sleep(wait_s)
        return True

    def died(self, why: str, lived_s: float) -> None:
        """A server ended that was not asked to, or could not be started at all."""
        now = trio.current_time()
        config, restarts = self._restarts.config, self._restarts
        was_quarantined = restarts.is_quarantined(now)
        restarts.died(now, lived_s)
        self._last_death = now
        if was_quarantined:
            return
        if restarts.is_quarantined(now):
            self._why = f"the server {why}; quarantined for {config.quarantine:g} s, for it keeps dying"
            self._context.log.error("server quarantined", why=why, seconds=config.quarantine)
            self._nursery.start_soon(self._end_quarantine, why)
        else:
            self._why = (
                f"the server {why}, death {restarts.recent} of {config.max} within {config.within:g} s; "
                f"the next start waits for {restarts.wait_s(now):.1f} s"
            )
        self._report()

    def answered(self, child: Server) -> None:
        """A server answered: if it was started after the last death, all is well again."""
        child.proven = True
        if self._why and child.started_at >= self._last_death and not self._restarts.wait_s(trio.current_time()):
            self._why = ""
            self._report()

    def note_noise(self, child: Server, noisy: bool) -> None:
        """A server began, or ceased, to fill its standard output with what is not MCP."""
        if noisy:
            self._noisy.add(child)
        else:
            self._noisy.discard(child)
        self._report()

    def forget(self, child: Server) -> None:
        """A server is gone, and its noise with it."""
        if child in self._noisy:
            self.note_noise(child, False)

    def close(self) -> None:
        """Report nothing any more: the component is closing."""
        self._closed = True

    async def _end_quarantine(self, why: str) -> None:
        await trio.sleep_until(self._restarts.not_before)
        # not failed any more: where only the ready get calls, nothing would ever try the server again
        self._why = f"the server {why}; after its quarantine it is on probation, and starts with the next call"
        self._report()

    def _report(self) -> None:
        if self._closed:
            return
        before = self._state
        if self._restarts.is_quarantined(trio.current_time()):
            self._state, reason = State.FAILED, self._why
        elif self._why:
            self._state, reason = State.DEGRADED, self._why
        elif self._noisy:
            self._state, reason = State.DEGRADED, "the server writes more than 100 lines a minute that are not MCP"
        else:
            self._state, reason = State.READY, ""
        if before is State.FAILED is not self._state:
            self._context.report(State.STARTING, reason)
        self._context.report(self._state, reason)
