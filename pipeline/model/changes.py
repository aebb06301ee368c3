"""
What upstreams say has changed: lists, and resources somebody subscribed to.

A notification that no request caused goes from a sink straight to the sessions, past every chain. Stages that keep
what upstreams told them (a cache, a list of tools) learn of it here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

from ..protocol.errors import UpstreamProtocolError
from ..protocol.messages import Notification

Listener = Callable[[str, Notification], None]
"""Told (sink id, notification) of every change; must not block and must not raise."""

LIST_CHANGES: Final = {
    "notifications/tools/list_changed": ("tools/list",),
    "notifications/prompts/list_changed": ("prompts/list",),
    "notifications/resources/list_changed": ("resources/list", "resources/templates/list"),
}
"""Notification -> the lists whose earlier answers are void (MCP 2026-07-28, caching)."""

RESOURCE_UPDATED: Final = "notifications/resources/updated"
"""One resource has other contents; `params.uri` names it as its upstream does, without any prefix of a `route`."""


@final
class Changes:
    """The hub between sinks, which announce, and stages, which listen while they are open."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []

    def announce(self, sink: str, notification: Notification) -> None:
        """
        Tell everybody who listens; others than changes are ignored, so a sink passes on all that it receives.

        An update whose params do not pass the gate names no resource, and is ignored as well.

        Args:
            sink: Id of the component that received it.
            notification: As the upstream sent it.
        """
        if not self._listeners:
            return
        if notification.method in LIST_CHANGES or (notification.method == RESOURCE_UPDATED and _readable(notification)):
            for listener in tuple(self._listeners):
                listener(sink, notification)

    def listen(self, listener: Listener) -> Callable[[], None]:
        """
        Have `listener` told of every change from now on.

        Returns:
            A function that takes it back; call it when the component closes. Harmless if called again.
        """
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None

    def __len__(self) -> int:
        return len(self._listeners)


def _readable(notification: Notification) -> bool:
    """Whether the params can be read: listeners must not raise."""
    try:
        return notification.params is not None
    except UpstreamProtocolError:
        return False
