"""
Who hears of changes: legacy sessions and modern `subscriptions/listen` streams.

Legacy sessions get every `list_changed` and the updates of the uris they subscribed to; a listener gets only the types
it asked for (2026-07-28, basic/patterns/subscriptions), each message tagged with its own request id. Changes coalesce:
a listener that is slow hears once of what changed ten times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal, final

import trio
from attrs import define, field

from sluiceway.pipeline.model.session import Session
from sluiceway.pipeline.protocol.mcp import MetaKey
from sluiceway.pipeline.protocol.messages import Json, Notification, RequestId

from .errors import InvalidParams

ListKind = Literal["tools", "resources", "prompts"]

_FILTERS: Final[Mapping[ListKind, str]] = {
    "tools": "toolsListChanged",
    "prompts": "promptsListChanged",
    "resources": "resourcesListChanged",
}
_UPDATED: Final = "notifications/resources/updated"


@final
@define(eq=False)
class SessionData:
    """What one embedded server keeps for one legacy session."""

    state: dict[str, Any] = field(factory=dict)
    """The handlers' own."""
    log_level: str = "info"
    """Set by `logging/setLevel`."""
    uris: set[str] = field(factory=set)
    """Subscribed resources."""


@final
@define(eq=False)
class Listener:
    """One `subscriptions/listen` stream."""

    id: RequestId
    """The id of the listening request, with its exact type."""
    lists: frozenset[ListKind]
    uris: frozenset[str]
    finished: bool = False
    _pending: dict[tuple[str, str | None], None] = field(factory=dict)
    _wake: trio.Event = field(factory=trio.Event)

    def push(self, method: str, uri: str | None = None) -> None:
        """Remember a change; one that is remembered already stays once. Bounded by what was asked for."""
        self._pending[method, uri] = None
        self._wake.set()

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
        return [self.notification(method, {} if uri is None else {"uri": uri}) for method, uri in changes]

    def notification(self, method: str, params: Mapping[str, Json]) -> Notification:
        """A message of this stream, tagged as such."""
        return Notification(method, {**params, "_meta": {MetaKey.SUBSCRIPTION_ID: self.id}})


@final
class Hub:
    """
    The audience of one open server.

    Args:
        key: Under which session data is kept; the sink's id.
        max_uris: Resources one session or listener may subscribe to.
        announce: Told of every change, whether or not anybody subscribed to it. Must not block.
    """

    def __init__(self, key: str, max_uris: int, announce: Callable[[Notification], None]) -> None:
        self._key = key
        self._announce = announce
        self.max_uris = max_uris
        self._listeners: set[Listener] = set()
        self._sessions: dict[Session, Callable[[], None]] = {}

    def size(self) -> int:
        """Listeners and sessions known; bounded by what sources admit."""
        return len(self._listeners) + len(self._sessions)

    def data_of(self, session: Session) -> SessionData:
        """The session's data, made at first sight; it survives a reload, and ends with the session."""
        data = session.state.get(self._key)
        if not isinstance(data, SessionData):
            data = session.state[self._key] = SessionData()
        if session not in self._sessions and not session.closed:
            self._sessions[session] = session.on_close(lambda: self._forget(session))
        return data

    def _forget(self, session: Session) -> None:
        self._sessions.pop(session, None)

    def listen(self, request_id: RequestId, lists: Iterable[ListKind], uris: frozenset[str]) -> Listener:
        """
        Register a listener; the caller removes it with `leave`.

        Raises:
            InvalidParams: More than `max_uris` resources.
        """
        self.check_uris(len(uris))
        listener = Listener(request_id, frozenset(lists), uris)
        self._listeners.add(listener)
        return listener

    def check_uris(self, count: int) -> None:
        """
        Refuse to watch more than `max_uris` resources.

        Raises:
            InvalidParams: Names the limit.
        """
        if count > self.max_uris:
            raise InvalidParams(f"at most {self.max_uris} resources may be watched at once; unsubscribe from some")

    def leave(self, listener: Listener) -> None:
        """Forget a listener."""
        self._listeners.discard(listener)

    def list_changed(self, kind: ListKind) -> None:
        """Tell everybody who wants to know that a list changed. Never blocks."""
        method = f"notifications/{kind}/list_changed"
        self._announce(Notification(method))
        for listener in self._listeners:
            if kind in listener.lists:
                listener.push(method)
        for session in list(self._sessions):
            session.notify(Notification(method))

    def resource_updated(self, uri: str) -> None:
        """Tell the subscribers of a resource that it changed. Never blocks."""
        self._announce(Notification(_UPDATED, {"uri": uri}))
        for listener in self._listeners:
            if uri in listener.uris:
                listener.push(_UPDATED, uri)
        for session in list(self._sessions):
            if uri in self.data_of(session).uris:
                session.notify(Notification(_UPDATED, {"uri": uri}))

    def close(self) -> None:
        """End every stream gracefully, and let go of the sessions."""
        for listener in self._listeners:
            listener.finish()
        while self._sessions:
            _, take_back = self._sessions.popitem()
            take_back()


def granted_lists(wanted: Mapping[str, Json], offered: Iterable[ListKind]) -> frozenset[ListKind]:
    """The lists a filter asks for and the server has."""
    return frozenset(kind for kind in offered if wanted.get(_FILTERS[kind]) is True)


def acknowledgement(lists: Iterable[ListKind], uris: Iterable[str]) -> dict[str, Json]:
    """The filter as granted, for `notifications/subscriptions/acknowledged`."""
    granted: dict[str, Json] = {_FILTERS[kind]: True for kind in sorted(lists)}
    watched = sorted(uris)
    return {"notifications": {**granted, "resourceSubscriptions": watched} if watched else granted}
