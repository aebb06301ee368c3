"""
One `subscriptions/listen` stream on a held session, and what its client may hear (2026-07-28, patterns/subscriptions).

Pure. Changes coalesce: a listener that is slow hears once of what changed ten times.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, final

import trio
from attrs import define, field

from sluiceway.pipeline.model.changes import RESOURCE_UPDATED
from sluiceway.pipeline.protocol.errors import InvalidParams
from sluiceway.pipeline.protocol.mcp import MetaKey
from sluiceway.pipeline.protocol.messages import EMPTY, Json, Notification, RequestId, Result

from .task_messages import MODERN_STATUS

ACKNOWLEDGED: Final = "notifications/subscriptions/acknowledged"
MAX_URIS: Final = 1000
"""Resources that one listener may watch."""

_LISTS: Final = {
    "toolsListChanged": ("tools", "notifications/tools/list_changed"),
    "promptsListChanged": ("prompts", "notifications/prompts/list_changed"),
    "resourcesListChanged": ("resources", "notifications/resources/list_changed"),
}
"""Member of the filter -> the capability that must declare `listChanged`, and the notification."""


@final
@define(eq=False)
class Listener:
    """One stream."""

    id: RequestId
    """The id of the listening request, with its exact type."""
    wanted: Mapping[str, Json]
    """The filter as the client sent it."""
    lists: dict[str, str] = field(factory=dict)
    """Granted members of the filter, and their notifications."""
    uris: list[str] = field(factory=list)
    """Resources whose subscription the upstream has accepted."""
    tasks: dict[str, Callable[[], Mapping[str, Json]]] = field(factory=dict)
    """Granted tasks, and what tells how each is."""
    finished: bool = False
    _pending: dict[tuple[str, str | None], None] = field(factory=dict)
    _wake: trio.Event = field(factory=trio.Event)

    @classmethod
    def make(cls, request_id: RequestId, params: Mapping[str, Json]) -> Listener:
        """
        Of a request's params.

        Raises:
            InvalidParams: They say not what to listen to, or name too many resources.
        """
        wanted = params.get("notifications")
        if not isinstance(wanted, dict):
            raise InvalidParams("notifications: must be an object that says what to listen to")
        uris = wanted.get("resourceSubscriptions", [])
        if not isinstance(uris, list) or not all(isinstance(uri, str) for uri in uris):
            raise InvalidParams("notifications.resourceSubscriptions: must be a list of uris")
        tasks = wanted.get("taskIds", [])
        if not isinstance(tasks, list) or not all(isinstance(task, str) for task in tasks) or len(tasks) > MAX_URIS:
            raise InvalidParams(f"notifications.taskIds: must be a list of at most {MAX_URIS} ids")
        if len(uris) > MAX_URIS:
            raise InvalidParams(
                f"notifications.resourceSubscriptions: {len(uris)} uris; at most {MAX_URIS} are watched"
            )
        return cls(request_id, wanted)

    def grant_lists(self, capabilities: Mapping[str, Json]) -> None:
        """Grant the lists that are asked for and whose changes the upstream tells."""
        for member, (capability, method) in _LISTS.items():
            if self.wanted.get(member) is True and declares(capabilities, capability, "listChanged"):
                self.lists[member] = method

    def acknowledgement(self) -> Notification:
        """The filter as granted."""
        granted: dict[str, Json] = dict.fromkeys(self.lists, True)
        if self.uris:
            granted["resourceSubscriptions"] = list(self.uris)
        if self.tasks:
            granted["taskIds"] = list(self.tasks)
        return self.tagged(ACKNOWLEDGED, {"notifications": granted})

    def hear(self, notification: Notification) -> bool:
        """Remember a change, if it is granted; whether it is."""
        if notification.method in self.lists.values():
            self._push(notification.method, None)
            return True
        uri = notification.params.get("uri") if notification.method == RESOURCE_UPDATED else None
        if not isinstance(uri, str) or not any(_covers(each, uri) for each in self.uris):
            return False
        self._push(RESOURCE_UPDATED, uri)
        return True

    def hear_task(self, task_id: str) -> None:
        """A granted task has changed."""
        self._push(MODERN_STATUS, task_id)

    def missed(self) -> None:
        """The upstream was not heard for a while: all that is granted may have changed."""
        for method in self.lists.values():
            self._push(method, None)
        for uri in self.uris:
            self._push(RESOURCE_UPDATED, uri)

    def finish(self) -> None:
        """Let the stream end gracefully, after what is pending."""
        self.finished = True
        self._wake.set()

    async def take(self) -> list[Notification]:
        """Wait for changes and take them; none means finished."""
        await self._wake.wait()
        if not self.finished:
            self._wake = trio.Event()
        changes, self._pending = list(self._pending), {}
        return [self.tagged(method, self._params(method, about)) for method, about in changes]

    def tagged(self, method: str, params: Mapping[str, Json]) -> Notification:
        """A message of this stream."""
        return Notification(method, {**params, "_meta": {MetaKey.SUBSCRIPTION_ID.value: self.id}})

    def end(self) -> Result:
        """The reply, when the stream has ended."""
        return Result({"resultType": "complete", "_meta": {MetaKey.SUBSCRIPTION_ID.value: self.id}})

    def _params(self, method: str, about: str | None) -> Mapping[str, Json]:
        if about is None:
            return EMPTY
        return self.tasks[about]() if method == MODERN_STATUS else {"uri": about}

    def _push(self, method: str, uri: str | None) -> None:
        if len(self._pending) <= MAX_URIS:  # parts of one watched resource may be many
            self._pending[method, uri] = None
        self._wake.set()


def declares(capabilities: Mapping[str, Json], capability: str, part: str) -> bool:
    """Whether an upstream says that it can do something."""
    said = capabilities.get(capability)
    return isinstance(said, dict) and said.get(part) is True


def _covers(watched: str, uri: str) -> bool:
    """What changed may be a part of what is watched (2025-11-25, server/resources, subscriptions)."""
    return uri == watched or uri.startswith(f"{watched.rstrip('/')}/")
