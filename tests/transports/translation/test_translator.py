"""Who is translated for, and who is not."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from sluiceway.pipeline.protocol.errors import ConnectFailed, GatewayError, UnsupportedVersion
from sluiceway.pipeline.protocol.mcp import LATEST, LATEST_LEGACY, LEGACY_VERSIONS, MODERN_VERSIONS, Era
from sluiceway.pipeline.protocol.messages import ErrorReply, Result
from sluiceway.pipeline.testing import MODERN_CLIENT, memory_exchange

LEGACY_SERVER = Result({"protocolVersion": LATEST_LEGACY, "capabilities": {}, "serverInfo": {}})


async def test_what_the_upstream_has_of_the_clients_era_is_used_as_it_is(autojump_clock, kit, upstream, peer):
    """A handshake that succeeds is the upstream's own, and so is everything after it."""
    upstream.handshake = LEGACY_SERVER
    async with kit.translating(upstream) as translator:
        assert await peer.start(translator, ready=False) == LEGACY_SERVER
        await translator(peer.exchange("ping"))

    assert [(message.method, dict(message.params).get("_meta")) for message in upstream.seen] == [
        ("initialize", None),
        ("ping", None),
    ]


async def test_without_translate_the_refusal_stays(autojump_clock, kit, upstream, peer):
    """`translate: false` leaves everything to the upstream."""
    async with kit.translating(upstream, translate=False) as translator:
        with pytest.raises(UnsupportedVersion):
            await peer.start(translator)
        assert list(translator.figures()) == []

    assert [message.method for message in upstream.seen] == ["initialize"]


async def test_that_an_upstream_knows_no_handshakes_is_remembered_for_a_while(autojump_clock, kit, upstream):
    """It is tried again after five minutes, for it may have been replaced."""
    async with kit.translating(upstream) as translator:
        for name in ("a", "b"):
            assert isinstance(await kit.Peer(name).start(translator, ready=False), Result)
        await trio.sleep(301)
        assert isinstance(await kit.Peer("c").start(translator, ready=False), Result)

    assert [message.method for message in upstream.seen] == [
        "initialize", "server/discover", "server/discover", "initialize", "server/discover",
    ]  # fmt: skip


async def test_an_upstream_that_went_back_to_handshakes_is_asked_again(autojump_clock, kit, upstream):
    """What was remembered is forgotten with the first refusal."""
    async with kit.translating(upstream) as translator:
        await kit.Peer("a").start(translator, ready=False)
        upstream.handshake = LEGACY_SERVER
        upstream.answers["server/discover"] = _only_legacy
        with pytest.raises(UnsupportedVersion):
            await kit.Peer("b").start(translator)
        assert await kit.Peer("b").start(translator, ready=False) == LEGACY_SERVER


async def _only_legacy(exchange: Any) -> Any:
    raise UnsupportedVersion("handshakes only", data={"supported": list(LEGACY_VERSIONS)})


@pytest.mark.parametrize("code", [-32601, -32020, -32022])
async def test_a_refusal_that_only_a_modern_upstream_makes_is_enough(autojump_clock, kit, upstream, peer, code):
    """On a connection that carries everything the sink does not judge it, so the code counts, whatever else is said."""
    upstream.handshake = ErrorReply(code, "what?")
    upstream.discovered = Result({**kit.SERVER, "supportedVersions": [LATEST, LATEST_LEGACY]})
    async with kit.translating(upstream) as translator:
        assert isinstance(await peer.start(translator), Result)


@pytest.mark.parametrize(
    ("discovered", "translated"),
    [
        (None, True),
        (Result({"supportedVersions": [LATEST, LATEST_LEGACY], "capabilities": {}}), False),
        (ErrorReply(-32601, "what is that?"), False),
        (ConnectFailed("gone"), False),
    ],
)
async def test_another_refusal_is_the_answer_unless_the_upstream_says_it_is_modern(
    autojump_clock, kit, upstream, peer, discovered, translated
):
    """A server may refuse a handshake for its own reasons."""
    refusal = ErrorReply(-32602, "I do not like you")
    upstream.handshake = refusal

    async def answer(exchange: Any) -> Any:
        if isinstance(discovered, GatewayError):
            raise discovered
        return discovered

    if discovered is not None:
        upstream.answers["server/discover"] = answer
    async with kit.translating(upstream) as translator:
        reply = await peer.start(translator)

    assert isinstance(reply, Result) if translated else reply == refusal


