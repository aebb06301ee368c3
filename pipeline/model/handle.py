"""What connects a source to its pipeline: a handle that takes messages, and a ticket for each exchange."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Literal, Protocol

from ..protocol.messages import Notification, Reply, Request
from .exchange import Exchange
from .kept_scope import KeptScope

if TYPE_CHECKING:
    from .session import Asker, Client


class Handle(Protocol):
    """What a source feeds: the pipeline it is connected to."""

    def __call__(
        self,
        message: Request | Notification,
        *,
        client: Client,
        emit: Callable[[Notification], Awaitable[None]],
        ask: Asker | None = None,
    ) -> Ticket:
        """
        Make an exchange of a message. Nothing happens until `ticket.run()`.

        Args:
            message: As the codec yielded it.
            client: Who sent it.
            emit: Writes one notification to the client, in order, before the reply.
            ask: Puts a question to the client; None where that is impossible.
        """
        ...


class Ticket(Protocol):
    """One exchange's place in the pipeline."""

    exchange: Exchange

    async def run(self, kept: KeptScope | None = None, /) -> Reply | None:
        """
        Serve the exchange in the current task.

        Args:
            kept: The scope of the task's exchanges, if it has one, in place of one for this exchange.

        Returns:
            The reply; always one, errors included, except for NOTIFY and when the client cancelled (None).
        """

    def cancel(self, reason: Literal["client", "shutdown"] = "client") -> None:
        """Cancel the exchange from any task; the upstream is told. Harmless before `run` and after its end."""
