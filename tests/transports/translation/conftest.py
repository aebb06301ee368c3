"""A scripted upstream of the modern era, and a legacy client in front of a `Translator`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest
import trio
from attrs import evolve

from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.session import Caller, Client, Session
from sluiceway.pipeline.protocol.errors import UnsupportedVersion
from sluiceway.pipeline.protocol.mcp import LATEST, LATEST_LEGACY, MODERN_VERSIONS, Era, Kind, MetaKey, meta_of
from sluiceway.pipeline.protocol.messages import ErrorReply, Notification, Reply, Request, Result
from sluiceway.pipeline.testing import memory_exchange
from sluiceway.transports.translation.config import TranslationConfig
from sluiceway.transports.translation.translator import Translator

SERVER = {
    "supportedVersions": [LATEST],
    "capabilities": {
        "tools": {"listChanged": True},
        "resources": {"subscribe": True, "listChanged": False},
        "logging": {},
    },
    "instructions": "Ask nicely.",
    "_meta": {MetaKey.SERVER_INFO.value: {"name": "fake", "version": "1"}},
    "resultType": "complete",
}
Answer = Callable[[Exchange], Awaitable[Reply]]


class ModernUpstream:
    """Speaks 2026-07-28 and nothing else, as a sink with detection tells of it."""

    def __init__(self) -> None:
        self.seen: list[Request | Notification] = []
        self.exchanges: list[Exchange] = []
        self.discovered: Reply = Result(SERVER)
        self.handshake: Reply | None = None
        """What `initialize` is answered with; the sink tells that the upstream knows none if it is None."""
        self.answers: dict[str, Answer] = {}
        self.listeners: list[Exchange] = []
        """Those that listen now."""
        self.lost = trio.Event()
        """Set it to end all that listen."""
        self.refuses_listeners: Reply | Exception | None = None
        self.grants: Callable[[str], bool] = lambda uri: not uri.startswith("none:")
        self.silent = False
        """Whether listeners are not answered."""
        self.waiting = 0
        """Those that wait for an answer."""

    def of(self, method: str) -> list[Any]:
        """The requests of a method, in order."""
        return [message for message in self.seen if message.method == method]

    async def __call__(self, exchange: Exchange) -> Reply:
        await trio.lowlevel.checkpoint()
        self.seen.append(exchange.request)
        self.exchanges.append(exchange)
        if exchange.client.era is Era.LEGACY:
            if self.handshake is not None:
                return self.handshake
            raise UnsupportedVersion("no handshakes", data={"supported": list(MODERN_VERSIONS)})
        meta = meta_of(exchange.request.params)
        assert meta[MetaKey.VERSION] == LATEST
        assert isinstance(meta[MetaKey.CLIENT_CAPABILITIES], Mapping)
        assert exchange.client.session is None
        if exchange.kind is Kind.LISTEN:
            return await self.listen(exchange)
        if exchange.method in self.answers:
            return await self.answers[exchange.method](exchange)
        return self.discovered if exchange.method == "server/discover" else Result({"resultType": "complete", "ok": 1})

    async def listen(self, exchange: Exchange) -> Reply:
        """Acknowledge what is granted, then stay."""
        if isinstance(self.refuses_listeners, Exception):
            raise self.refuses_listeners
        if self.refuses_listeners is not None:
            return self.refuses_listeners
        if self.silent:
            self.waiting += 1
            try:
                await trio.sleep_forever()
            finally:
                self.waiting -= 1
        wanted = dict(exchange.request.params["notifications"])
        if "resourceSubscriptions" in wanted:
            wanted["resourceSubscriptions"] = [uri for uri in wanted["resourceSubscriptions"] if self.grants(uri)]
        self.listeners.append(exchange)
        try:
            await exchange.relay(
                self.tagged(exchange, "notifications/subscriptions/acknowledged", notifications=wanted)
            )
            await self.lost.wait()
        finally:
            self.listeners.remove(exchange)
        return Result({"resultType": "complete"})

    @staticmethod
    def tagged(exchange: Exchange, method: str, **params: Any) -> Notification:
        assert isinstance(exchange.request, Request)
        return Notification(method, {**params, "_meta": {MetaKey.SUBSCRIPTION_ID.value: exchange.request.id}})

    async def tell(self, method: str, **params: Any) -> None:
        """Tell everybody who listens."""
        for exchange in list(self.listeners):
            await exchange.relay(self.tagged(exchange, method, **params))


class Peer:
    """A legacy client, without a gateway."""

    def __init__(self, session_id: str = "s1", version: str = LATEST_LEGACY, **capabilities: Any) -> None:
        self.version = version
        self.capabilities = capabilities
        self.heard: list[Notification] = []
        self.interim: list[Notification] = []
        self.asked: list[tuple[str, Mapping[str, Any]]] = []
        self.answer: Callable[[str, Mapping[str, Any]], Awaitable[Reply]] = self._decline
        self.session = Session(
            id=session_id, source="test", caller=Caller(session_id), notify=self.heard.append, ask=self.ask
        )
        self._next = 0

    async def _decline(self, method: str, params: Mapping[str, Any]) -> Reply:
        return ErrorReply(-1, "not now")

    async def ask(self, method: str, params: Mapping[str, Any]) -> Reply:
        """The client's side of a question."""
        await trio.lowlevel.checkpoint()
        self.asked.append((method, params))
        return await self.answer(method, params)

    def exchange(self, method: str, params: Mapping[str, Any] | None = None, **more: Any) -> Exchange:
        """One message in its session."""
        self._next += 1
        session = self.session
        client = Client(
            era=Era.LEGACY, version=session.version, capabilities=session.capabilities, session=session,
            transport="http",
            headers={"mcp-param-x": "1", "authorization": "secret"},
        )  # fmt: skip
        return memory_exchange(
            method, params or {}, request_id=self._next, client=client, caller=session.caller, interim=self.interim,
            ask=self.ask, **more,
        )  # fmt: skip

    async def start(self, call: Any, *, ready: bool = True) -> Reply:
        """Shake hands."""
        params = {"protocolVersion": self.version, "capabilities": self.capabilities, "clientInfo": {"name": "me"}}
        reply: Reply = await call(self.exchange("initialize", params))
        if isinstance(reply, Result):
            self.session.version = reply.value["protocolVersion"]
            self.session.capabilities = self.capabilities
            if ready:
                await call(self.exchange("notifications/initialized"))
        return reply


class Kit:
    """What the tests of this folder are made of."""

    Peer = Peer
    SERVER = SERVER

    @staticmethod
    @asynccontextmanager
    async def translating(upstream: Any, **options: Any) -> AsyncIterator[Translator]:
        """A translator in front of an upstream."""
        ids = iter(range(10**6))
        context = evolve(options.pop("context", Context(id="up")), random=Random(1), new_id=lambda: f"id-{next(ids)}")
        translator = Translator(upstream, context, **{"translate": True, "config": TranslationConfig(), **options})
        async with translator.open():
            yield translator


@pytest.fixture
def upstream() -> ModernUpstream:
    """The scripted upstream of a test."""
    return ModernUpstream()


@pytest.fixture
def kit() -> type[Kit]:
    """The helpers of this folder."""
    return Kit


@pytest.fixture
def peer() -> Peer:
    """A client that can be asked everything."""
    return Peer(elicitation={}, sampling={}, roots={"listChanged": True})
