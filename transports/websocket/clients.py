"""
The clients on WebSockets of one source, whoever has their connections: who may come, who is there, and when they go.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import final

from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.model.handle import Handle
from sluiceway.pipeline.model.security import Refusal
from sluiceway.pipeline.model.session import Client
from sluiceway.pipeline.protocol.errors import Draining, GatewayError
from sluiceway.pipeline.protocol.mcp import Era

from ..http_source.answers import Answer, HttpError, error_answer, refusal_answer
from ..http_source.hosts import HostPolicy
from .config import ClientConfig
from .conversation import ClientLimits, Conversation, Socket
from .handshake import Visit, check_visit, choose_subprotocol
from .wire import Refused

Accept = Callable[[str | None], AbstractAsyncContextManager[Socket]]
"""Opens the WebSocket with the sub-protocol that was chosen. Raises `Refused` if the client left."""


@final
class Clients:
    """
    Those of a source.

    Args:
        context: The source's.
        config: What each may cost.
        path: Of the endpoint.
        policy: Who may address it, and from which pages.
        identify: Raises if a pipeline's auth stage does not know the client.
    """

    def __init__(
        self,
        context: Context,
        config: ClientConfig,
        path: str,
        policy: HostPolicy,
        identify: Callable[[Client], Awaitable[object]],
    ) -> None:
        self.path = path
        """Where clients open a WebSocket."""
        self.config = config
        self._context = context
        self._policy = policy
        self._identify = identify
        self._limits = ClientLimits(config.max_message, config.max_in_flight_per_connection, config.max_unread)
        self._handle: Handle | None = None
        self._draining = False
        self._talking: set[Conversation] = set()

    def __len__(self) -> int:
        """How many are there."""
        return len(self._talking)

    def connect(self, handle: Handle | None) -> None:
        """Say which pipeline they feed from now on; None for none."""
        self._handle = handle

    def stop_accepting(self) -> None:
        """Refuse further ones with `Draining`, and leave each when it has its answers. Idempotent."""
        self._draining = True
        for each in self._talking:
            each.stop_accepting()

    async def serve(self, visit: Visit, accept: Accept) -> None:
        """
        Serve whoever asked for a WebSocket until it is gone.

        Raises:
            HttpError: The request is refused.
            GatewayError: Likewise, by a rule of the gateway or by an auth stage.
        """
        check_visit(visit, self.path, self._policy)
        subprotocol = choose_subprotocol(visit.offered)
        await self._identify(_visitor(visit))
        if self._draining or self._handle is None:
            raise Draining("the gateway is shutting down; try again elsewhere or later", retry_after_s=1.0)
        client = Conversation(self._context, self._handle, visit, self._limits)
        self._talking.add(client)
        try:
            async with accept(subprotocol) as socket:
                await client.serve(socket)
        except Refused:
            pass  # it left
        finally:
            self._talking.discard(client)

    def refusal(self, error: HttpError | GatewayError, address: str | None) -> Answer:
        """The response to who is not served. Whoever watches over the gateway is told where a rule was broken."""
        self._context.log.debug("websocket refused", reason=str(error), address=address)
        if isinstance(error, HttpError):
            return refusal_answer(error)
        self._context.alarm(Refusal(reason=error.event or error.reason, source=self._context.id, address=address))
        return error_answer(error, codes=self._context.codes)

    def refused_at_the_edge(self, address: str | None) -> None:
        """Tell whoever watches of a request that parsers are known to read differently."""
        self._context.alarm(Refusal(reason="smuggling", source=self._context.id, address=address))


def _visitor(visit: Visit) -> Client:
    """The sender of a request to open a WebSocket."""
    return Client(
        era=Era.MODERN, version=None, transport="websocket",
        address=visit.address, headers=visit.headers, certificate=visit.certificate,
    )  # fmt: skip
