"""A legacy client at an upstream that speaks 2026-07-28 only: handshake, requests, what its session says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.protocol.errors import (
    ConnectFailed,
    InvalidParams,
    SessionNotFound,
    UnsupportedVersion,
    UpstreamClosed,
)
from sluiceway.pipeline.protocol.mcp import LATEST, LEGACY_VERSIONS, MetaKey
from sluiceway.pipeline.protocol.messages import ErrorReply, Notification, Result
from sluiceway.pipeline.testing import cancel_everywhere


async def test_a_handshake_is_answered_from_a_discovery(autojump_clock, kit, upstream, peer):
    """In the client's name: its capabilities and its info, and none of its headers."""
    async with kit.translating(upstream) as translator:
        reply = await peer.start(translator)

    discovery = upstream.of("server/discover")[0]
    assert reply == Result({
        "protocolVersion": peer.version,
        "capabilities": upstream.discovered.value["capabilities"],
        "serverInfo": {"name": "fake", "version": "1"},
        "instructions": "Ask nicely.",
    })  # fmt: skip
    assert discovery.params == {
        "_meta": {
            MetaKey.VERSION.value: LATEST,
            MetaKey.CLIENT_CAPABILITIES.value: {"elicitation": {}, "sampling": {}, "roots": {}},
            MetaKey.CLIENT_INFO.value: {"name": "me"},
        }
    }
    inward = upstream.exchanges[1].client
    assert (inward.headers, inward.transport) == ({}, "memory")


@pytest.mark.parametrize("version", LEGACY_VERSIONS)
async def test_every_legacy_revision_is_served(autojump_clock, kit, upstream, version):
    """The client speaks its own, the upstream speaks its own."""
    peer = kit.Peer(version=version)
    async with kit.translating(upstream) as translator:
        reply = await peer.start(translator)
        called = await translator(peer.exchange("tools/call", {"name": "n"}))

    assert reply.value["protocolVersion"] == version
    assert called == Result({"ok": 1})
    assert upstream.of("tools/call")[0].params["_meta"][MetaKey.VERSION] == LATEST


@pytest.mark.parametrize("rubbish", [{}, {"protocolVersion": 7}])
async def test_a_handshake_without_a_version_is_refused(autojump_clock, kit, upstream, peer, rubbish):
    """It is the one thing that a client must say (2025-11-25, basic/lifecycle)."""
    async with kit.translating(upstream) as translator:
        with pytest.raises(InvalidParams, match="protocolVersion"):
            await translator(peer.exchange("initialize", rubbish))


@pytest.mark.parametrize(
    ("discovered", "failure"),
    [
        (ErrorReply(-32000, "no", http_status=503), None),
        (Result({"supportedVersions": ["2099-01-01"]}), UnsupportedVersion),
        (ConnectFailed("down"), ConnectFailed),
    ],
)
async def test_a_discovery_that_fails_is_a_handshake_that_fails(
    autojump_clock, kit, upstream, peer, discovered, failure
):
    """With the upstream's own error, as far as there is one; and no session is left that could be used."""

    async def answer(exchange: Any) -> Any:
        if isinstance(discovered, Exception):
            raise discovered
        return discovered

    upstream.answers["server/discover"] = answer
    async with kit.translating(upstream) as translator:
        if failure is None:
            assert await peer.start(translator) == ErrorReply(-32000, "no")
        else:
            with pytest.raises(failure):
                await peer.start(translator)

    assert peer.session.state == {}


async def test_requests_say_what_the_session_has_said(autojump_clock, kit, upstream, peer):
    """Version, capabilities and info in each; the level of its log once it was set; the client's own keys stay."""
    async with kit.translating(upstream) as translator:
        await peer.start(translator)
        await translator(peer.exchange("tools/call", {"name": "n", "_meta": {"progressToken": "p", "k": 1}}))
        assert await translator(peer.exchange("logging/setLevel", {"level": "warning"})) == Result({})
        await translator(peer.exchange("prompts/list"))

    about = upstream.of("server/discover")[0].params["_meta"]
    call, listing = upstream.of("tools/call")[0], upstream.of("prompts/list")[0]
    assert call.params == {"name": "n", "_meta": {"progressToken": "p", "k": 1, **about}}
    assert call.id == 3
    assert listing.params == {"_meta": {**about, MetaKey.LOG_LEVEL.value: "warning"}}
    assert upstream.of("logging/setLevel") == []


