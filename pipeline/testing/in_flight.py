"""What the harness knows about one request on its way, and about each stage it passes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal, final

import trio
from attrs import define

from ..model.exchange import Exchange
from ..model.handle import Ticket
from ..model.session import Caller
from ..protocol.messages import Notification, Reply


@final
@define(eq=False)
class StageRun:
    """One pass of an exchange through one stage."""

    stage: str
    """Id of the stage in its chain."""
    component: str
    """Its component id: `pipelines.main.cache`."""
    exchange: Exchange
    """The exchange as it came in."""
    method: str
    """Method of the request as the stage saw it."""
    entered: float
    """When the exchange entered, in seconds of the Trio clock."""
    seconds: float | None = None
    """How long it stayed, everything further inside included; None while it is there."""
    outcome: str = ""
    """`result`, `error`, or the name of the exception that came out; empty while it is there."""


@final
class InFlight:
    """
    A request on its way, from the client's side.

    Args:
        open_ticket: Makes its ticket; given what receives the notifications.
        caller: Who makes it.
    """

    def __init__(
        self, open_ticket: Callable[[Callable[[Notification], Awaitable[None]]], Ticket], caller: Caller
    ) -> None:
        self.interim: list[Notification] = []
        """What was relayed so far, in order."""
        self.reply: Reply | None = None
        """The reply; None before it came, and for good if the client cancelled."""
        self._done = trio.Event()
        self._ticket = open_ticket(self._emit)
        self.exchange.caller = self.exchange.link.caller = caller

    @property
    def exchange(self) -> Exchange:
        """The exchange as its source made it."""
        return self._ticket.exchange

    @property
    def is_done(self) -> bool:
        """Whether it has ended."""
        return self._done.is_set()

    def cancel(self, reason: Literal["client", "shutdown"] = "client") -> None:
        """Do what a client does with a cancel notice, or by hanging up. Harmless after the end."""
        if not self.is_done:
            self._ticket.cancel(reason)

    async def wait(self) -> Reply | None:
        """Wait for the end; None if there is no reply, because the client cancelled or sent a notification."""
        await self._done.wait()
        return self.reply

    async def run(self) -> None:
        """Serve it; the harness does."""
        try:
            self.reply = await self._ticket.run()
        finally:
            self._done.set()

    async def _emit(self, notification: Notification) -> None:
        await trio.lowlevel.checkpoint()
        self.interim.append(notification)
