"""What a handler may use of its request."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from sluiceway.pipeline.model.session import Session
from sluiceway.transports.embedded import Context, Server

MODERN = "2026-07-28"


def heard(peer: Any, *members: str) -> list[tuple[Any, ...]]:
    return [tuple(each.params.get(member) for member in members) for each in peer.heard]


async def test_progress_goes_forward_and_only_to_who_asked(connect: Any, version: str) -> None:
    """Without a token nothing is sent; with one, only what increases, and the last report equals the total (D-51)."""
    server = Server("s")

    @server.tool()
    async def work(ctx: Context) -> None:
        for done in (0, 1, 1, 0.5, 2):
            await ctx.progress(done, 2, f"step {done}")
        await ctx.progress(3)

    async with connect(server, version=version) as peer:
        await peer.result("tools/call", {"name": "work"})
        assert [] == peer.heard
        await peer.result("tools/call", {"name": "work", "_meta": {"progressToken": 0}})

    expected = [(0, 0, 2, "step 0"), (0, 1, 2, "step 1"), (0, 2, 2, "step 2"), (0, 3, None, None)]
    assert expected == heard(peer, "progressToken", "progress", "total", "message")


async def test_nothing_follows_the_end_of_a_request(connect: Any) -> None:
    """A context that was kept sends no more progress and no more messages."""
    server = Server("s")
    kept: list[Context] = []

    @server.tool()
    async def keep(ctx: Context) -> None:
        kept.append(ctx)

    async with connect(server) as peer:
        await peer.result("tools/call", {"name": "keep", "_meta": {"progressToken": 1}})
        await kept[0].progress(1)
        await kept[0].log("error", "late")

    assert [] == peer.heard


def talker() -> Server:
    server = Server("s")

    @server.tool()
    async def talk(ctx: Context) -> None:
        await ctx.log("debug", "quiet")
        await ctx.log("info", {"any": "json"}, logger="talker")
        await ctx.log("error", "loud")

    return server


async def test_a_legacy_client_sets_its_level_for_the_session(connect: Any) -> None:
    """Info until it says otherwise; another session is not concerned (S0-HC-05)."""
    async with connect(talker()) as peer:
        await peer.call("talk", raw=True)
        assert {} == await peer.result("logging/setLevel", {"level": "error"})
        await peer.call("talk", raw=True)
        peer.session = Session(id="s2", source="test")
        await peer.call("talk", raw=True)
        bad = await peer.error("logging/setLevel", {"level": "loud"})

    info, error = ("info", {"any": "json"}, "talker"), ("error", "loud", None)
    assert [info, error, error, info, error] == heard(peer, "level", "data", "logger")
    assert -32602 == bad.code


async def test_without_session_every_request_starts_at_info(connect: Any) -> None:
    """Setting a level that cannot be kept is harmless."""
    async with connect(talker(), session=False) as peer:
        assert {} == await peer.result("logging/setLevel", {"level": "error"})
        await peer.call("talk", raw=True)

    assert [("info",), ("error",)] == heard(peer, "level")


async def test_a_modern_client_hears_what_each_request_asks_for(connect: Any) -> None:
    """No level, no messages; an unknown level is none."""
    async with connect(talker(), version=MODERN) as peer:
        for level in (None, "warning", "loud"):
            meta = {} if level is None else {"io.modelcontextprotocol/logLevel": level}
            await peer.send("tools/call", {"name": "talk", "_meta": meta})

    assert [("error", "loud")] == heard(peer, "level", "data")


async def test_logging_that_is_not_exposed_is_silent(connect: Any) -> None:
    """Neither advertised nor sent."""
    async with connect(talker(), expose=("tools",)) as peer:
        await peer.call("talk", raw=True)
        unknown = await peer.error("logging/setLevel", {"level": "error"})

    assert ([], -32601) == (peer.heard, unknown.code)


async def test_an_unknown_level_is_a_bug_of_the_handler(connect: Any) -> None:
    """It fails the tool instead of being sent."""
    server = Server("s")

    @server.tool()
    async def talk(ctx: Context) -> None:
        await ctx.log("loud", "x")  # type: ignore[arg-type]  # what a typo does

    async with connect(server) as peer:
        assert (await peer.call("talk", raw=True))["isError"]


def remembering() -> Server:
    server = Server("s")

    @server.tool()
    def remember(value: str, ctx: Context) -> str:
        before = ctx.session.get("value", "nothing")
        ctx.session["value"] = value
        return str(before)

    return server


async def test_session_state_lasts_for_the_session_and_no_longer(connect: Any) -> None:
    """It is shared by the requests of one session, not with another one (S1-SS-02, S1-SS-05)."""
    async with connect(remembering()) as peer:
        said = [await peer.call("remember", value="a"), await peer.call("remember", value="b")]
        peer.session = Session(id="s2", source="test")
        said.append(await peer.call("remember", value="c"))

    assert ["nothing", "a", "nothing"] == said


@pytest.mark.parametrize("options", [{"version": MODERN}, {"session": False}])
async def test_a_client_without_session_is_told_what_to_do_instead(connect: Any, options: dict[str, Any]) -> None:
    """Modern clients have none: the text names the remedy."""
    async with connect(remembering(), **options) as peer:
        result = await peer.call("remember", raw=True, value="a")

    assert result["isError"]
    assert "explicit handle" in result["content"][0]["text"]


async def test_a_handler_sees_who_asks(connect: Any, version: str) -> None:
    """Caller, client, method, params and the server itself are at hand."""
    server = Server("s")

    @server.tool()
    def look(ctx: Context) -> str:
        return f"{ctx.caller.subject} {ctx.client.transport} {ctx.method} {ctx.params['name']} {ctx.server is server}"

    async with connect(server, version=version) as peer:
        assert "anonymous memory tools/call look True" == await peer.call("look")


async def test_tools_may_be_added_while_serving(connect: Any) -> None:
    """A tool adds another one, and the next listing has it."""
    server = Server("s")

    @server.tool()
    async def grow(ctx: Context) -> None:
        await trio.lowlevel.checkpoint()
        ctx.server.tool(name="new")(lambda: None)

    async with connect(server) as peer:
        await peer.call("grow", raw=True)
        listed = (await peer.result("tools/list"))["tools"]

    assert ["grow", "new"] == [tool["name"] for tool in listed]
    assert ["notifications/tools/list_changed"] == [each.method for each in peer.told]
