"""When the gateway drains, streams that only listen end: one task knows for all of them that know by the same event."""

from __future__ import annotations

from typing import final

import trio
from attrs import define, field

from .subscriptions import Listener


@final
@define(eq=False)
class _Watch:
    """Who waits for one event."""

    scope: trio.CancelScope = field(factory=trio.CancelScope)
    listeners: set[Listener] = field(factory=set)


@final
class Drains:
    """
    Finishes listeners when their event comes.

    Args:
        nursery: Where to wait. A task is there only while somebody listens.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._watches: dict[trio.Event, _Watch] = {}

    def add(self, draining: trio.Event, listener: Listener) -> None:
        """Finish a listener when `draining` is set; the caller takes it out with `remove`."""
        watch = self._watches.get(draining)
        if watch is None:
            watch = self._watches[draining] = _Watch()
            self._nursery.start_soon(self._finish, draining, watch)
        watch.listeners.add(listener)

    def remove(self, draining: trio.Event, listener: Listener) -> None:
        """Nobody waits for it any more. Harmless when it was finished."""
        watch = self._watches.get(draining)
        if watch is None:
            return
        watch.listeners.discard(listener)
        if not watch.listeners:
            del self._watches[draining]
            watch.scope.cancel()

    async def _finish(self, draining: trio.Event, watch: _Watch) -> None:
        with watch.scope:
            await draining.wait()
            if self._watches.get(draining) is watch:
                del self._watches[draining]
            for listener in watch.listeners:
                listener.finish()
