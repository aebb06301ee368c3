"""
A handshake with a legacy upstream that goes on when nobody waits for it any more.

A request that was sent may open a session, and only its answer says which one there is to be ended.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar, final

import trio
from attrs import define, field

from sluiceway.pipeline.protocol.errors import GatewayError, SessionNotFound

_T = TypeVar("_T")


@final
@define(eq=False)
class Handshake(Generic[_T]):
    """One handshake, in a task of the session's; any number of others wait for its outcome."""

    name: str
    """What the upstream is called in errors."""
    done: trio.Event = field(factory=trio.Event)
    """Set when nothing more comes of it."""
    _outcomes: list[_T] = field(factory=list)
    _error: GatewayError | None = None

    async def run(self, greet: Callable[[], Awaitable[_T]]) -> None:
        """Say hello to the upstream; the task that hosts it."""
        try:
            self._outcomes.append(await greet())
        except GatewayError as error:
            self._error = error
        finally:
            self.done.set()

    async def outcome(self) -> _T:
        """
        Wait for the answer.

        Raises:
            SessionNotFound: The session was ended meanwhile.
            GatewayError: It failed.
        """
        await self.done.wait()
        if self._error is not None:
            raise self._error
        if not self._outcomes:
            raise SessionNotFound(f"{self.name}: the session was ended during its handshake")
        return self._outcomes[0]
