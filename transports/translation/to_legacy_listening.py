"""`subscriptions/listen` of a modern client, served from a held session (2026-07-28, basic/patterns/subscriptions)."""

from __future__ import annotations

import trio

from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.protocol.messages import Reply, Request
from sluiceway.pipeline.runtime.nursery import unwrap_single

from .held_session import HeldSession
from .listener import Listener


async def serve_listener(exchange: Exchange, held: HeldSession) -> Reply:
    """
    Acknowledge what is granted, then tell of changes until the gateway drains or the session is closed.

    Raises:
        InvalidParams: The filter is none.
        GatewayError: The session cannot be opened.
    """
    assert isinstance(exchange.request, Request)
    listener = Listener.make(exchange.request.id, exchange.request.params)

    async def finish_when_draining() -> None:
        await exchange.draining.wait()
        listener.finish()

    try:
        await held.listen(listener)
        await exchange.relay(listener.acknowledgement())
        with unwrap_single():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(finish_when_draining)
                while changes := await listener.take():
                    for change in changes:
                        await exchange.relay(change)
                nursery.cancel_scope.cancel()
    finally:
        held.leave(listener)
    return listener.end()
