"""
`timeout`: how long the inner chain may take.

Why a cancel scope of its own, when the engine already keeps a deadline for every exchange: the engine's deadline ends
the *whole* exchange, and cannot be seen by anybody inside. This stage ends only what is inside of it, with an
exception, so that a retry or a fallback around it can act. It costs some microseconds, which only the chains that name
the stage pay. Where one time-out for everything is enough, `pipelines.<id>.timeout` is the cheaper place.

The nearest deadline wins, whoever set it: the stage never gives an exchange more time than it has.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, final

import trio
from attrs import define, frozen

from sluiceway.pipeline.model.component import Context, Middleware, middleware
from sluiceway.pipeline.model.exchange import Exchange, Relay, Service
from sluiceway.pipeline.model.options import MINUTE, SECOND, Duration, option, render_duration
from sluiceway.pipeline.model.when import When
from sluiceway.pipeline.protocol.errors import DeadlineExceeded
from sluiceway.pipeline.protocol.mcp import Kind
from sluiceway.pipeline.protocol.messages import Notification, Reply

_PROGRESS: Final = "notifications/progress"


@final
@frozen(kw_only=True)
class Override:
    """Another time for some exchanges."""

    when: When = option(doc="The exchanges meant, as in the guard of a stage.", example={"name": "export_*"})
    after: Duration = option(gt=0, doc="Time they get instead.", example="2m")


@final
@define(eq=False)
class _Watch:
    """The scope around one inner chain and what moves its deadline."""

    scope: trio.CancelScope
    after_s: float
    latest: float
    """Absolute end, however much progress there is."""
    listens: bool
    """Whether every notification moves the deadline, or progress only."""

    def move(self) -> None:
        """Start the time anew."""
        self.scope.deadline = min(trio.current_time() + self.after_s, self.latest)

    @property
    def is_extended(self) -> bool:
        """Whether progress has moved the deadline as far as it may."""
        return self.scope.deadline == self.latest


@final
@middleware("timeout")
class Timeout(Middleware):
    """
    End the inner chain when it takes too long; the upstream is told to stop, the client gets `deadline_exceeded`.

    * The first entry of `overrides` that matches decides; without one, `after` does.
    * A progress notification starts the time anew (`on_progress: reset`), but never beyond `at_most`. MCP asks for
      such a maximum (basic/lifecycle, timeouts).
    * LISTEN exchanges (`subscriptions/listen`) last as long as the client wants. With `idle_after` one that has been
      silent for that long ends.
    * What inner stages and sinks read as `exchange.deadline` is this deadline if it is the nearest.

    Raises:
        DeadlineExceeded: With the time that was given, in `timeout_ms`.
    """

    reads_results = False
    role = "timeout"

    @frozen
    class Config:
        """Options of `timeout`."""

        after: Duration = option(Duration(30 * SECOND), gt=0, doc="Time until the reply must be there.")
        on_progress: Literal["reset", "keep"] = option(
            "reset", doc="Whether a progress notification starts the time anew, up to `at_most`."
        )
        at_most: Duration = option(
            Duration(10 * MINUTE), gt=0, doc="Longest time an exchange gets when progress keeps starting it anew."
        )
        idle_after: Duration | None = option(
            None, gt=0, doc="Time a LISTEN exchange may be silent; without it there is no limit.", example="15m"
        )
        overrides: tuple[Override, ...] = option(
            (),
            doc="Other times for some exchanges; the first that matches counts.",
            example=[{"when": {"method": "tools/call", "name": "export_*"}, "after": "2m"}],
        )

    def __init__(self, config: Config, context: Context) -> None:
        super().__init__(config, context)
        self._after = config.after
        self._idle_after = config.idle_after
        self._at_most = config.at_most
        self._resets = config.on_progress == "reset"
        self._overrides: tuple[tuple[Callable[[Exchange], bool], float], ...] = tuple(
            (override.when.compile(), override.after) for override in config.overrides
        )

    async def __call__(self, exchange: Exchange, call_next: Service) -> Reply:
        """Run the inner chain in a scope with a deadline."""
        listens = exchange.kind is Kind.LISTEN
        after_s = self._idle_after if listens else self._time_for(exchange)
        if after_s is None:
            return await call_next(exchange)
        now = trio.current_time()
        latest = float("inf") if listens else now + max(after_s, self._at_most)
        watch = _Watch(trio.CancelScope(deadline=now + after_s), after_s, latest, listens)
        with watch.scope:
            exchange.marks[self.context.id] = watch
            try:
                return await call_next(exchange)
            finally:
                exchange.marks.pop(self.context.id, None)
        raise self._too_late(watch)

    async def relay(self, exchange: Exchange, notification: Notification, forward: Relay) -> None:
        """Move the deadline, then pass the notification on."""
        watch = exchange.marks.get(self.context.id)
        if isinstance(watch, _Watch) and (watch.listens or (self._resets and notification.method == _PROGRESS)):
            watch.move()
        await forward(exchange, notification)

    def _time_for(self, exchange: Exchange) -> float:
        for matches, after_s in self._overrides:
            if matches(exchange):
                return after_s
        return self._after

    def _too_late(self, watch: _Watch) -> DeadlineExceeded:
        stage, given = self.context.id, render_duration(watch.after_s)
        if watch.listens:
            return DeadlineExceeded(f"nothing happened for {given} (idle_after of {stage})", timeout_s=watch.after_s)
        if watch.is_extended and watch.after_s < self._at_most:
            longest = render_duration(self._at_most)
            return DeadlineExceeded(
                f"no answer within {longest}, in spite of progress (at_most of {stage})", timeout_s=self._at_most
            )
        return DeadlineExceeded(
            f"no answer within {given} (after of {stage}); report progress, or raise the limit",
            timeout_s=watch.after_s,
        )