async def test_sessions_do_not_hear_of_each_other(autojump_clock, kit, upstream):
    """Level, capabilities and subscriptions are a session's own."""
    one, other = kit.Peer("one", sampling={}), kit.Peer("other")
    async with kit.translating(upstream) as translator:
        for peer in (one, other):
            await peer.start(translator)
        await translator(one.exchange("logging/setLevel", {"level": "debug"}))
        await translator(one.exchange("resources/subscribe", {"uri": "a:1"}))
        await translator(other.exchange("tools/call", {"name": "n"}))
        await trio.testing.wait_all_tasks_blocked()
        for exchange in list(upstream.listeners):
            if "resourceSubscriptions" in exchange.request.params["notifications"]:
                await exchange.relay(upstream.tagged(exchange, "notifications/resources/updated", uri="a:1"))

    meta = upstream.of("tools/call")[0].params["_meta"]
    assert MetaKey.LOG_LEVEL not in meta
    assert meta[MetaKey.CLIENT_CAPABILITIES] == {}
    assert (one.heard, other.heard) == ([Notification("notifications/resources/updated", {"uri": "a:1"})], [])


async def test_ping_is_answered_here(autojump_clock, kit, upstream, peer):
    """The upstream knows no such thing."""
    async with kit.translating(upstream) as translator:
        await peer.start(translator)
        assert await translator(peer.exchange("ping")) == Result({})

    assert upstream.of("ping") == []


@pytest.mark.parametrize(
    "method",
    ["tasks/list", "tasks/result", "tasks/get", "tasks/cancel", "tasks/update", "server/discover", "initialize",
     "subscriptions/listen"],
)  # fmt: skip
async def test_methods_of_one_era_only_are_unknown(autojump_clock, kit, upstream, peer, method):
    """What was not offered is not served, and what a legacy client cannot know does not pass."""
    async with kit.translating(upstream) as translator:
        await peer.start(translator)
        seen = len(upstream.seen)
        reply = await translator(peer.exchange(method, {"taskId": "t"}))

    assert isinstance(reply, ErrorReply)
    assert reply.code == -32601
    assert len(upstream.seen) == seen + len(upstream.of("subscriptions/listen"))


async def test_a_method_that_nobody_knows_is_the_upstreams_to_judge(autojump_clock, kit, upstream, peer):
    """Extensions pass, with their params."""
    async with kit.translating(upstream) as translator:
        await peer.start(translator)
        assert await translator(peer.exchange("skills/list", {"q": 1})) == Result({"ok": 1})

    assert upstream.of("skills/list")[0].params["q"] == 1


@pytest.mark.parametrize(
    ("capability", "method", "params"),
    [
        ("logging", "logging/setLevel", {"level": "info"}),
        ("resources", "resources/subscribe", {"uri": "a:1"}),
        ("resources", "resources/unsubscribe", {"uri": "a:1"}),
    ],
)
async def test_what_the_upstream_does_not_offer_is_unknown(
    autojump_clock, kit, upstream, peer, capability, method, params
):
    """Also what is done here in its place."""
    upstream.discovered = Result({**kit.SERVER, "capabilities": {}})
    async with kit.translating(upstream) as translator:
        await peer.start(translator)
        reply = await translator(peer.exchange(method, params))

    assert isinstance(reply, ErrorReply)
    assert reply.code == -32601


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("logging/setLevel", {"level": "loud"}),
        ("logging/setLevel", {"level": ["debug"]}),
        ("logging/setLevel", {}),
        ("resources/subscribe", {}),
        ("resources/unsubscribe", {"uri": 5}),
    ],
)
async def test_rubbish_is_refused(autojump_clock, kit, upstream, peer, method, params):
    """Where the gateway answers, it checks."""
    async with kit.translating(upstream) as translator:
        await peer.start(translator)
        with pytest.raises(InvalidParams):
            await translator(peer.exchange(method, params))


async def test_notifications_on_the_way_reach_the_client(autojump_clock, kit, upstream, peer):
    """Progress under its token, and what the upstream logs."""

    async def answer(exchange: Any) -> Any:
        await exchange.relay(Notification("notifications/progress", {"progressToken": "p", "progress": 1}))
        await exchange.relay(Notification("notifications/message", {"level": "info", "data": "x"}))
        return Result({"content": [], "resultType": "complete"})

    upstream.answers["tools/call"] = answer
    async with kit.translating(upstream) as translator:
        await peer.start(translator)
        reply = await translator(peer.exchange("tools/call", {"name": "n", "_meta": {"progressToken": "p"}}))

    assert reply == Result({"content": []})
    assert [n.method for n in peer.interim] == ["notifications/progress", "notifications/message"]


async def test_errors_are_the_upstreams(autojump_clock, kit, upstream, peer):
    """As a legacy client knows them; failures of the upstream come out as they are."""

    async def missing(exchange: Any) -> Any:
        return ErrorReply(-32602, "no such resource", {"uri": "a:1"}, http_status=400)

    async def dies(exchange: Any) -> Any:
        raise UpstreamClosed("gone")

    upstream.answers.update({"resources/read": missing, "tools/call": dies})
    async with kit.translating(upstream) as translator:
        await peer.start(translator)
        assert await translator(peer.exchange("resources/read", {"uri": "a:1"})) == ErrorReply(
            -32002, "no such resource", {"uri": "a:1"}
        )
        with pytest.raises(UpstreamClosed):
            await translator(peer.exchange("tools/call", {"name": "n"}))


