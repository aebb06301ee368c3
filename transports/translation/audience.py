"""
Who hears what a legacy upstream says on a held session outside of any request: listeners, and calls that want its logs.

The session has one log level and one set of subscriptions for all who share it: what is asked of the upstream is what
all of them together need, and each hears only what it asked for itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import final

import trio

from sluiceway.pipeline.protocol.errors import UpstreamProtocolError
from sluiceway.pipeline.protocol.mcp import LOG_MESSAGE
from sluiceway.pipeline.protocol.messages import Json, Notification, Reply, Result

from .held_call import HeldCall
from .listener import Listener, declares
from .to_legacy_messages import is_wanted, most_verbose

Request = Callable[[str, Mapping[str, Json]], Awaitable[Reply]]
"""Asks the upstream something of our own; raises `GatewayError`."""


@final
class Audience:
    """
    Args:
        request: Asks the upstream within the session.
    """

    def __init__(self, request: Request) -> None:
        self._request = request
        self._listeners: set[Listener] = set()
        self._uris: dict[str, int] = {}
        self._subscribing = trio.Lock()
        self._calls: dict[HeldCall, str | None] = {}
        self._level: str | None = None
        self._setting = trio.Lock()
        self.unheard = 0
        """Notifications that were nobody's."""

    @property
    def is_listening(self) -> bool:
        """Whether anybody wants to hear of changes, now and whenever they come."""
        return bool(self._listeners)

    async def introduce(self, capabilities: Mapping[str, Json], say: Request) -> None:
        """
        Tell an upstream that has just opened a session what all of them need.

        Args:
            capabilities: What it declared.
            say: Asks within the new session.
        """
        self._level = None
        level = self._wanted_level()
        if level is not None and "logging" in capabilities:
            self._level = level
            await say("logging/setLevel", {"level": level})
        for uri in list(self._uris):
            await say("resources/subscribe", {"uri": uri})

    @contextmanager
    def attended(self, call: HeldCall, level: str | None) -> Iterator[None]:
        """While a call is under way, it may be asked, and hears log messages from `level` on, if it wants any."""
        self._calls[call] = level
        try:
            yield
        finally:
            del self._calls[call]

    async def set_level(self, capabilities: Mapping[str, Json]) -> None:
        """Have the upstream log for whoever wants most, if it logs and has not been told."""
        async with self._setting:
            wanted = self._wanted_level()
            if wanted is None or wanted == self._level or "logging" not in capabilities:
                return
            if isinstance(await self._request("logging/setLevel", {"level": wanted}), Result):
                self._level = wanted

    async def listen(self, listener: Listener, capabilities: Mapping[str, Json]) -> None:
        """
        Let a stream hear what the upstream says, from now on until `leave`; it then knows what it was granted.

        Args:
            listener: The stream.
            capabilities: What the upstream declared.
        """
        self._listeners.add(listener)
        listener.grant_lists(capabilities)
        if declares(capabilities, "resources", "subscribe"):
            for uri in dict.fromkeys(listener.wanted.get("resourceSubscriptions", ())):
                if await self._subscribe(uri):
                    listener.uris.append(uri)

    def leave(self, listener: Listener) -> list[str]:
        """Forget a stream; resources that `unsubscribe` has to be called for."""
        self._listeners.discard(listener)
        return listener.uris

    async def unsubscribe(self, uris: list[str], *, tell: bool) -> None:
        """
        Somebody does not watch these any more.

        Args:
            uris: As `leave` gave them.
            tell: Whether there is an upstream to be told of those that nobody watches now.

        Raises:
            GatewayError: It cannot be told.
        """
        async with self._subscribing:
            unwatched = []
            for uri in uris:
                self._uris[uri] -= 1
                if not self._uris[uri]:
                    del self._uris[uri]
                    unwatched.append(uri)
            for uri in unwatched if tell else ():
                await self._request("resources/unsubscribe", {"uri": uri})

    def missed(self) -> None:
        """The upstream was away for a while: all that anybody listens to may have changed."""
        for listener in self._listeners:
            listener.missed()

    def finish(self) -> None:
        """End every stream gracefully."""
        for listener in self._listeners:
            listener.finish()

    def hear(self, notification: Notification) -> None:
        """Take what the upstream says; never blocks, and never raises."""
        try:
            self.unheard += not self._deliver(notification)
        except UpstreamProtocolError:  # its params do not pass the gate
            self.unheard += 1

    def addressee(self, *, crowd: bool) -> HeldCall | None:
        """
        The call that a question is about which does not say so; None if that cannot be known.

        Args:
            crowd: Of several calls, any may be another person's; else the latest that is attended is asked.
        """
        calls = [call for call in self._calls if call.capabilities]
        if len(calls) < 2 or crowd:
            return calls[0] if len(calls) == 1 else None
        return next((call for call in reversed(calls) if not call.is_parked), calls[-1])

    def _deliver(self, notification: Notification) -> bool:
        if notification.method == LOG_MESSAGE:
            wanting = [call for call, level in self._calls.items() if is_wanted(level, notification.params)]
            if len(wanting) != 1:
                return False
            wanting[0].keep(notification)
            return True
        heard = [listener.hear(notification) for listener in self._listeners]
        return any(heard)

    async def _subscribe(self, uri: str) -> bool:
        async with self._subscribing:
            if uri not in self._uris:
                reply = await self._request("resources/subscribe", {"uri": uri})
                if not isinstance(reply, Result):
                    return False
            self._uris[uri] = self._uris.get(uri, 0) + 1
        return True

    def _wanted_level(self) -> str | None:
        levels = [level for level in self._calls.values() if level is not None]
        return most_verbose(levels) if levels else None
