"""What a server on stdio speaks is found out before a modern client's first request reaches it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.protocol.errors import UnsupportedVersion, UpstreamClosed
from sluiceway.pipeline.protocol.mcp import LATEST, LEGACY_VERSIONS, MODERN_VERSIONS, MetaKey
from sluiceway.pipeline.protocol.messages import ErrorReply, Reply, Request, Result
from sluiceway.pipeline.testing import legacy_client, memory_exchange
from sluiceway.transports.stdio_era import SILENCE_S, StdioEra

META = {MetaKey.VERSION.value: LATEST, MetaKey.CLIENT_CAPABILITIES.value: {"roots": {}}, MetaKey.PROGRESS_TOKEN: 7}
LEGACY = {"supported": list(LEGACY_VERSIONS), "requested": LATEST}


class Server:
    """Answers `server/discover` with `about`, and everything else with a result."""

    def __init__(self, about: Reply | Callable[[], Awaitable[Reply]]) -> None:
        self.about = about
        self.seen: list[Exchange] = []

    @property
    def methods(self) -> list[str]:
        """What arrived."""
        return [exchange.method for exchange in self.seen]

    async def __call__(self, exchange: Exchange) -> Reply:
        self.seen.append(exchange)
        await trio.sleep(1)
        if exchange.method != "server/discover":
            return Result({"done": True})
        return await self.about() if callable(self.about) else self.about


def call() -> Exchange:
    """A modern client's first request."""
    return memory_exchange("tools/call", {"name": "x", "_meta": META})


async def test_it_is_asked_once_in_the_first_clients_name_and_everybody_waits(autojump_clock: Any) -> None:
    """With its capabilities, and nothing that belongs to its request alone; later requests go straight through."""
    era, server = StdioEra("up", "auto"), Server(Result({"supportedVersions": [LATEST]}))
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(era.call, call(), server)
    assert await era.call(call(), server) == Result({"done": True})

    assert ["server/discover", *["tools/call"] * 4] == server.methods
    asked = server.seen[0].request
    assert isinstance(asked, Request)
    assert {MetaKey.VERSION.value, MetaKey.CLIENT_CAPABILITIES.value} == asked.params["_meta"].keys()


@pytest.mark.parametrize(
    "about",
    [
        ErrorReply(-32601, "what?"),
        ErrorReply(-32602, "initialize first"),
        ErrorReply(-32022, "no", {"supported": ["2025-11-25"]}),
    ],
)
async def test_a_legacy_server_is_not_asked_what_it_would_misunderstand(autojump_clock: Any, about: Reply) -> None:
    """Any error that is not one of the modern era says so; it is remembered, and asked again later."""
    era, server = StdioEra("up", "auto"), Server(about)
    for _ in range(2):
        with pytest.raises(UnsupportedVersion, match="initialize a session") as caught:
            await era.call(call(), server)
        assert caught.value.data == LEGACY
    assert era.is_legacy
    with pytest.raises(UnsupportedVersion):
        era.check(call())
    assert server.methods == ["server/discover"]

    await trio.sleep(301)
    server.about = Result({})
    assert await era.call(call(), server) == Result({"done": True})


async def test_what_a_client_asks_itself_is_taken_as_well(autojump_clock: Any) -> None:
    """Its own `server/discover` is the question."""
    era, server = StdioEra("up", "auto"), Server(ErrorReply(-32022, "no", {"supported": [LATEST]}))
    discover = memory_exchange("server/discover", {"_meta": META})
    assert await era.call(discover, server) == server.about
    assert await era.call(call(), server) == Result({"done": True})
    assert server.methods == ["server/discover", "tools/call"]

    era, server = StdioEra("up", "auto"), Server(ErrorReply(-32601, "what?"))
    with pytest.raises(UnsupportedVersion):
        await era.call(discover, server)


async def test_a_server_that_is_silent_is_refused_for_this_once(autojump_clock: Any) -> None:
    """It may still be starting: the next request asks again."""

    async def never() -> Reply:
        await trio.sleep_forever()
        raise AssertionError

    era, server = StdioEra("up", "auto"), Server(never)
    before = trio.current_time()
    with pytest.raises(UnsupportedVersion):
        await era.call(call(), server)
    assert trio.current_time() - before == SILENCE_S
    assert not era.is_legacy

    server.about = Result({})
    assert await era.call(call(), server) == Result({"done": True})


async def test_a_server_that_dies_of_the_question_has_not_answered_it(autojump_clock: Any) -> None:
    """Its end is the error; nothing is remembered."""

    async def die() -> Reply:
        await trio.lowlevel.checkpoint()
        raise UpstreamClosed("it died")

    era = StdioEra("up", "auto")
    with pytest.raises(UpstreamClosed):
        await era.call(call(), Server(die))
    assert not era.is_legacy


async def test_what_is_configured_is_not_asked(autojump_clock: Any) -> None:
    """`modern` refuses handshakes, `legacy` refuses everything else."""
    server = Server(ErrorReply(-32601, "what?"))
    modern, legacy = StdioEra("up", era="modern"), StdioEra("up", era="legacy")
    hello = memory_exchange("initialize", {"protocolVersion": "2025-11-25"}, client=legacy_client())

    assert await modern.call(call(), server) == Result({"done": True})
    with pytest.raises(UnsupportedVersion) as caught:
        modern.check_handshake(hello)
    assert caught.value.data == {"supported": list(MODERN_VERSIONS), "requested": "2025-11-25"}
    legacy.check_handshake(hello)
    with pytest.raises(UnsupportedVersion):
        legacy.check(call())
    await trio.sleep(80_000)
    assert legacy.is_legacy
    assert server.methods == ["tools/call"]
