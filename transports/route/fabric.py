"""What all parts of a route share: its upstreams, and how one of them, or all at once, are asked for an exchange."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final, final

import trio
from attrs import define, field
from msgspec.structs import replace

from sluiceway.pipeline.model.component import State
from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.protocol.errors import GatewayError, SessionNotFound
from sluiceway.pipeline.protocol.mcp import PROGRESS
from sluiceway.pipeline.protocol.messages import ErrorReply, Json, Notification, Reply, Request, Result
from sluiceway.pipeline.runtime.nursery import unwrap_single

from ..task_ids import TaskIds, tells_of_tasks
from .config import RouteConfig
from .cursors import Cursors
from .naming import Directory, Upstream
from .view import View

MARGIN: Final = 0.9
"""Share of the time an exchange has left that it waits for upstreams; the rest is for the answer without them."""
MAX_COLLISIONS: Final = 1000
"""Shared names that are remembered as said."""

Ask = Callable[[Upstream], Awaitable[Reply]]
Outcome = Reply | GatewayError | None
"""What became of a question to one upstream: its reply, what went wrong, or nothing in time."""


@final
@define(eq=False)
class Fabric:
    """The upstreams of an open route."""

    id: str
    config: RouteConfig
    upstreams: Sequence[Upstream]
    directory: Directory
    cursors: Cursors
    tasks: TaskIds
    nursery: trio.Nursery
    """For what outlives an exchange: handshakes, and lists of late upstreams."""
    info: Json
    """`serverInfo` of the whole."""
    log: Any
    report: Callable[[State, str], None]
    random: Callable[[], float]
    """From 0 to 1, for jitter."""
    _collisions: dict[str, list[str]] = field(factory=dict)

    async def send(
        self, view: View, upstream: Upstream, exchange: Exchange, request: Request | Notification | None = None
    ) -> Reply:
        """
        Ask one upstream, in the client's session with it.

        A session that the upstream has lost is opened again, once: it says so before it does anything. Ids of tasks
        that come back are those that clients know.

        Raises:
            GatewayError: As the upstream's sink does; its handshake may have failed, too.
        """
        if not tells_of_tasks(exchange):
            return await self._send(view, upstream, exchange, request)
        way = self.tasks.through(exchange, upstream.id)
        return self.tasks.reply(exchange, upstream.id, await self._send(view, upstream, way, request))

    async def _send(
        self, view: View, upstream: Upstream, exchange: Exchange, request: Request | Notification | None
    ) -> Reply:
        request = exchange.request if request is None else request
        leg = view.legs.get(upstream.id)
        if leg is None:
            return await upstream.service(
                exchange if request is exchange.request else replace(exchange, request=request)
            )
        session = leg.session if leg.is_open else await leg.ready()
        try:
            return await upstream.service(replace(exchange, request=request, client=leg.client(exchange.client)))
        except SessionNotFound:
            if view.session is None or view.session.closed:
                raise
            if leg.session is session:
                leg.lost()
            await leg.ready()
            return await upstream.service(replace(exchange, request=request, client=leg.client(exchange.client)))

    async def gather(self, exchange: Exchange, upstreams: Iterable[Upstream], ask: Ask) -> dict[str, Outcome]:
        """
        Ask several upstreams at once, and wait for `list_timeout` or most of what the exchange has left.

        Returns:
            What became of each question, by the upstream's id; values of results can be read.
        """
        outcomes: dict[str, Outcome] = {upstream.id: None for upstream in upstreams}

        async def one(upstream: Upstream) -> None:
            try:
                reply = await ask(upstream)
                if isinstance(reply, Result):
                    _ = reply.value  # what is merged passes the gate at every depth
                outcomes[upstream.id] = reply
            except GatewayError as error:
                outcomes[upstream.id] = error.with_traceback(None)  # its frames hold all of this: a cycle
                self.log.warning("an upstream failed", upstream=upstream.id, method=exchange.method, error=str(error))

        with trio.move_on_after(self.patience(exchange)), unwrap_single():
            async with trio.open_nursery() as nursery:
                for upstream in upstreams:
                    nursery.start_soon(one, upstream, name=upstream.id)
        return outcomes

    def patience(self, exchange: Exchange) -> float:
        """Seconds that an exchange waits for upstreams."""
        return max(0.0, min(self.config.list_timeout, MARGIN * (exchange.deadline - trio.current_time())))

    def part(self, exchange: Exchange, request: Request | Notification | None = None) -> Exchange:
        """
        A view of an exchange for one of several upstreams asked at once: stages of their chains do not see each
        other's marks, and their progress is not the exchange's.
        """

        async def relay(_exchange: Exchange, notification: Notification) -> None:
            if notification.method != PROGRESS:
                await exchange.relay(notification)

        return replace(exchange, request=request or exchange.request, marks={}, way_back=relay)

    def collide(self, name: str, ids: Sequence[str]) -> None:
        """
        Say once that several upstreams have the same name: in the log; and in the status, unless the configuration has
        decided for such names whose they are.
        """
        if self._collisions.get(name) == list(ids) or len(self._collisions) >= MAX_COLLISIONS:
            return
        self._collisions[name] = list(ids)
        policy = self.config.collisions
        if policy != "error":
            self.log.info("a name is shared", name=name, upstreams=list(ids), collisions=policy)
            return
        self.log.error("a name is ambiguous", name=name, upstreams=list(ids), collisions=policy)
        self.report(State.DEGRADED, f"{len(self._collisions)} ambiguous names; {name!r} is in {', '.join(ids)}")


def missing(outcomes: dict[str, Outcome], absent: int | None = None) -> list[str]:
    """
    Ids of the upstreams that said nothing useful.

    Args:
        outcomes: As `Fabric.gather` returns them.
        absent: The error code by which an upstream says that it has nothing of the kind, which is an answer.
    """
    return [
        key
        for key, outcome in outcomes.items()
        if not isinstance(outcome, Result) and not (isinstance(outcome, ErrorReply) and outcome.code == absent)
    ]


def failure_of(outcomes: dict[str, Outcome]) -> ErrorReply | GatewayError | None:
    """The first failure, an upstream's word before our own."""
    failures = [each for each in outcomes.values() if isinstance(each, ErrorReply | GatewayError)]
    return next((each for each in failures if isinstance(each, ErrorReply)), failures[0] if failures else None)
