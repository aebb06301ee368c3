"""What a legacy upstream says of its own accord, and the modern clients that hear it: listeners, and logs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from attrs import define, field

from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.session import Caller
from sluiceway.pipeline.protocol.errors import ConnectFailed, InvalidParams
from sluiceway.pipeline.protocol.mcp import MetaKey
from sluiceway.pipeline.protocol.messages import Body, ErrorReply, Notification, Reply, Request, Result
from sluiceway.pipeline.testing.cancelling import cancel_everywhere

BOB = Caller("bob", how="api_key")
TOOLS = "notifications/tools/list_changed"
UPDATED = "notifications/resources/updated"
LOG = MetaKey.LOG_LEVEL.value


@define(eq=False)
class Stream:
    """One listener of a test."""

    exchange: Exchange
    heard: list[Notification]
    replies: list[Reply] = field(factory=list)

    @property
    def id(self) -> Any:
        """The id of its request."""
        request = self.exchange.request
        assert isinstance(request, Request)
        return request.id

    def said(self) -> list[tuple[str, Any]]:
        """Methods and uris of what was heard after the acknowledgement."""
        return [(each.method, each.params.get("uri")) for each in self.heard[1:]]


@asynccontextmanager
async def listening(peer: Any, wanted: Any, **kwargs: Any) -> AsyncIterator[Stream]:
    """A client that listens while the body runs."""
    exchange = peer.exchange("subscriptions/listen", {"notifications": wanted}, **kwargs)
    stream = Stream(exchange, [])

    async def emit(notification: Notification) -> None:
        await trio.lowlevel.checkpoint()
        stream.heard.append(notification)

    exchange.link.emit = emit

    async def listen() -> None:
        stream.replies.append(await peer.service(exchange))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        await trio.testing.wait_all_tasks_blocked()
        yield stream
        nursery.cancel_scope.cancel()
    await trio.testing.wait_all_tasks_blocked()


async def test_the_acknowledgement_comes_first_and_says_what_is_granted(autojump_clock, server, serving):
    """What the upstream does not declare, or refuses, is not."""

    async def subscribe(exchange: Exchange) -> Reply:
        return ErrorReply(-32002, "no") if exchange.request.params["uri"] == "x:3" else Result()

    server.handlers["resources/subscribe"] = subscribe
    wanted = {
        "toolsListChanged": True,
        "promptsListChanged": True,
        "resourcesListChanged": False,
        "resourceSubscriptions": ["x:1", "x:1", "x:2", "x:3"],
        "taskIds": ["1"],
    }
    async with serving(server) as peer, listening(peer, wanted) as stream:
        assert server.of("resources/subscribe") == [{"uri": "x:1"}, {"uri": "x:2"}, {"uri": "x:3"}]
        server.say(TOOLS)

    number = stream.id
    meta = {"_meta": {MetaKey.SUBSCRIPTION_ID.value: number}}
    granted = {"toolsListChanged": True, "resourceSubscriptions": ["x:1", "x:2"]}
    assert stream.heard[0] == Notification(
        "notifications/subscriptions/acknowledged", {"notifications": granted, **meta}
    )
    assert stream.heard[1:] == [Notification(TOOLS, meta)] or stream.heard[1:] == []


async def test_a_listener_hears_what_it_asked_for_and_nothing_else(autojump_clock, server, serving):
    """Parts of a watched resource belong to it; changes that come together are told once."""
    async with serving(server) as peer:
        async with listening(peer, {"toolsListChanged": True, "resourceSubscriptions": ["x:a"]}) as stream:
            for method, params in (
                (TOOLS, {}),
                (TOOLS, {}),
                ("notifications/prompts/list_changed", {}),
                (UPDATED, {"uri": "x:a"}),
                (UPDATED, {"uri": "x:a/part"}),
                (UPDATED, {"uri": "x:ab"}),
                (UPDATED, {}),
                ("notifications/elicitation/complete", {"elicitationId": "1"}),
            ):
                server.say(method, params)
            server.sessions[0].notify(Notification(UPDATED, Body(raw=b'{"uri":"x:a","uri":"x:b"}')))
            await trio.testing.wait_all_tasks_blocked()

            assert stream.said() == [(TOOLS, None), (UPDATED, "x:a"), (UPDATED, "x:a/part")]
        counts = {each.name: each.value for each in peer.service.figures()}

    assert counts["translation_unheard_notifications_total"] == 5


async def test_the_last_who_leaves_unsubscribes(autojump_clock, server, serving):
    """The upstream knows one subscription, however many listen."""
    async with serving(server) as peer:
        async with listening(peer, {"resourceSubscriptions": ["x:1", "x:2"]}):
            async with listening(peer, {"resourceSubscriptions": ["x:1"]}) as other:
                server.say(UPDATED, {"uri": "x:1"})
                server.say(UPDATED, {"uri": "x:2"})
                await trio.testing.wait_all_tasks_blocked()
                assert other.said() == [(UPDATED, "x:1")]
            assert server.of("resources/unsubscribe") == []

        assert server.of("resources/subscribe") == [{"uri": "x:1"}, {"uri": "x:2"}]
        assert server.of("resources/unsubscribe") == [{"uri": "x:1"}, {"uri": "x:2"}]
        async with listening(peer, {"resourceSubscriptions": ["x:1"]}):
            assert len(server.of("resources/subscribe")) == 3


async def test_nothing_of_one_caller_reaches_another(autojump_clock, server, serving):
    """Each has a session of its own."""
    wanted = {"toolsListChanged": True}
    async with serving(server) as peer, listening(peer, wanted) as ana, listening(peer, wanted, caller=BOB) as bob:
        (session,) = [each for each in server.sessions if each.caller == BOB]
        session.notify(Notification(TOOLS))
        await trio.testing.wait_all_tasks_blocked()

        assert (ana.said(), bob.said()) == ([], [(TOOLS, None)])


async def test_a_session_that_ends_is_opened_again_for_those_who_listen(autojump_clock, server, serving):
    """With the same subscriptions, again and again; what they may have missed is told."""
    async with serving(server) as peer:
        async with listening(peer, {"toolsListChanged": True, "resourceSubscriptions": ["x:1"]}) as stream:
            server.fail = ConnectFailed("not now")
            server.sessions[0].close()
            await trio.sleep(100)
            assert server.sessions == []
            assert stream.said() == []
            server.fail = None
            await trio.sleep(100)
            assert stream.said() == [(TOOLS, None), (UPDATED, "x:1")]
            assert len(server.of("resources/subscribe")) == 2
            server.say(UPDATED, {"uri": "x:1"})
            await trio.testing.wait_all_tasks_blocked()
            assert stream.said()[2:] == [(UPDATED, "x:1")]
        assert server.of("resources/unsubscribe") == [{"uri": "x:1"}]


async def test_who_leaves_while_the_upstream_is_away_opens_nothing(autojump_clock, server, serving):
    """There is nobody to be told, and nothing to be opened for."""
    async with serving(server) as peer:
        async with listening(peer, {"resourceSubscriptions": ["x:1"]}):
            server.fail = ConnectFailed("not now")
            server.sessions[0].close()
            await trio.sleep(1)
        server.fail = None
        await trio.sleep(100)

        assert server.sessions == []
        assert server.of("resources/unsubscribe") == []


async def test_a_drain_and_a_close_end_the_stream_gracefully(autojump_clock, server, serving):
    """With a result that names it."""
    async with serving(server) as peer:
        async with listening(peer, {"toolsListChanged": True}) as stream:
            server.say(TOOLS)
            stream.exchange.draining.set()
            await trio.testing.wait_all_tasks_blocked()
        async with listening(peer, {}) as other:
            peer.service.end()
            await trio.testing.wait_all_tasks_blocked()

    assert stream.said() == [(TOOLS, None)]
    for each in (stream, other):
        meta = {MetaKey.SUBSCRIPTION_ID.value: each.id}
        assert each.replies == [Result({"resultType": "complete", "_meta": meta})]


@pytest.mark.parametrize(
    "wanted",
    [
        None,
        [],
        {"resourceSubscriptions": "x:1"},
        {"resourceSubscriptions": [1]},
        {"resourceSubscriptions": ["x"] * 1001},
    ],
)
async def test_a_filter_that_is_none_is_refused(autojump_clock, server, serving, wanted):
    """As is one that names too many resources."""
    async with serving(server) as peer:
        with pytest.raises(InvalidParams, match="notifications"):
            await peer.call("subscriptions/listen", {"notifications": wanted})


async def test_listening_cancelled_anywhere_leaves_nothing(autojump_clock, server, serving):
    """No task, no session, no subscription."""

    async def trial() -> None:
        async with serving(server) as peer, listening(peer, {"resourceSubscriptions": ["x:1", "x:2"]}):
            server.say(UPDATED, {"uri": "x:1"})

    assert await cancel_everywhere(trial) > 10


async def test_each_request_gets_the_log_messages_it_asked_for(autojump_clock, server, serving):
    """The session's level is that of who wants most; it is told once for each change."""
    run = trio.Event()

    async def handle(exchange: Exchange) -> Reply:
        await run.wait()
        assert isinstance(exchange.request, Request)
        number = exchange.request.id
        for level in ("debug", "info", "error", "shout"):
            await exchange.relay(Notification("notifications/message", {"level": level, "data": number}))
        return Result()

    server.handlers["tools/call"] = handle
    async with serving(server) as peer:
        async with trio.open_nursery() as nursery:
            for level in ("error", "info", "warning", None, "rubbish"):
                meta = {} if level is None else {LOG: level}

                async def call(meta: Any = meta, level: Any = level) -> None:
                    await peer.call("tools/call", {"name": str(level)}, meta=meta)

                nursery.start_soon(call)
                await trio.testing.wait_all_tasks_blocked()
            run.set()
        await peer.tool(meta={LOG: "error"})

    assert server.of("logging/setLevel") == [{"level": "error"}, {"level": "info"}, {"level": "error"}]
    names = {
        each.request.id: each.request.params["name"]
        for each in server.seen
        if each.method == "tools/call" and not isinstance(each.request, Notification)
    }
    heard = [(names[each.params["data"]], each.params["level"]) for each in peer.interim]
    assert sorted(heard[:-2]) == [
        ("error", "error"),
        ("error", "shout"),
        ("info", "error"),
        ("info", "info"),
        ("info", "shout"),
        ("warning", "error"),
        ("warning", "shout"),
    ]


