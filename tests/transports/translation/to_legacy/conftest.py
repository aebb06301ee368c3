"""A scripted legacy upstream, and modern clients in front of it."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from attrs import define, field
from msgspec.structs import replace

from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.session import Caller, Session
from sluiceway.pipeline.protocol.errors import CapacityExceeded, GatewayError, SessionNotFound
from sluiceway.pipeline.protocol.mcp import LATEST, LATEST_LEGACY, Era, Kind, MetaKey
from sluiceway.pipeline.protocol.messages import Notification, Reply, Request, Result
from sluiceway.pipeline.runtime.nursery import open_background_nursery
from sluiceway.pipeline.testing.exchanges import MODERN_CLIENT, memory_exchange
from sluiceway.transports.translation.config import TranslationConfig
from sluiceway.transports.translation.to_legacy import ToLegacy

ANA = Caller("ana", how="api_key")
BOB = Caller("bob", how="api_key")
EVERYTHING = {"elicitation": {"form": {}, "url": {}}, "sampling": {"tools": {}}, "roots": {}}
INFO = {"name": "fake", "version": "1"}
OFFERS = {
    "tools": {"listChanged": True},
    "resources": {"subscribe": True, "listChanged": True},
    "logging": {},
    "tasks": {"list": {}},
}

Handler = Callable[[Exchange], Awaitable[Reply]]


@define(eq=False)
class LegacyServer:
    """What a sink is to a session: it knows those that have introduced themselves, and serves nobody else."""

    handlers: dict[str, Handler] = field(factory=dict)
    """What it does with a method; it answers others with an empty result."""
    capabilities: dict[str, Any] = field(factory=lambda: dict(OFFERS))
    version: str = LATEST_LEGACY
    seen: list[Exchange] = field(factory=list)
    sessions: list[Session] = field(factory=list)
    """Those it knows, oldest first."""
    cancelled: list[int] = field(factory=list)
    """Ids of requests that nobody waits for any more."""
    fail: GatewayError | None = None
    max_sessions: int = 1000
    ends_after: float = 0.0
    """Seconds for which a session that was ended still takes a place."""
    ended_at: list[float] = field(factory=list)

    async def __call__(self, exchange: Exchange) -> Reply:
        """Serve one exchange, as a sink does."""
        await trio.lowlevel.checkpoint()
        self.seen.append(exchange)
        assert exchange.client.era is Era.LEGACY
        session = exchange.client.session
        assert session is not None
        if self.fail is not None:
            raise self.fail
        if exchange.method == "initialize":
            now = trio.current_time()
            ending = sum(now < at + self.ends_after for at in self.ended_at)
            if len(self.sessions) + ending >= self.max_sessions:
                raise CapacityExceeded("no place")
            self.sessions.append(session)
            session.on_close(lambda: self._end(session))
            if "initialize" not in self.handlers:
                return Result(
                    {
                        "protocolVersion": self.version,
                        "capabilities": self.capabilities,
                        "serverInfo": INFO,
                        "instructions": "be kind",
                    }
                )
        elif session not in self.sessions:
            raise SessionNotFound("no such session; initialize again")
        if exchange.kind is Kind.NOTIFY:
            return Result()
        handler = self.handlers.get(exchange.method)
        if handler is None:
            return Result()
        answered = False
        try:
            reply = await handler(exchange)
            answered = True
            return reply
        except GatewayError:
            answered = True
            raise
        finally:
            if not answered:
                assert isinstance(exchange.request, Request)
                assert isinstance(exchange.request.id, int)
                self.cancelled.append(exchange.request.id)

    def _end(self, session: Session) -> None:
        if session in self.sessions:
            self.sessions.remove(session)
            self.ended_at.append(trio.current_time())

    def of(self, method: str) -> list[Mapping[str, Any]]:
        """Params of the messages of one method, in order."""
        return [exchange.request.params for exchange in self.seen if exchange.method == method]

    def methods(self) -> list[str]:
        """Methods of all messages, in order."""
        return [exchange.method for exchange in self.seen]

    def forget(self) -> None:
        """Lose all sessions without a word."""
        self.sessions.clear()

    def say(self, method: str, params: Mapping[str, Any] | None = None) -> None:
        """Say something that no request caused, on every session."""
        for session in self.sessions:
            session.notify(Notification(method, params or {}))


@define(eq=False)
class Peer:
    """A modern client, whoever it is."""

    service: ToLegacy
    interim: list[Notification] = field(factory=list)
    numbers: int = 100

    def exchange(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        *,
        caller: Caller = ANA,
        capabilities: Mapping[str, Any] | None = None,
        meta: Mapping[str, Any] | None = None,
        transport: str = "http",
        address: str | None = "192.0.2.1",
    ) -> Exchange:
        """A request of it, with the metadata that every modern one has."""
        self.numbers += 1
        declared = EVERYTHING if capabilities is None else capabilities
        stamped = {
            MetaKey.VERSION.value: LATEST,
            MetaKey.CLIENT_CAPABILITIES.value: declared,
            MetaKey.CLIENT_INFO.value: {"name": "peer", "version": "2"},
            **(meta or {}),
        }
        client = replace(
            MODERN_CLIENT,
            capabilities=declared,
            info={"name": "peer", "version": "2"},
            transport=transport,
            address=address,
        )
        return memory_exchange(
            method,
            {**(params or {}), "_meta": stamped},
            request_id=self.numbers,
            client=client,
            caller=caller,
            interim=self.interim,
        )

    async def call(self, method: str, params: Mapping[str, Any] | None = None, **kwargs: Any) -> Reply:
        """Send one, and take its reply."""
        return await self.service(self.exchange(method, params, **kwargs))

    async def tool(self, name: str = "t", **kwargs: Any) -> Any:
        """Call a tool; the result as a value."""
        reply = await self.call("tools/call", {"name": name, "arguments": {}}, **kwargs)
        assert isinstance(reply, Result), reply
        return reply.value

    async def retry(self, asked: Mapping[str, Any], answers: Mapping[str, Any], name: str = "t", **kwargs: Any) -> Any:
        """Answer questions by calling the tool again; the result as a value."""
        params = {"name": name, "arguments": {}, "inputResponses": answers, "requestState": asked["requestState"]}
        reply = await self.call("tools/call", params, **kwargs)
        assert isinstance(reply, Result), reply
        return reply.value


Serving = Callable[..., Any]


@asynccontextmanager
async def _serving(server: LegacyServer, *, addressed: bool = False, **config: Any) -> AsyncIterator[Peer]:
    context = Context(id="up", random=random.Random(1))
    service = ToLegacy("up", server, context, TranslationConfig(**config), addressed=addressed)
    async with open_background_nursery() as nursery:
        service.start(nursery)
        try:
            yield Peer(service)
        finally:
            service.end()
    assert server.sessions == []


@pytest.fixture
def serving() -> Serving:
    """Opens a translation in front of a server; yields a client."""
    return _serving


@pytest.fixture
def server() -> LegacyServer:
    """The server of a test."""
    return LegacyServer()
