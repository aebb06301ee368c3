"""Methods by era, capabilities, and what every result carries."""

from __future__ import annotations

from typing import Any

import pytest

from sluiceway.pipeline.model.exchange import Exchange, Link
from sluiceway.pipeline.model.session import Client
from sluiceway.pipeline.protocol.errors import InternalError, UnknownMethod
from sluiceway.pipeline.protocol.mcp import Era, Kind
from sluiceway.pipeline.protocol.messages import Notification, Result
from sluiceway.transports.embedded import InternalError as Hidden
from sluiceway.transports.embedded import Server

MODERN = "2026-07-28"
LEGACY = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")


def full() -> Server:
    server = Server(
        "full", version="1.2", title="Full", description="All of it", website_url="https://example.com",
        instructions="Be nice.", icons=[{"src": "https://example.com/i.png"}],
    )  # fmt: skip
    server.tool(name="t")(lambda: "x")
    server.resource("r://1", name="r")(lambda: "x")

    @server.prompt(name="p")
    def prompt(a: str) -> str:
        return a

    @server.completion("p", "a")
    def complete(value: str) -> list[str]:
        return [value]

    return server


@pytest.mark.parametrize("version", LEGACY)
async def test_initialize_agrees_on_the_version_that_was_asked_for(connect: Any, version: str) -> None:
    """Every legacy revision is answered in itself, with a result of its own schema."""
    params = {"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}

    async with connect(full(), version=version) as peer:
        result = await peer.result("initialize", params)

    assert version == result["protocolVersion"]
    assert {
        "tools": {"listChanged": True},
        "resources": {"listChanged": True, "subscribe": True},
        "prompts": {"listChanged": True},
        "completions": {},
        "logging": {},
    } == result["capabilities"]
    assert ("Be nice.", "full", "1.2", "Full") == (
        result["instructions"], *(result["serverInfo"][key] for key in ("name", "version", "title")),
    )  # fmt: skip


async def test_initialize_offers_its_latest_for_a_version_it_does_not_know(connect: Any) -> None:
    """An unknown revision is answered with ours; no revision at all is an error."""
    async with connect(full()) as peer:
        result = await peer.result("initialize", {"protocolVersion": "2031-01-01"})
        error = await peer.error("initialize", {})

    assert ("2025-11-25", -32602) == (result["protocolVersion"], error.code)


async def test_discover_says_what_initialize_says(connect: Any) -> None:
    """All versions, the same capabilities, the server's info in `_meta`, and hints for caches (SEP-2575, SEP-2549)."""
    async with connect(full(), version=MODERN) as peer:
        reply = await peer.send("server/discover")
    async with connect(full()) as peer:
        legacy = await peer.result("initialize", {"protocolVersion": "2025-11-25"})

    value = reply.value
    assert [MODERN, *reversed(LEGACY)] == value["supportedVersions"]
    assert (legacy["capabilities"], "Be nice.") == (value["capabilities"], value["instructions"])
    assert (0, "private", "complete") == (value["ttlMs"], value["cacheScope"], value["resultType"])
    assert legacy["serverInfo"] == value["_meta"]["io.modelcontextprotocol/serverInfo"]


async def test_an_empty_server_offers_nothing_but_logging(connect: Any, version: str) -> None:
    """Capabilities advertise only what is registered, and what is not has no methods."""
    async with connect(Server("empty"), version=version) as peer:
        method = "initialize" if version != MODERN else "server/discover"
        result = await peer.result(method, {"protocolVersion": version})
        codes = [
            (await peer.error(each)).code
            for each in ("tools/list", "tools/call", "prompts/get", "resources/read", "resources/templates/list",
                         "completion/complete")
        ]  # fmt: skip

    assert {"logging": {}} == result["capabilities"]
    assert [-32601] * 6 == codes


async def test_what_is_not_exposed_does_not_exist(connect: Any, version: str) -> None:
    """A part of a server can be served: only that is advertised, the rest is -32601 (S0-DT-02)."""
    async with connect(full(), version=version, expose=("resources",)) as peer:
        method = "initialize" if version != MODERN else "server/discover"
        result = await peer.result(method, {"protocolVersion": version})
        tools = await peer.error("tools/list")
        resources = await peer.result("resources/list")

    assert ["resources"] == list(result["capabilities"])
    assert (-32601, "method not found: tools/list") == (tools.code, tools.message)
    assert 1 == len(resources["resources"])


async def test_every_method_belongs_to_its_era(connect: Any) -> None:
    """Removed methods are refused with 404, new ones are unknown to old clients (SEP-2575)."""
    async with connect(full(), version=MODERN) as peer:
        modern = [
            await peer.error(method)
            for method in ("initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe",
                           "tasks/get", "unknown/method")
        ]  # fmt: skip
    async with connect(full()) as peer:
        legacy = [await peer.error(method) for method in ("server/discover", "subscriptions/listen", "unknown/method")]
        assert {} == await peer.result("ping")

    assert {(-32601, 404)} == {(error.code, error.http_status) for error in modern}
    assert {(-32601, None)} == {(error.code, error.http_status) for error in legacy}


async def test_modern_results_say_who_made_them(connect: Any) -> None:
    """`resultType` and the server's info on each; ttl and scope where the spec wants them and nowhere else."""
    async with connect(full(), version=MODERN) as peer:
        lists = [await peer.send(f"{kind}/list") for kind in ("tools", "resources", "prompts", "resources/templates")]
        call = await peer.send("tools/call", {"name": "t"})

    assert all({"resultType", "_meta", "ttlMs", "cacheScope"} <= set(reply.value) for reply in lists)
    assert {"resultType", "_meta", "content"} == set(call.value)
    assert "full" == call.value["_meta"]["io.modelcontextprotocol/serverInfo"]["name"]


async def test_notifications_are_taken_in_silence(connect: Any) -> None:
    """Nothing answers a notification."""
    async with connect(full()) as peer:
        exchange = Exchange(
            request=Notification("notifications/initialized"),
            kind=Kind.NOTIFY,
            client=Client(era=Era.LEGACY, version=None),
            link=peer.exchange("ping").link,
        )
        reply = await peer.sink(exchange)

    assert Result() == reply


async def test_before_the_handshake_the_latest_legacy_version_is_assumed(connect: Any) -> None:
    """A client whose version is not known yet is answered all the same."""
    async with connect(full()) as peer:
        exchange = peer.exchange("tools/call", {"name": "t"})
        early = Exchange(
            request=exchange.request, kind=Kind.CALL, client=Client(era=Era.LEGACY, version=None),
            link=Link(exchange.link.emit),
        )  # fmt: skip
        reply = await peer.sink(early)

    assert isinstance(reply, Result)


async def test_a_gateway_error_of_a_handler_stays_one(connect: Any, version: str) -> None:
    """What the gateway's own error tree says is not wrapped."""
    server = Server("s")

    @server.tool()
    def fail() -> None:
        raise UnknownMethod("no")

    @server.resource("r://1", name="r")
    def read() -> None:
        raise UnknownMethod("no")

    async with connect(server, version=version) as peer:
        with pytest.raises(UnknownMethod):
            await peer.call("fail")
        with pytest.raises(UnknownMethod):
            await peer.send("resources/read", {"uri": "r://1"})


@pytest.mark.parametrize("raised", [RuntimeError("password=hunter2"), Hidden("password=hunter2")])
async def test_an_incident_names_nothing_but_itself(connect: Any, raised: Exception) -> None:
    """The error has an id that the log knows, and no detail (S1-DB-04)."""
    server = Server("s")

    @server.prompt()
    def fail() -> str:
        raise raised

    async with connect(server) as peer:
        with pytest.raises(InternalError) as caught:
            await peer.send("prompts/get", {"name": "fail"})

    assert caught.value.message == f"internal error, incident {caught.value.data['incident']}"
    assert "hunter2" not in str(caught.value)
