"""A compiled chain with admission and deadlines around it: where exchanges are served."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, final

import structlog
import trio

from ..model.document import Limits
from ..model.exchange import Exchange, Link, Patience
from ..model.security import Alarm, ignore
from ..model.session import Asker, Client
from ..protocol.errors import CODE_TABLES
from ..protocol.mcp import Kind
from ..protocol.messages import Notification, Request
from .admission import Admission, Listeners
from .chain import Chain
from .deadlines import Deadlines, Line
from .ids import random_id
from .ticket import PipelineTicket

_NOTIFY: Final = Kind.NOTIFY


@final
class Lane(Line[PipelineTicket]):
    """
    One compiled chain and the exchanges that are inside it; a pipeline can have several while it is changed.

    Most exchanges have all of the pipeline's timeout, so that their deadlines come in order: they stand in line. The
    others stand `apart`, and have an entry among the deadlines each.
    """

    def __init__(self, chain: Chain, deadlines: Deadlines) -> None:
        super().__init__(deadlines)
        self.chain = chain
        self.draining = trio.Event()
        """Set when this lane's LISTEN exchanges should finish."""
        self.apart: set[PipelineTicket] = set()
        """Exchanges inside that do not stand in line: LISTEN, a timeout of the client's own, one that has passed."""
        self.idle: trio.Event | None = None
        """Whoever waits for the last one to leave."""

    @property
    def tickets(self) -> set[PipelineTicket]:
        """Every exchange inside; bounded by admission."""
        return {*self.times, *self.apart}

    def tell_idle(self) -> None:
        """Tell whoever waits, if nobody is inside any more."""
        if self.idle is not None and not self.times and not self.apart:
            self.idle.set()
            self.idle = None

    async def wait_idle(self) -> None:
        """Wait until nobody is inside. Always a checkpoint."""
        await trio.lowlevel.checkpoint()
        while self.times or self.apart:
            if self.idle is None:
                self.idle = trio.Event()
            await self.idle.wait()

    async def finish(self, drain_timeout_s: float, grace_s: float) -> int:
        """
        Let everybody finish: LISTEN exchanges at once, others within `drain_timeout_s`, then cancel them.

        Returns:
            How many had to be cancelled.
        """
        self.draining.set()
        with trio.move_on_after(drain_timeout_s):
            await self.wait_idle()
        late = self.tickets
        for ticket in late:
            ticket.cancel("shutdown")
        with trio.move_on_after(grace_s):
            await self.wait_idle()
        return len(late)


@final
class Pipeline:
    """
    Serves exchanges through the current chain.

    Args:
        pipeline_id: Its id in the configuration.
        chain: What exchanges go through; replace it with `swap`.
        limits: Time-outs and capacity.
        deadlines: The engine's; somebody must run its `serve`.
        codes: Error code table (`errors.CODE_TABLES`).
        new_id: Makes incident ids.
        alarm: Told of every exchange that ends with an error the gateway decided.
    """

    def __init__(
        self,
        pipeline_id: str,
        chain: Chain,
        limits: Limits,
        deadlines: Deadlines,
        *,
        codes: Mapping[str, int] = CODE_TABLES["spec"],
        new_id: Callable[[], str] = random_id,
        alarm: Alarm = ignore,
    ) -> None:
        self.id = pipeline_id
        self.limits = limits
        self.codes = codes
        self.admission = Admission(limits)
        self.listeners = Listeners(limits)
        self.deadlines = deadlines
        self.timeout: float = limits.timeout
        """Seconds that an exchange has, unless its client grants it less."""
        self._patience: Patience | None = None
        if limits.timeout_on_progress == "reset":
            self._patience = Patience(limits.timeout, limits.timeout_max)
        self.lane = Lane(chain, deadlines)
        self.new_id = new_id
        self.alarm = alarm
        self.draining = False
        """New exchanges are refused with `Draining`."""
        self.served = 0
        """Exchanges that ended with a reply of their sink or stages."""
        self.refused = 0
        """Exchanges that ended with an error the gateway decided."""
        self.cancelled = 0
        """Exchanges that their client cancelled."""
        self.log: Any = structlog.get_logger().bind(pipeline=pipeline_id)

    def handle(
        self,
        message: Request | Notification,
        *,
        client: Client,
        emit: Callable[[Notification], Awaitable[None]],
        ask: Asker | None = None,
        source: str = "test",
    ) -> PipelineTicket:
        """See `component.Handle`."""
        kind = message.row.kind if type(message) is Request else _NOTIFY
        if kind is _NOTIFY and type(message) is Request:
            kind = Kind.CALL
        lane = self.lane
        link = Link(emit, ask, math.inf, self._patience)
        return PipelineTicket(
            Exchange(message, kind, client, link, source, lane.draining, lane.chain.relay), self, lane
        )

    def swap(self, chain: Chain) -> Lane:
        """
        Send new exchanges through another chain.

        Returns:
            The old lane, in which earlier exchanges go on; `finish` it before its components close.
        """
        old, self.lane = self.lane, Lane(chain, self.deadlines)
        return old

    def status(self) -> dict[str, int | float | str]:
        """Counts for `status`."""
        admission = self.admission
        return {
            "id": self.id,
            "in_flight": admission.in_flight,
            "waiting": admission.waiting,
            "listeners": self.listeners.in_flight,
            "served": self.served,
            "refused": self.refused,
            "cancelled": self.cancelled,
            "average_ms": round(admission.spent_s / admission.left * 1000, 3) if admission.left else 0.0,
        }
