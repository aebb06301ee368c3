"""In whose name a held session is opened at a legacy upstream, and what the gateway says there in that name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import count
from typing import Final, final

import trio
from msgspec.structs import replace

from sluiceway.pipeline.model.exchange import Exchange, Link, Service
from sluiceway.pipeline.model.session import Asker, Session
from sluiceway.pipeline.protocol.errors import CapacityExceeded, UpstreamProtocolError, UpstreamUnavailable
from sluiceway.pipeline.protocol.mcp import LATEST_LEGACY, LEGACY_VERSIONS, Era, method_of
from sluiceway.pipeline.protocol.messages import ErrorReply, Json, Notification, Reply, Request

from .to_legacy_messages import introduction

ROOM_S: Final = 0.25
"""Pause after an idle session was ended for this one, before the handshake is tried again."""
ROOM_TRIES: Final = 40
"""How often it is: a process may take some seconds to end."""


@final
class Introduction:
    """
    Args:
        name: The sink's id.
        call: Asks the upstream.
        exchange: The first one of the caller: its client's capabilities and name are told.
        ask: Takes what the upstream asks because of something that the gateway said.
        make_room: Ends an idle session of another caller, where the sink has no place for one more; whether it did.
    """

    def __init__(self, name: str, call: Service, exchange: Exchange, ask: Asker, make_room: Callable[[], bool]) -> None:
        self._name = name
        self._call = call
        self._source, self._caller = exchange.source, exchange.caller
        self._client = replace(
            exchange.client, era=Era.LEGACY, version=None, session=None, headers={}, certificate=None
        )
        self._ask = ask
        self._make_room = make_room
        self._ids = count(1)

    def next_id(self) -> int:
        """An id for a request: the clients that share a session know nothing of each other's."""
        return next(self._ids)

    def session(self, session_id: str, notify: Callable[[Notification], None]) -> Session:
        """
        A session to be opened.

        Args:
            session_id: Unguessable.
            notify: Takes what the upstream says on it of its own accord.
        """
        return Session(
            id=session_id,
            source=self._source,
            caller=self._caller,
            last_activity=trio.current_time(),
            capabilities=self._client.capabilities,
            info=self._client.info,
            notify=notify,
            ask=self._ask,
        )

    async def shake_hands(self, session: Session) -> Mapping[str, Json]:
        """
        Open a session; what the upstream says of itself.

        Raises:
            UpstreamUnavailable: It refuses.
            UpstreamProtocolError: It speaks no revision that we know.
            GatewayError: As the sink does.
        """
        reply = await self._hello(session)
        if isinstance(reply, ErrorReply):
            raise UpstreamUnavailable(f"{self._name}: the upstream refused the handshake: {reply.message}")
        version = reply.value.get("protocolVersion")
        if version not in LEGACY_VERSIONS:
            raise UpstreamProtocolError(f"{self._name}: the upstream answers a handshake with version {version!r:.40}")
        session.version = version
        await self._call(self.exchange(session, Notification("notifications/initialized")))
        return reply.value

    async def say(self, session: Session, method: str, params: Mapping[str, Json]) -> Reply:
        """Ask the upstream something of our own. Raises as the sink does."""
        return await self._call(self.exchange(session, Request(self.next_id(), method, params)))

    def exchange(self, session: Session, message: Request | Notification) -> Exchange:
        """An exchange of our own in the client's name; nobody hears what comes before its reply."""
        return Exchange(
            request=message,
            kind=method_of(message.method).kind,
            client=replace(self._client, version=session.version, session=session),
            source=self._source,
            caller=self._caller,
            link=Link(drop, self._ask, caller=self._caller),
        )

    async def _hello(self, session: Session) -> Reply:
        """Send `initialize`; where the sink has no place for one more session, an idle one makes room."""
        hello = introduction(session.info, session.capabilities, LATEST_LEGACY)
        for tries in range(ROOM_TRIES):
            try:
                return await self.say(session, "initialize", hello)
            except CapacityExceeded:
                if tries == 0 and not self._make_room():
                    raise
            await trio.sleep(ROOM_S)
        return await self.say(session, "initialize", hello)


async def drop(_: Notification) -> None:
    """Take a notification about a request of our own, which nobody waits for."""
    await trio.lowlevel.checkpoint()
