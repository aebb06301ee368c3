"""What of a legacy session passes from one generation of a route to the next."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.model.session import Client, Session
from sluiceway.pipeline.protocol.errors import SessionNotFound
from sluiceway.pipeline.protocol.messages import Notification, Reply, Result
from sluiceway.pipeline.testing import legacy_client, memory_exchange
from sluiceway.transports.route.config import RouteConfig
from sluiceway.transports.route.sink import RouteSink

HELLO = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}


@pytest.fixture
def generation(scripted: Any) -> Callable[..., Any]:
    """`async with generation(up, ...) as route`: a route to some upstreams."""

    @asynccontextmanager
    async def make(*upstreams: Any) -> AsyncIterator[RouteSink]:
        named = {upstream.name: upstream.sink for upstream in upstreams}
        sink = RouteSink(RouteConfig(to=tuple(named)), Context(id="sinks.all", sinks=named.__getitem__))
        async with sink.open():
            yield sink

    return make


async def hello(route: RouteSink, client: Client) -> None:
    """Handshake."""
    await route(memory_exchange("initialize", HELLO, client=client))
    await route(memory_exchange("notifications/initialized", client=client))


async def call(route: RouteSink, client: Client, name: str = "one.x") -> Reply:
    """One call."""
    return await route(memory_exchange("tools/call", {"name": name}, client=client))


def session_of(upstream: Any, index: int = -1) -> Session:
    """The session that an upstream's exchange came with."""
    found = upstream.sink.exchanges[index].client.session
    assert isinstance(found, Session)
    return found


async def test_both_generations_use_one_session_while_they_overlap(autojump_clock, scripted, generation):
    """The old one's end does not end it, and what the upstream says then goes through the new one."""
    told: list[Notification] = []
    client, up = legacy_client(), scripted("one")
    assert client.session is not None
    client.session.notify = told.append
    async with generation(up) as new:
        async with generation(up) as old:
            await hello(old, client)
            await call(new, client)
            await call(old, client)
        await call(new, client)
        session = session_of(up)
        session.notify(Notification("notifications/message", {"level": "info"}))
        assert not session.closed
        client.session.close()
        assert session.closed

    assert ["initialize", "notifications/initialized", *["tools/call"] * 3] == up.methods
    assert 1 == len({exchange.client.session for exchange in up.sink.exchanges})
    assert ["notifications/message"] == [each.method for each in told]


async def test_an_upstream_that_is_another_one_is_introduced_anew_and_the_old_session_ends_with_the_old_route(
    autojump_clock, scripted, generation
):
    """Not before: what is in flight there may still be answered."""
    client, before, after = legacy_client(), scripted("one"), scripted("one")
    known: set[Session] = set()

    def serve(exchange: Any) -> Reply:
        if exchange.client.session not in known:
            raise SessionNotFound("who?")
        return Result({"by": "after"})

    def greet(exchange: Any) -> Reply:
        known.add(exchange.client.session)
        return Result({"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {}})

    after.answers = {"tools/call": serve, "initialize": greet}
    async with generation(after) as new:
        async with generation(before) as old:
            await hello(old, client)
            first = session_of(before)
            assert await call(new, client) == Result({"by": "after"})
            assert not first.closed
            await call(old, client)
        assert first.closed
        assert not session_of(after).closed
        assert await call(new, client) == Result({"by": "after"})

    assert ["tools/call", "initialize", "notifications/initialized", "tools/call", "tools/call"] == after.methods


async def test_a_client_that_leaves_between_two_generations_leaves_nothing(autojump_clock, scripted, generation):
    """Its sessions at upstreams end with it, whoever looks after it at the time."""
    client, up = legacy_client(), scripted("one")
    assert client.session is not None
    async with generation(up) as route:
        await hello(route, client)
    session = session_of(up)
    assert not session.closed
    client.session.close()

    assert session.closed


async def test_an_upstream_that_is_not_in_the_route_any_more_loses_the_session(autojump_clock, scripted, generation):
    """With the last generation that uses it, and not with the client only."""
    client, one, two = legacy_client(), scripted("one"), scripted("two")
    async with generation(one) as new:
        async with generation(one, two) as old:
            await hello(old, client)
            await call(new, client)
            assert not session_of(two).closed
        assert session_of(two).closed
        assert not session_of(one).closed


async def test_one_that_is_dropped_after_the_old_route_has_closed_ends_at_once(autojump_clock, scripted, generation):
    """Nobody else would end it."""
    client, one, two = legacy_client(), scripted("one"), scripted("two")
    async with generation(one, two) as route:
        await hello(route, client)
    async with generation(one) as route:
        assert not session_of(two).closed
        await call(route, client)
        assert session_of(two).closed


async def test_a_session_that_is_renewed_is_another_one_in_the_next_generation_too(
    autojump_clock, scripted, generation
):
    """A second handshake of the client counts for everybody after it."""
    client, up = legacy_client(), scripted("one")
    async with generation(up) as route:
        await hello(route, client)
        first = session_of(up)
        await hello(route, client)
        second = session_of(up)
        assert first.closed
    async with generation(up) as route:
        await call(route, client)
        assert session_of(up) is second
        assert not second.closed


async def test_sessions_that_end_leave_nothing_with_their_client(autojump_clock, scripted, generation):
    """However often an upstream forgets it."""
    client, up = legacy_client(), scripted("one")
    assert client.session is not None
    async with generation(up) as route:
        await hello(route, client)
        watched = len(client.session._on_close)
        for _ in range(5):
            session_of(up).close()
            await call(route, client)

        assert len(client.session._on_close) == watched
