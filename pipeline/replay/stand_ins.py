"""What stands in for components that reach the world outside while a tape is played."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import trio

from ..model.component import Context, Middleware, Sink, Source
from ..model.exchange import Exchange, Service
from ..model.handle import Handle
from ..model.session import Caller
from ..protocol.messages import ErrorReply, Reply


@final
class PlayedSource(Source):
    """Listens to nobody: the player speaks through what it is connected to."""

    def __init__(self, source_id: str) -> None:
        super().__init__(None, Context(id=f"sources.{source_id}"))
        self._handle: Handle | None = None
        self._serving = trio.Event()

    async def serve(self, handle: Handle) -> None:
        """See `Source`."""
        self._handle = handle
        self._serving.set()
        await trio.sleep_forever()

    async def handle(self) -> Handle:
        """What it is connected to, once it is."""
        await self._serving.wait()
        assert self._handle is not None
        return self._handle


@final
class PlayedSink(Sink):
    """Holds nothing open: the player answers in its place, at the edge."""

    def __init__(self, sink_id: str) -> None:
        super().__init__(None, Context(id=f"sinks.{sink_id}"))

    async def __call__(self, exchange: Exchange) -> Reply:
        """See `Sink`."""
        await trio.lowlevel.checkpoint()
        raise AssertionError(f"{self.context.id} is played, and was called")


@final
class PlayedIdentity(Middleware):
    """
    A stage that finds out who calls, from a credential that is on no tape: it knows what was found out then.

    Args:
        stage_id: Whose place it takes.
        found: Who makes an exchange, or what the client was told instead; None if the tape does not say.
    """

    reads_results = False

    def __init__(self, stage_id: str, found: Callable[[Exchange], Caller | ErrorReply | None]) -> None:
        super().__init__(None, Context(id=stage_id))
        self._found = found

    async def __call__(self, exchange: Exchange, call_next: Service) -> Reply:
        """See `Middleware`."""
        found = self._found(exchange)
        if isinstance(found, ErrorReply):
            await trio.lowlevel.checkpoint()
            return found
        if found is not None:
            exchange.authenticate(found)
        return await call_next(exchange)
