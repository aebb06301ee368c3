"""Dependencies by type."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from sluiceway.pipeline.protocol.errors import ComponentError
from sluiceway.transports.embedded import Context, Server


class Database:
    def __init__(self, url: str = "memory") -> None:
        self.url = url
        self.open = True


class Query:
    def __init__(self, database: Database) -> None:
        self.database = database
        self.open = True


async def test_a_service_registered_once_is_given_to_every_tool(connect: Any, version: str) -> None:
    """An instance is injected by type and absent from the schema (S1-SA-02, S1-SS-01)."""
    server = Server("s")
    database = Database("sqlite")
    server.provide(Database, database)

    @server.tool()
    def where(db: Database, ctx: Context, suffix: str = "") -> str:
        return f"{db.url}{suffix} for {ctx.caller.subject}"

    async with connect(server, version=version) as peer:
        said = await peer.call("where", suffix="!")
        listed = (await peer.result("tools/list"))["tools"][0]["inputSchema"]

    assert "sqlite! for anonymous" == said
    assert ["suffix"] == list(listed["properties"])


async def test_singletons_live_as_long_as_the_server_and_request_scopes_as_the_request(connect: Any) -> None:
    """A factory may be a context manager; each type is made once per scope and closed with it, latest first."""
    server = Server("s")
    events: list[str] = []
    seen: list[Query] = []

    @asynccontextmanager
    async def connect_database() -> AsyncIterator[Database]:
        events.append("open database")
        yield Database()
        events.append("close database")

    @asynccontextmanager
    async def make_query(database: Database, ctx: Context) -> AsyncIterator[Query]:
        events.append(f"open query {ctx.exchange.request.params['name']}")
        yield Query(database)
        events.append("close query")

    server.provide(Database, factory=connect_database)
    server.provide(Query, factory=make_query, scope="request")

    @server.tool()
    async def one(first: Query, second: Query, database: Database) -> str:
        seen.append(first)
        return str(first is second and first.database is database)

    async with connect(server) as peer:
        said = [await peer.call("one"), await peer.call("one")]

    assert ["True", "True"] == said
    assert seen[0] is not seen[1]
    assert [
        "open database", "open query one", "close query", "open query one", "close query", "close database",
    ] == events  # fmt: skip


async def test_factories_may_be_plain_or_async_functions(connect: Any) -> None:
    """A sync factory, an async one, and one that needs the other."""
    server = Server("s")

    async def make_query(database: Database) -> Query:
        await trio.lowlevel.checkpoint()
        return Query(database)

    server.provide(Database, factory=Database)
    server.provide(Query, factory=make_query)

    @server.tool()
    def url(query: Query) -> str:
        return query.database.url

    async with connect(server) as peer:
        assert "memory" == await peer.call("url")


async def test_a_request_scope_is_closed_when_its_request_is_cancelled(connect: Any, autojump_clock: Any) -> None:
    """Nothing made for a request outlives it."""
    server = Server("s")
    made: list[Query] = []

    @asynccontextmanager
    async def make_query() -> AsyncIterator[Query]:
        query = Query(Database())
        made.append(query)
        try:
            yield query
        finally:
            query.open = False

    server.provide(Query, factory=make_query, scope="request")

    @server.tool()
    async def slow(query: Query) -> None:
        await trio.sleep_forever()

    async with connect(server) as peer:
        with trio.move_on_after(1):
            await peer.call("slow")

    assert [False] == [query.open for query in made]


def test_what_cannot_be_provided_is_refused_at_registration() -> None:
    """Twice, neither or both, unknown needs, and a singleton that would outlive what it holds."""
    server = Server("s")
    server.provide(Database, Database())

    def needs_context(ctx: Context) -> Query: ...  # type: ignore[empty-body]

    def needs_unknown(number: int) -> Query: ...  # type: ignore[empty-body]

    with pytest.raises(ValueError, match="Database is provided already"):
        server.provide(Database, Database())
    with pytest.raises(ValueError, match="Context is provided already"):
        server.provide(Context, factory=lambda: None)
    with pytest.raises(ValueError, match="by an instance or a factory"):
        server.provide(Query)
    with pytest.raises(TypeError, match="lives for one request"):
        server.provide(Query, factory=needs_context)
    with pytest.raises(TypeError, match="takes 'number'"):
        server.provide(Query, factory=needs_unknown)


async def test_a_lifespan_surrounds_the_server_and_its_value_reaches_handlers(connect: Any) -> None:
    """What the hook yields is `ctx.lifespan`, for as long as the server is open."""
    server = Server("s")
    events: list[str] = []

    @server.lifespan
    @asynccontextmanager
    async def pool() -> AsyncIterator[Database]:
        events.append("open")
        yield Database("pool")
        events.append("closed")

    @server.tool()
    def url(ctx: Context) -> str:
        url: str = ctx.lifespan.url
        return url

    with pytest.raises(ValueError, match="lifespan already"):
        server.lifespan(pool)
    async with connect(server) as peer:
        assert "pool" == await peer.call("url")
        assert ["open"] == events

    assert ["open", "closed"] == events


async def test_a_lifespan_that_fails_stops_the_start_and_says_why(connect: Any) -> None:
    """A bad URL is a clear error, and what was opened before is closed (S1-DB-01)."""
    server = Server("crm")
    closed: list[str] = []

    @server.lifespan
    @asynccontextmanager
    async def before() -> AsyncIterator[None]:
        yield
        closed.append("lifespan")

    def fail() -> Database:
        raise ConnectionError("DB connection failed: no such host")

    server.provide(Database, factory=fail)

    with pytest.raises(ComponentError, match=r"'crm' did not start: ConnectionError: DB connection failed"):
        async with connect(server):
            pass

    assert [] == closed or ["lifespan"] == closed
