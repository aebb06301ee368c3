"""Who hears of changes."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from sluiceway.pipeline.model.component import Context as GatewayContext
from sluiceway.pipeline.model.session import Session
from sluiceway.pipeline.protocol.messages import Notification, Result
from sluiceway.transports.embedded import Context, Server
from sluiceway.transports.embedded.sink import EmbeddedSink

MODERN = "2026-07-28"
SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"


def watched() -> Server:
    server = Server("s")
    server.tool(name="a")(lambda: None)
    server.resource("r://1", name="one")(lambda: "")

    @server.resource("r://{n}/x")
    def template(n: str) -> str:
        return n

    @server.tool()
    def touch(uri: str, ctx: Context) -> None:
        ctx.server.resource_updated(uri)

    return server


def methods(notifications: list[Notification]) -> list[tuple[str, Any]]:
    return [(each.method.removeprefix("notifications/"), each.params.get("uri")) for each in notifications]


async def test_a_legacy_session_hears_of_lists_and_of_what_it_subscribed_to(connect: Any) -> None:
    """Adding and removing at run time emits list_changed; updates come while subscribed (S3-LA-03)."""
    server = watched()
    async with connect(server) as peer:
        await peer.result("ping")
        server.resource_updated("r://1")
        assert {} == await peer.result("resources/subscribe", {"uri": "r://1"})
        await peer.result("resources/subscribe", {"uri": "r://7/x"})
        server.resource_updated("r://1")
        await peer.call("touch", raw=True, uri="r://7/x")
        assert {} == await peer.result("resources/unsubscribe", {"uri": "r://1"})
        server.resource_updated("r://1")
        server.tool(name="b")(lambda: None)
        server.tools.remove("b")
        server.resource("r://2", name="two")(lambda: "")
        server.prompt(name="p")(lambda: "")
        unknown = await peer.error("resources/subscribe", {"uri": "nope://"})
        malformed = await peer.error("resources/subscribe", {"uri": 7})

    assert [
        ("resources/updated", "r://1"),
        ("resources/updated", "r://7/x"),
        ("tools/list_changed", None),
        ("tools/list_changed", None),
        ("resources/list_changed", None),
        ("prompts/list_changed", None),
    ] == methods(peer.told)
    assert (-32002, -32602) == (unknown.code, malformed.code)


async def test_subscriptions_of_a_session_are_bounded(connect: Any) -> None:
    """Over the limit the client is told to unsubscribe; repeating one is free."""
    async with connect(watched(), max_subscriptions=2) as peer:
        for uri in ("r://1/x", "r://2/x", "r://1/x"):
            await peer.result("resources/subscribe", {"uri": uri})
        error = await peer.error("resources/subscribe", {"uri": "r://3/x"})
    async with connect(watched(), version=MODERN, max_subscriptions=1) as peer:
        listen = await peer.error(
            "subscriptions/listen", {"notifications": {"resourceSubscriptions": ["r://1/x", "r://2/x"]}}
        )

    assert [-32602] * 2 == [error.code, listen.code]
    assert "at most 2 resources" in error.message


async def test_a_client_without_session_cannot_subscribe(connect: Any) -> None:
    """There is nowhere to send updates to."""
    async with connect(watched(), session=False) as peer:
        assert -32600 == (await peer.error("resources/subscribe", {"uri": "r://1"})).code


async def test_an_ended_session_and_a_closed_server_leave_nothing(connect: Any) -> None:
    """Ended sessions are forgotten at once; closing the sink lets go of the others, and their data survives."""
    server = watched()
    async with connect(server) as peer:
        await peer.result("resources/subscribe", {"uri": "r://1"})
        hub = peer.sink._runtime.hub
        assert 1 == hub.size()
        first, peer.session = peer.session, Session(id="s2", source="test")
        peer.session.close()
        await peer.result("ping")
        assert 1 == hub.size()
        peer.session = Session(id="s3", source="test")
        await peer.result("ping")
        assert 2 == hub.size()
        peer.session.close()
        assert 1 == hub.size()

    assert (0, [], []) == (hub.size(), first._on_close, server._runtimes)
    async with connect(server) as again:
        first.notify = again.notify
        again.session = first
        await again.result("ping")
        server.resource_updated("r://1")

    assert [("resources/updated", "r://1")] == methods(again.told)


@pytest.mark.parametrize("request_id", [7, "7"])
async def test_a_listener_hears_what_it_asked_for_and_nothing_else(
    connect: Any, autojump_clock: Any, request_id: int | str
) -> None:
    """The ack comes first, every message has the listener's id with its exact type, and the end is a result."""
    server = watched()
    wanted = {"toolsListChanged": True, "promptsListChanged": True, "resourceSubscriptions": ["r://1", "nope://"]}
    replies: list[Any] = []

    async with connect(server, version=MODERN) as peer:

        async def listen() -> None:
            replies.append(await peer.send("subscriptions/listen", {"notifications": wanted}, request_id=request_id))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            await trio.testing.wait_all_tasks_blocked()
            server.resource("r://2", name="two")(lambda: "")
            server.resource_updated("r://2")
            server.resource_updated("r://1")
            server.resource_updated("r://1")
            server.tool(name="b")(lambda: None)
            await trio.testing.wait_all_tasks_blocked()
            server.resource_updated("r://1")
            await trio.testing.wait_all_tasks_blocked()
            peer.draining.set()
        assert 0 == peer.sink._runtime.hub.size()

    acknowledged = {"toolsListChanged": True, "resourceSubscriptions": ["r://1"]}
    assert acknowledged == peer.heard[0].params["notifications"]
    assert [
        ("subscriptions/acknowledged", None),
        ("resources/updated", "r://1"),
        ("tools/list_changed", None),
        ("resources/updated", "r://1"),
    ] == methods(peer.heard)
    ids = [each.params["_meta"][SUBSCRIPTION] for each in peer.heard] + [replies[0].value["_meta"][SUBSCRIPTION]]
    assert [request_id] * 5 == ids
    assert {type(request_id)} == {type(each) for each in ids}
    assert isinstance(replies[0], Result)


