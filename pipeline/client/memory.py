"""
A client inside the process: it calls a sink, or any other service, as a source would.

`check --connect` discovers upstreams with it, and tests talk to a sink without a source.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final, final

import trio

from ..model.exchange import Exchange, Link, Service
from ..model.session import Client, Session
from ..protocol.mcp import Era, method_of
from ..protocol.messages import EMPTY, Json, Notification, Reply, Request, Response, Result
from ..runtime.nursery import open_background_nursery
from .client import CLIENT_INFO, McpClient
from .handlers import Handlers
from .handshake import EraChoice
from .wire import Deliver

MAX_UNASKED: Final = 256
"""Notifications of a session that wait for a listener; above this the latest are dropped."""

_PROBE_S: Final = 10.0


@final
class ServiceWire:
    """One service. Cancelling a call cancels its exchange, so nothing needs to be announced."""

    probe_timeout_s = _PROBE_S
    announces_cancel = False

    def __init__(self, service: Service, handlers: Handlers, info: Mapping[str, Json]) -> None:
        self._service = service
        self._handlers = handlers
        self._info = info
        self._session: Session | None = None
        self._unasked, self._asked = trio.open_memory_channel[Notification](MAX_UNASKED)
        self.era = Era.LEGACY
        self.version = ""

    async def call(self, request: Request, deliver: Deliver, headers: Mapping[str, str] = EMPTY) -> Reply:
        """Make one exchange. `GatewayError`s come out as the service raised them."""
        if request.method == "initialize":
            self._session = Session(id="in-process", source="client", notify=self._notify)
            self._session.capabilities, self._session.info = self._handlers.capabilities, self._info
        reply = await self._service(self._exchange(request, deliver))
        if request.method == "initialize" and self._session is not None and isinstance(reply, Result):
            self._session.version = reply.value.get("protocolVersion")
        return reply

    async def send(self, message: Notification | Response) -> None:
        """Pass a notification on; questions are answered where they are asked."""
        if isinstance(message, Notification):
            await self._service(self._exchange(message, _nowhere))

    async def listen(self, deliver: Deliver) -> None:
        """Deliver what the session is notified of."""
        async for notification in self._asked:
            await deliver(notification)

    def forget(self) -> None:
        """End the session."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def _notify(self, notification: Notification) -> None:
        try:
            self._unasked.send_nowait(notification)
        except trio.WouldBlock:
            return

    def _exchange(self, message: Request | Notification, deliver: Deliver) -> Exchange:
        client = Client(
            era=self.era,
            version=self.version or None,
            capabilities=self._handlers.capabilities,
            info=self._info,
            session=self._session if self.era is Era.LEGACY else None,
        )
        link = Link(emit=deliver, ask=self._handlers.answer)
        return Exchange(request=message, kind=method_of(message.method).kind, client=client, source="client", link=link)


async def _nowhere(_message: Notification | Request) -> None:
    """A notification causes none in return. Not a checkpoint."""


@asynccontextmanager
async def open_service_client(
    service: Service,
    *,
    handlers: Handlers | None = None,
    era: EraChoice = "auto",
    info: Mapping[str, Json] = CLIENT_INFO,
) -> AsyncIterator[McpClient]:
    """
    Talk to a service in this process; its session ends with the block.

    Args:
        service: A sink that is open, or a chain around one.
        handlers: Answers to the server's questions, and an ear for its notifications.
        era: What to try; `auto` prefers modern.
        info: The client's name and version.

    Raises:
        McpError: The server refuses, or has no revision in common with us.
        GatewayError: What the service raises.
    """
    handlers = handlers or Handlers()
    wire = ServiceWire(service, handlers, info)
    try:
        async with open_background_nursery() as nursery:
            client = McpClient(wire, handlers, nursery, info)
            await client.connect(era)
            yield client
    finally:
        wire.forget()
