"""
Legacy sessions: each belongs to the upstream that answered its handshake.

It stays there as long as it can, for subscriptions, tasks and log levels are kept by that upstream alone. When that
cannot be reached any more, or probes find it down, and there is another one, the session is over: its client
initializes again, and is at home with the other. What it sent then was not sent on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

import trio

from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.session import Session
from sluiceway.pipeline.protocol.errors import ConnectFailed, SessionNotFound, UpstreamUnavailable
from sluiceway.pipeline.protocol.mcp import Kind
from sluiceway.pipeline.protocol.messages import Reply, Result

from .dispatch import Dispatch
from .group import Group
from .member import Member

_LAST_ANSWERS_S: Final = 1.0
"""How long a session stays whose upstream is gone, so that the answers which say so can still leave through it."""


@final
class Sessions:
    """
    Args:
        sink_id: The sink's; a session keeps its upstream under it, so that a reload does not lose it.
        group: Whose upstreams they are.
        dispatch: Sends.
        nursery: Where sessions end.
    """

    def __init__(self, sink_id: str, group: Group, dispatch: Dispatch, nursery: trio.Nursery) -> None:
        self._id = sink_id
        self._group = group
        self._dispatch = dispatch
        self._nursery = nursery
        self._pinned: dict[Session, tuple[Member, Callable[[], None]]] = {}

    def __len__(self) -> int:
        return len(self._pinned)

    async def serve(self, exchange: Exchange, session: Session) -> Reply:
        """
        Send an exchange to its session's upstream.

        Raises:
            SessionNotFound: That is gone, or there was none.
            GatewayError: As the upstream's sink raises.
        """
        member = self.of(session)
        if member is None:
            return await self._open(exchange, session)
        if exchange.kind is Kind.NOTIFY:
            return await member.service(exchange)
        now = trio.current_time()
        if member.vitals.probed.is_down and self._group.has_other(member, now):
            raise self._lost(session, member)
        try:
            return await self._dispatch.ask(member, exchange)
        except SessionNotFound:
            self.unpin(session)
            raise
        except (ConnectFailed, UpstreamUnavailable) as error:
            if not self._group.has_other(member, now):
                raise
            raise self._lost(session, member) from error

    async def _open(self, exchange: Exchange, session: Session) -> Reply:
        if exchange.kind is Kind.NOTIFY:
            await trio.lowlevel.checkpoint()
            return Result()
        if exchange.method not in ("initialize", "ping"):
            raise SessionNotFound(f"{self._id}: no upstream has this session; initialize again")
        member, reply = await self._dispatch.anywhere(exchange)
        if isinstance(reply, Result) and exchange.method == "initialize":
            self.pin(session, member)
        return reply

    def of(self, session: Session) -> Member | None:
        """The upstream of a session; None if it has none, or none that is still in the group."""
        pinned = self._pinned.get(session)
        if pinned is not None:
            return pinned[0]
        member = self._group.by_id.get(str(session.state.get(self._id, "")))
        if member is not None and not session.closed:
            self.pin(session, member)
        return member

    def pin(self, session: Session, member: Member) -> None:
        """A session belongs to an upstream from now on."""
        self.unpin(session)
        if not session.closed:
            session.state[self._id] = member.id
            self._pinned[session] = (member, session.on_close(lambda: self._forget(session)))

    def unpin(self, session: Session) -> None:
        """It belongs to nobody any more."""
        pinned = self._pinned.pop(session, None)
        if pinned is not None:
            pinned[1]()
        session.state.pop(self._id, None)

    def count(self, member: Member) -> int:
        """Sessions of an upstream."""
        return sum(1 for each, _ in self._pinned.values() if each is member)

    def leave(self) -> None:
        """The sink closes; sessions go on, and the next generation finds out whose they are."""
        for _, take_back in self._pinned.values():
            take_back()
        self._pinned.clear()

    def _lost(self, session: Session, member: Member) -> SessionNotFound:
        """The session's upstream is gone: its client has to initialize again, and comes to another one."""
        self.unpin(session)
        self._nursery.start_soon(_close_later, session)
        return SessionNotFound(f"{self._id}: {member.id}, which had this session, is gone; initialize again")

    def _forget(self, session: Session) -> None:
        self._pinned.pop(session, None)


async def _close_later(session: Session) -> None:
    await trio.sleep(_LAST_ANSWERS_S)
    session.close()
