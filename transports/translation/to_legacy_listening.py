"""`subscriptions/listen` of a modern client, served from a held session (2026-07-28, basic/patterns/subscriptions)."""

from __future__ import annotations

import trio

from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.protocol.messages import Reply, Request
from sluiceway.pipeline.runtime.nursery import unwrap_single

from .held_session import HeldSession
from .listener import Listener
from .task_messages import offers_tasks
from .to_legacy_held_tasks import Find, require_extension


async def serve_listener(exchange: Exchange, held: HeldSession, find: Find) -> Reply:
    """
    Acknowledge what is granted, then tell of changes until the gateway drains or the session is closed.

    Args:
        exchange: The listening.
        held: The client's session.
        find: Finds its tasks.

    Raises:
        InvalidParams: The filter is none.
        MissingCapability: It names tasks, and the client does not declare the extension for them.
        GatewayError: The session cannot be opened.
    """
    assert isinstance(exchange.request, Request)
    listener = Listener.make(exchange.request.id, exchange.request.params)
    wanted = dict.fromkeys(listener.wanted.get("taskIds", ()))
    if wanted and offers_tasks(await held.offers()):
        require_extension(exchange)
    tasks = [found[1] for task_id in wanted if (found := find(exchange, task_id)) is not None]

    async def finish_when_draining() -> None:
        await exchange.draining.wait()
        listener.finish()

    try:
        await held.listen(listener)
        for task in tasks:
            listener.tasks[task.id] = task.details
            task.listeners.add(listener)
            task.need()
        await exchange.relay(listener.acknowledgement())
        with unwrap_single():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(finish_when_draining)
                while changes := await listener.take():
                    for change in changes:
                        await exchange.relay(change)
                nursery.cancel_scope.cancel()
    finally:
        for task in tasks:
            task.listeners.discard(listener)
        held.leave(listener)
    return listener.end()