async def test_a_log_message_without_an_address_goes_to_the_only_one_who_wants_it(autojump_clock, server, serving):
    """Of two nobody knows whose it is."""
    run = trio.Event()

    async def handle(exchange: Exchange) -> Reply:
        await run.wait()
        return Result()

    server.handlers["tools/call"] = handle
    async with serving(server) as peer, trio.open_nursery() as nursery:

        async def call() -> None:
            await peer.tool(meta={LOG: "info"})

        nursery.start_soon(call)
        await trio.testing.wait_all_tasks_blocked()
        server.say("notifications/message", {"level": "info", "data": 1})
        server.say("notifications/message", {"level": "debug", "data": 2})
        nursery.start_soon(call)
        await trio.testing.wait_all_tasks_blocked()
        server.say("notifications/message", {"level": "info", "data": 3})
        run.set()

    assert [each.params["data"] for each in peer.interim] == [1]


async def test_an_upstream_that_does_not_log_is_not_told_how_much(autojump_clock, server, serving):
    """And one that opens a new session is told again."""
    server.capabilities = {}
    async with serving(server) as peer:
        await peer.tool(meta={LOG: "info"})
        assert server.of("logging/setLevel") == []
        server.capabilities = {"logging": {}}
        server.forget()
        await peer.tool(meta={LOG: "info"})
        assert server.of("logging/setLevel") == [{"level": "info"}]
        server.forget()
        await peer.tool(meta={LOG: "info"})
        assert server.of("logging/setLevel") == [{"level": "info"}] * 2