async def test_a_refusal_that_offers_nothing_is_passed_on(autojump_clock, kit, peer):
    """Nobody guesses what an upstream might speak."""

    async def refuse(exchange: Any) -> Any:
        raise UnsupportedVersion("neither", data={"supported": ["1999-01-01"]})

    async with kit.translating(refuse) as translator:
        with pytest.raises(UnsupportedVersion, match="neither"):
            await peer.start(translator)


async def test_sessions_that_are_not_known_are_left_to_the_upstream(autojump_clock, kit, upstream, peer):
    """So are clients without a session."""
    upstream.handshake = ErrorReply(-32600, "who are you?")
    stranger = peer.exchange("tools/list")
    async with kit.translating(upstream) as translator:
        assert await translator(stranger) == upstream.handshake

    assert upstream.exchanges == [stranger]


class LegacyUpstream:
    """Speaks revisions with a handshake and nothing else, as a sink with detection tells of it."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []
        self.refuses_handshakes = False

    async def __call__(self, exchange: Any) -> Any:
        await trio.lowlevel.checkpoint()
        self.seen.append((str(exchange.client.era), exchange.method))
        if exchange.client.era is Era.MODERN:
            return await _only_legacy(exchange)
        if exchange.method == "initialize" and self.refuses_handshakes:
            raise UnsupportedVersion("no handshakes", data={"supported": list(MODERN_VERSIONS)})
        return LEGACY_SERVER if exchange.method == "initialize" else Result({"content": []})


def modern_call() -> Any:
    return memory_exchange("tools/call", {"name": "n"}, client=MODERN_CLIENT)


async def test_a_modern_client_is_served_by_a_legacy_upstream(autojump_clock, kit):
    """Found out once, and remembered for a while."""
    upstream = LegacyUpstream()
    async with kit.translating(upstream) as translator:
        for _ in range(2):
            reply = await translator(modern_call())
            assert reply.value["resultType"] == "complete"
        tried = [entry for entry in upstream.seen if entry == ("modern", "tools/call")]
        assert len(tried) == 1
        assert upstream.seen.count(("legacy", "initialize")) == 1
        await trio.sleep(301)
        await translator(modern_call())

    assert upstream.seen.count(("modern", "tools/call")) == 2


async def test_a_modern_client_is_refused_where_nothing_can_be_translated(autojump_clock, kit):
    """The sink's own word comes out, and nothing is remembered of it."""

    async def neither(exchange: Any) -> Any:
        raise UnsupportedVersion("neither", data={"supported": ["1999-01-01"]})

    async with kit.translating(neither) as translator:
        with pytest.raises(UnsupportedVersion, match="neither"):
            await translator(modern_call())

    upstream = LegacyUpstream()
    async with kit.translating(upstream, translate=False) as translator:
        with pytest.raises(UnsupportedVersion, match="handshakes only"):
            await translator(modern_call())


async def test_an_upstream_that_gave_up_handshakes_is_asked_again(autojump_clock, kit):
    """A modern client's next request finds out what it speaks now."""
    upstream = LegacyUpstream()
    upstream.refuses_handshakes = True
    async with kit.translating(upstream) as translator:
        for _ in range(2):
            with pytest.raises(GatewayError):
                await translator(modern_call())

    assert upstream.seen.count(("modern", "tools/call")) == 2


async def test_what_is_translated_is_told(autojump_clock, kit, upstream, peer):
    """In the status of the sink, and with each exchange, for whoever looks into it."""
    async with kit.translating(upstream) as translator:
        assert translator.details() == {}
        await peer.start(translator)
        await trio.testing.wait_all_tasks_blocked()
        called = peer.exchange("tools/call", {"name": "n"})
        await translator(called)
        assert translator.details() == {"upstream_era": "modern", "listening_sessions": 1}
    async with kit.translating(LegacyUpstream()) as translator:
        modern = modern_call()
        await translator(modern)
        assert translator.details() == {"upstream_era": "legacy", "held_sessions": 1, "parked_calls": 0}

    decisions = [(each.stage, each.outcome, each.cause) for link in (called, modern) for each in link.link.decisions]
    assert decisions == [("up", "translate", "legacy to modern"), ("up", "translate", "modern to legacy")]
