"""Exchanges and clients by hand, to try one stage or sink without an engine."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import trio

from ..model.exchange import Exchange, Link, Relay, deliver
from ..model.session import ANONYMOUS, Asker, Caller, Client, Session
from ..protocol.mcp import LATEST, LATEST_LEGACY, Era, Kind, method_of
from ..protocol.messages import EMPTY, Json, Notification, Request, RequestId

MODERN_CLIENT: Final = Client(era=Era.MODERN, version=LATEST)
"""A client of the latest revision, in memory, without capabilities."""


def legacy_client(version: str = LATEST_LEGACY, session_id: str = "session-1") -> Client:
    """A client of an older revision with a session of its own, as after its handshake."""
    session = Session(id=session_id, source="test", version=version)
    return Client(era=Era.LEGACY, version=version, session=session)


def memory_exchange(
    method: str = "tools/call",
    params: Mapping[str, Json] = EMPTY,
    *,
    request_id: RequestId = 1,
    client: Client = MODERN_CLIENT,
    caller: Caller = ANONYMOUS,
    source_id: str = "test",
    interim: list[Notification] | None = None,
    ask: Asker | None = None,
    deadline: float = math.inf,
    relay: Relay = deliver,
) -> Exchange:
    """
    An exchange without an engine, to hand to one stage or sink.

    Args:
        method: A method whose kind is NOTIFY makes a notification of it.
        params: Its params.
        request_id: The request's id.
        client: Who sent it.
        caller: Who that is, as an auth stage would have said.
        source_id: Id of the source it seems to come from.
        interim: Receives what is relayed, in order.
        ask: Answers questions to the client; without it they get -32601.
        deadline: Absolute, in seconds of the Trio clock. Nothing enforces it here.
        relay: The way back through a compiled chain (`Chain.relay`).
    """
    kind = method_of(method).kind

    async def emit(notification: Notification) -> None:
        await trio.lowlevel.checkpoint()
        if interim is not None:
            interim.append(notification)

    message = Notification(method, params) if kind is Kind.NOTIFY else Request(request_id, method, params)
    link = Link(emit, ask, deadline, caller=caller)
    return Exchange(
        request=message, kind=kind, client=client, source=source_id, caller=caller, link=link, way_back=relay
    )
