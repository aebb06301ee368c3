"""
A handshake with a legacy upstream that goes on when its client does not wait for it.

A request that was sent may open a session, and only its answer says which one there is to be ended.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import final

import trio
from attrs import define, field

from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.protocol.errors import GatewayError, SessionNotFound
from sluiceway.pipeline.protocol.messages import Reply


@final
@define(eq=False)
class Handshake:
    """One handshake, in a task of the session's."""

    name: str
    """What the upstream is called in errors."""
    exchange: Exchange
    """The client's `initialize`."""
    done: trio.Event = field(factory=trio.Event)
    """Set when nothing more comes of it."""
    _reply: Reply | None = None
    _error: GatewayError | None = None

    async def run(self, greet: Callable[[Exchange], Awaitable[Reply]]) -> None:
        """Say hello to the upstream; the task that hosts it."""
        try:
            self._reply = await greet(self.exchange)
        except GatewayError as error:
            self._error = error
        finally:
            self.done.set()

    async def outcome(self) -> Reply:
        """
        Wait for the answer. When the wait is cancelled, nothing more of the handshake reaches the client.

        Raises:
            SessionNotFound: The session was ended meanwhile.
            GatewayError: It failed.
        """
        try:
            await self.done.wait()
        finally:
            if not self.done.is_set():
                self.exchange.mute()
        if self._error is not None:
            raise self._error
        if self._reply is None:
            raise SessionNotFound(f"{self.name}: the session was ended during its handshake")
        return self._reply