async def test_clients_words_that_mean_nothing_now_go_nowhere(autojump_clock, kit, upstream, peer):
    """Those of extensions are passed on, with the metadata they need."""
    async with kit.translating(upstream) as translator:
        await peer.start(translator)
        for method in ("notifications/roots/list_changed", "notifications/progress", "notifications/initialized"):
            assert await translator(peer.exchange(method, {"progressToken": 1})) == Result({})
        await translator(peer.exchange("notifications/x/seen", {"x": 1}))

    said = [message for message in upstream.seen if isinstance(message, Notification)]
    assert [message.method for message in said] == ["notifications/x/seen"]
    assert said[0].params["x"] == 1
    assert said[0].params["_meta"][MetaKey.VERSION] == LATEST


async def test_a_session_ends_when_its_upstream_becomes_another_one(autojump_clock, kit, upstream, peer):
    """A legacy one has to be shaken hands with, by the client."""

    async def changed(exchange: Any) -> Any:
        raise UnsupportedVersion("handshakes only", data={"supported": list(LEGACY_VERSIONS)})

    async with kit.translating(upstream) as translator:
        await peer.start(translator)
        upstream.answers["tools/call"] = changed
        with pytest.raises(SessionNotFound, match="initialize again"):
            await translator(peer.exchange("tools/call", {"name": "n"}))
        assert not peer.session.closed
        await trio.sleep(1.5)
        assert peer.session.closed


async def test_a_session_goes_on_with_another_sink(autojump_clock, kit, upstream, peer):
    """After a reload the new one knows it, listens for it, and tells it what it may have missed."""
    context = Context(id="up")
    announced: list[str] = []
    context.changes.listen(lambda sink, notification: announced.append(f"{sink} {notification.method}"))
    async with kit.translating(upstream) as translator:
        await peer.start(translator)
        await translator(peer.exchange("resources/subscribe", {"uri": "a:1"}))
        await translator(peer.exchange("logging/setLevel", {"level": "info"}))
    assert upstream.listeners == []
    async with kit.translating(upstream, context=context) as translator:
        assert await translator(peer.exchange("tools/call", {"name": "n"})) == Result({"ok": 1})
        await trio.testing.wait_all_tasks_blocked()
        assert len(upstream.listeners) == 1

    assert upstream.of("tools/call")[0].params["_meta"][MetaKey.LOG_LEVEL] == "info"
    assert upstream.of("subscriptions/listen")[-1].params["notifications"] == {
        "toolsListChanged": True,
        "resourceSubscriptions": ["a:1"],
    }
    assert peer.heard == [
        Notification("notifications/tools/list_changed"),
        Notification("notifications/resources/updated", {"uri": "a:1"}),
    ]
    assert announced == ["up notifications/tools/list_changed", "up notifications/resources/updated"]


async def test_a_sink_can_tell_of_what_the_upstream_cannot(autojump_clock, kit, upstream, peer):
    """To those who listen."""
    deaf = kit.Peer("deaf")
    change = Notification("notifications/tools/list_changed")
    async with kit.translating(upstream) as translator:
        await peer.start(translator)
        await deaf.start(translator, ready=False)
        translator.tell(change)

    assert (peer.heard, deaf.heard) == ([change], [])


async def test_a_legacy_client_can_give_up_anywhere(kit, upstream, peer):
    """Handshake, call with a question, subscription: nothing is left wherever it stops."""

    async def asks(exchange: Any) -> Any:
        if "inputResponses" in exchange.request.params:
            return Result({"resultType": "complete", "content": []})
        question = {"method": "roots/list", "params": {}}
        return Result({"resultType": "input_required", "inputRequests": {"r": question}})

    upstream.answers["tools/call"] = asks

    async def roots(method: str, params: Any) -> Any:
        return Result({"roots": []})

    async def visit() -> None:
        visitor = kit.Peer("v", roots={})
        visitor.answer = roots
        async with kit.translating(upstream) as translator:
            await visitor.start(translator)
            assert await translator(visitor.exchange("tools/call", {"name": "n"})) == Result({"content": []})
            assert await translator(visitor.exchange("resources/subscribe", {"uri": "a:1"})) == Result({})
            await translator(visitor.exchange("resources/unsubscribe", {"uri": "a:1"}))
            visitor.session.close()

    @asynccontextmanager
    async def trial() -> AsyncIterator[Callable[[], Awaitable[None]]]:
        yield visit
        assert upstream.listeners == []

    await cancel_everywhere(trial)