async def test_closing_the_server_ends_its_listeners_with_a_result(connect: Any, autojump_clock: Any) -> None:
    """A reload or a stop is a graceful end, after what is pending."""
    server = watched()
    replies: list[Any] = []

    async with trio.open_nursery() as nursery, connect(server, version=MODERN) as peer:

        async def listen() -> None:
            replies.append(await peer.send("subscriptions/listen", {"notifications": {"toolsListChanged": True}}))

        nursery.start_soon(listen)
        await trio.testing.wait_all_tasks_blocked()
        server.tools.remove("a")

    assert ["complete"] == [reply.value["resultType"] for reply in replies]
    assert ("tools/list_changed", None) == methods(peer.heard)[-1]


async def test_a_listener_that_is_cancelled_is_forgotten(connect: Any, autojump_clock: Any) -> None:
    """A client that hangs up leaves nothing behind."""
    async with connect(watched(), version=MODERN) as peer:
        with trio.move_on_after(1):
            await peer.send("subscriptions/listen", {"notifications": {}})

        assert (0, {}) == (peer.sink._runtime.hub.size(), peer.heard[0].params["notifications"])


@pytest.mark.parametrize(
    "params", [{}, {"notifications": []}, {"notifications": {"resourceSubscriptions": "r://1"}},
               {"notifications": {"resourceSubscriptions": [7]}}],
)  # fmt: skip
async def test_a_filter_that_is_none_is_refused(connect: Any, params: dict[str, Any]) -> None:
    """-32602, and nothing is opened."""
    async with connect(watched(), version=MODERN) as peer:
        assert (-32602, []) == ((await peer.error("subscriptions/listen", params)).code, peer.heard)


async def test_what_is_not_exposed_is_not_announced(connect: Any) -> None:
    """A hidden list changes in silence."""
    server = watched()
    async with connect(server, expose=("resources",)) as peer:
        await peer.result("ping")
        server.tools.remove("a")
        server.resource("r://2", name="two")(lambda: "")

    assert [("resources/list_changed", None)] == methods(peer.told)


async def test_too_many_subscriptions_of_a_listener_open_nothing(connect: Any) -> None:
    """The limit is checked before the stream begins."""
    async with connect(watched(), version=MODERN, max_subscriptions=0) as peer:
        error = await peer.error("subscriptions/listen", {"notifications": {"resourceSubscriptions": ["r://1"]}})

    assert (-32602, [], 0) == (error.code, peer.heard, len(peer.told))


async def test_changes_are_announced_though_nobody_subscribed() -> None:
    """Caches learn of them from the hub of the gateway."""
    server, context, told = watched(), GatewayContext(id="e"), []
    context.changes.listen(lambda sink, notification: told.append((sink, notification.method)))
    async with EmbeddedSink.serving(server, context).open():
        server.resource_updated("r://1")
        server.tools.remove("a")

    assert [("e", "notifications/resources/updated"), ("e", "notifications/tools/list_changed")] == told
