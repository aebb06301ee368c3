"""What a route knows for one client: a legacy session, or a principal of the modern era. Never shared between two."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final, final

import trio
from attrs import define, field

from sluiceway.pipeline.model.session import Session
from sluiceway.pipeline.protocol.messages import Notification, Result

from .known import Owners, Templates
from .leg import Leg, Promises
from .naming import NameTable

LIST_OF: Final[Mapping[str, str]] = {
    "notifications/tools/list_changed": "tools",
    "notifications/prompts/list_changed": "prompts",
    "notifications/resources/list_changed": "resources",
}
"""The list that a notification is about."""


def changed(kind: str) -> Notification:
    """A list changed: `tools`, `prompts` or `resources`."""
    return Notification(f"notifications/{kind}/list_changed")


@final
@define(eq=False)
class Changes:
    """Changes that a route itself has to tell one listener; those of one kind are told once."""

    kinds: frozenset[str]
    """What the listener asked for."""
    pending: dict[str, None] = field(factory=dict)
    wake: trio.Event = field(factory=trio.Event)

    def push(self, kind: str) -> None:
        """Remember a change, if the listener asked for such."""
        if kind in self.kinds:
            self.pending[kind] = None
            self.wake.set()

    async def take(self) -> list[str]:
        """Wait for changes and take them."""
        await self.wake.wait()
        self.wake = trio.Event()
        kinds, self.pending = list(self.pending), {}
        return kinds


@final
@define(eq=False)
class View:
    """One client's view of the upstreams."""

    session: Session | None = None
    """None in the modern era."""
    promises: Promises = field(factory=Promises)
    legs: dict[str, Leg] = field(factory=dict)
    """A legacy session's part at each upstream, by its id."""
    uris: Owners = field(factory=Owners)
    templates: Templates = field(factory=Templates)
    tables: dict[str, tuple[NameTable, float]] = field(factory=dict)
    """Names and when they were looked up (Trio clock), by kind; only where names do not say whose they are."""
    late: dict[tuple[str, str], Result | None] = field(factory=dict)
    """First pages that came too late for their list, by method and id of the upstream; None while they are awaited."""
    listeners: set[Changes] = field(factory=set)
    answered: bool = False
    """Its handshake has been answered: upstreams that come now are late."""
    _ends: dict[int, Callable[[], None]] = field(factory=dict)

    def on_end(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Have `callback` called when the client is gone. Returns a function that takes it back."""
        key = id(callback)
        self._ends[key] = callback
        return lambda: self._ends.pop(key, None) and None

    def heard(self, notification: Notification) -> None:
        """An upstream says something to the session outside any exchange."""
        kind = LIST_OF.get(notification.method)
        if kind is not None:
            self.forget(kind)
        if self.session is not None:
            self.session.notify(notification)

    def opened(self, leg: Leg) -> None:
        """An upstream has joined, or has come back."""
        if self.answered:
            self.tell(kind for kind in ("tools", "prompts", "resources") if kind in leg.capabilities)

    def tell(self, kinds: Iterable[str]) -> None:
        """Tell the client that lists have changed."""
        for kind in kinds:
            self.forget(kind)
            if self.session is not None:
                self.session.notify(changed(kind))
            for listener in self.listeners:
                listener.push(kind)

    def forget(self, kind: str) -> None:
        """A list changed: look names up again when they are needed."""
        self.tables.pop(kind, None)

    def close(self) -> None:
        """The client is gone: end everything that goes on for it."""
        self._finish()
        for leg in self.legs.values():
            leg.close()

    def leave(self) -> None:
        """The route closes: its sessions at upstreams are left to the route that comes after it."""
        self._finish()
        for leg in self.legs.values():
            leg.leave()

    def _finish(self) -> None:
        for callback in list(self._ends.values()):
            callback()
