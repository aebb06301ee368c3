"""What a legacy session hears of a modern upstream: one listener, however often its wishes change."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from sluiceway.pipeline.model.changes import RESOURCE_UPDATED
from sluiceway.pipeline.protocol.errors import CapacityExceeded, ConnectFailed, UpstreamUnavailable
from sluiceway.pipeline.protocol.messages import ErrorReply, Notification, Result
from sluiceway.transports.translation import to_modern_listening

TOOLS_CHANGED = Notification("notifications/tools/list_changed")


def wishes(upstream: Any) -> list[Any]:
    """What was listened for, in order."""
    return [message.params["notifications"] for message in upstream.of("subscriptions/listen")]


def updated(uri: str) -> Notification:
    return Notification(RESOURCE_UPDATED, {"uri": uri})


async def test_a_session_hears_of_lists_from_when_it_is_initialized(autojump_clock, kit, upstream, peer):
    """Of those of which the upstream says that it tells; the client sees a notification of its era."""
    async with kit.translating(upstream) as translator:
        await peer.start(translator, ready=False)
        await trio.testing.wait_all_tasks_blocked()
        assert upstream.listeners == []
        await translator(peer.exchange("notifications/initialized"))
        await trio.testing.wait_all_tasks_blocked()
        await upstream.tell("notifications/tools/list_changed")
    assert upstream.listeners == []

    assert wishes(upstream) == [{"toolsListChanged": True}]
    assert peer.heard == [TOOLS_CHANGED]


async def test_who_has_nothing_to_hear_costs_no_listener(autojump_clock, kit, upstream, peer):
    """An upstream that tells of no changes is not listened to."""
    upstream.discovered = Result({**kit.SERVER, "capabilities": {"tools": {}, "resources": {"subscribe": True}}})
    async with kit.translating(upstream) as translator:
        await peer.start(translator)
        await trio.testing.wait_all_tasks_blocked()
        assert wishes(upstream) == []
        assert await translator(peer.exchange("resources/subscribe", {"uri": "a:1"})) == Result({})
        assert len(upstream.listeners) == 1
        assert await translator(peer.exchange("resources/unsubscribe", {"uri": "a:1"})) == Result({})
        await trio.testing.wait_all_tasks_blocked()
        assert upstream.listeners == []

    assert wishes(upstream) == [{"resourceSubscriptions": ["a:1"]}]


async def test_a_subscription_is_answered_when_it_is_acknowledged_and_nothing_is_missed(
    autojump_clock, kit, upstream, peer
):
    """The listener before is closed only then."""
    async with kit.translating(upstream) as translator:
        await peer.start(translator)
        await trio.testing.wait_all_tasks_blocked()
        before = upstream.listeners[0]
        assert await translator(peer.exchange("resources/subscribe", {"uri": "a:1"})) == Result({})
        assert len(upstream.listeners) == 2 or upstream.listeners[0] is not before
        await trio.testing.wait_all_tasks_blocked()
        assert upstream.listeners != [before]
        assert len(upstream.listeners) == 1
        await upstream.tell(RESOURCE_UPDATED, uri="a:1")
        assert await translator(peer.exchange("resources/subscribe", {"uri": "a:1"})) == Result({})

    assert wishes(upstream) == [
        {"toolsListChanged": True},
        {"toolsListChanged": True, "resourceSubscriptions": ["a:1"]},
    ]
    assert peer.heard == [updated("a:1")]


async def test_many_subscriptions_at_once_share_listeners(autojump_clock, kit, upstream, peer):
    """Those that come while one is opened share the next."""
    async with kit.translating(upstream) as translator:
        await peer.start(translator)
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(translator, peer.exchange("resources/subscribe", {"uri": f"a:{number}"}))
        await trio.testing.wait_all_tasks_blocked()
        assert len(upstream.listeners) == 1

    assert len(wishes(upstream)) <= 4
    assert sorted(wishes(upstream)[-1]["resourceSubscriptions"]) == sorted(f"a:{number}" for number in range(100))


async def test_what_is_not_granted_is_refused(autojump_clock, kit, upstream, peer):
    """As a legacy server refuses what it does not have; the other subscriptions stay."""
    async with kit.translating(upstream) as translator:
        await peer.start(translator)
        await translator(peer.exchange("resources/subscribe", {"uri": "a:1"}))
        reply = await translator(peer.exchange("resources/subscribe", {"uri": "none:1"}))
        await trio.testing.wait_all_tasks_blocked()
        await upstream.tell(RESOURCE_UPDATED, uri="a:1")
        count = len(wishes(upstream))
        await trio.sleep(1000)

    assert isinstance(reply, ErrorReply)
    assert (reply.code, reply.data) == (-32002, {"uri": "none:1"})
    assert peer.heard == [updated("a:1")]
    assert len(wishes(upstream)) == count


@pytest.mark.parametrize("refusal", [ErrorReply(-32602, "no"), ConnectFailed("down")])
async def test_a_subscription_that_fails_is_told_and_forgotten(autojump_clock, kit, upstream, peer, refusal):
    """What was heard before is heard on."""
    async with kit.translating(upstream) as translator:
        await peer.start(translator)
        await trio.testing.wait_all_tasks_blocked()
        upstream.refuses_listeners = refusal
        if isinstance(refusal, ErrorReply):
            assert await translator(peer.exchange("resources/subscribe", {"uri": "a:1"})) == refusal
        else:
            with pytest.raises(ConnectFailed):
                await translator(peer.exchange("resources/subscribe", {"uri": "a:1"}))
        await trio.sleep(300)
        assert len(wishes(upstream)) == 2
        await upstream.tell("notifications/tools/list_changed")

    assert peer.heard == [TOOLS_CHANGED]


async def test_an_upstream_that_acknowledges_nothing_is_not_waited_for(autojump_clock, kit, upstream, peer):
    """After twenty seconds a subscription counts as failed."""
    async with kit.translating(upstream) as translator:
        await peer.start(translator)
        await trio.testing.wait_all_tasks_blocked()
        upstream.silent = True
        began = trio.current_time()
        with pytest.raises(UpstreamUnavailable, match="acknowledges no subscription"):
            await translator(peer.exchange("resources/subscribe", {"uri": "a:1"}))
        assert trio.current_time() - began == to_modern_listening.SILENCE_S
        await trio.testing.wait_all_tasks_blocked()
        assert upstream.waiting == 0


async def test_a_word_is_as_good_as_an_acknowledgement(autojump_clock, kit, upstream, peer):
    """An upstream that tells has taken the subscription, even if it forgets to say so."""

    async def listen(exchange: Any) -> Any:
        upstream.listeners.append(exchange)
        await exchange.relay(upstream.tagged(exchange, RESOURCE_UPDATED, uri="a:1"))
        await trio.sleep_forever()

    upstream.listen = listen
    async with kit.translating(upstream) as translator:
        await peer.start(translator, ready=False)
        assert await translator(peer.exchange("resources/subscribe", {"uri": "a:1"})) == Result({})

    assert peer.heard == [updated("a:1")]


async def test_a_listener_that_is_lost_is_opened_again_and_the_client_told(autojump_clock, kit, upstream, peer):
    """What may have changed meanwhile; the pauses grow while the upstream is away, and not without end."""
    async with kit.translating(upstream) as translator:
        await peer.start(translator)
        await translator(peer.exchange("resources/subscribe", {"uri": "a:1"}))
        await trio.sleep(100)
        upstream.refuses_listeners = ConnectFailed("away")
        upstream.lost.set()
        began = len(wishes(upstream))
        await trio.sleep(600)
        tries = len(wishes(upstream)) - began
        upstream.lost, upstream.refuses_listeners = trio.Event(), None
        assert peer.heard == []
        await trio.sleep(61)
        assert len(upstream.listeners) == 1

    assert 12 <= tries <= 24
    assert peer.heard == [TOOLS_CHANGED, updated("a:1")]


async def test_changes_that_nobody_heard_of_are_made_up_for(autojump_clock, kit, upstream, peer):
    """Whether a listener was lost, or could not be opened to begin with."""
    upstream.refuses_listeners = ConnectFailed("away")
    async with kit.translating(upstream) as translator:
        await peer.start(translator)
        await trio.sleep(10)
        upstream.refuses_listeners = None
        await trio.sleep(61)
        assert peer.heard == [TOOLS_CHANGED]
        lost, upstream.lost = upstream.lost, trio.Event()
        lost.set()
        await trio.sleep(61)
        assert len(upstream.listeners) == 1

    assert peer.heard == [TOOLS_CHANGED, TOOLS_CHANGED]


async def test_who_subscribes_before_it_is_initialized_hears_of_lists_from_then_on(autojump_clock, kit, upstream, peer):
    """The listener it has is exchanged for another one."""
    async with kit.translating(upstream) as translator:
        await peer.start(translator, ready=False)
        await translator(peer.exchange("resources/subscribe", {"uri": "a:1"}))
        await translator(peer.exchange("notifications/initialized"))
        await trio.testing.wait_all_tasks_blocked()

    assert wishes(upstream) == [
        {"resourceSubscriptions": ["a:1"]},
        {"toolsListChanged": True, "resourceSubscriptions": ["a:1"]},
    ]


async def test_an_upstream_that_knows_no_listeners_is_not_asked_on_and_on(autojump_clock, kit, upstream, peer):
    """Whatever it has declared."""
    upstream.refuses_listeners = ErrorReply(-32601, "what?")
    async with kit.translating(upstream) as translator:
        await peer.start(translator)
        await trio.sleep(3600)

    assert len(wishes(upstream)) == 1


async def test_a_subscription_may_be_tried_while_the_upstream_is_away(autojump_clock, kit, upstream, peer):
    """It does not wait for the pause to end."""
    async with kit.translating(upstream) as translator:
        upstream.refuses_listeners = ConnectFailed("away")
        await peer.start(translator)
        await trio.sleep(300)
        began = trio.current_time()
        upstream.refuses_listeners = None
        assert await translator(peer.exchange("resources/subscribe", {"uri": "a:1"})) == Result({})
        assert trio.current_time() == began


async def test_the_end_of_a_session_is_the_end_of_its_listener(autojump_clock, kit, upstream, peer):
    """The upstream is told by the sink's own means: the exchange is cancelled."""
    async with kit.translating(upstream) as translator:
        await peer.start(translator)
        await translator(peer.exchange("resources/subscribe", {"uri": "a:1"}))
        peer.session.close()
        await trio.testing.wait_all_tasks_blocked()
        assert upstream.listeners == []
        assert next(iter(translator.figures())).value == 0


async def test_resources_are_bounded(autojump_clock, kit, upstream, peer, monkeypatch):
    """One session cannot watch without end."""
    monkeypatch.setattr(to_modern_listening, "MAX_URIS", 2)
    async with kit.translating(upstream) as translator:
        await peer.start(translator)
        for uri in ("a:1", "a:2"):
            await translator(peer.exchange("resources/subscribe", {"uri": uri}))
        with pytest.raises(CapacityExceeded, match="watches 2 resources"):
            await translator(peer.exchange("resources/subscribe", {"uri": "a:3"}))
        assert await translator(peer.exchange("resources/subscribe", {"uri": "a:1"})) == Result({})
        await translator(peer.exchange("resources/unsubscribe", {"uri": "a:1"}))
        assert await translator(peer.exchange("resources/subscribe", {"uri": "a:3"})) == Result({})


async def test_a_subscription_that_is_given_up_is_forgotten(autojump_clock, kit, upstream, peer):
    """Nobody hears of what nobody waits for."""
    async with kit.translating(upstream) as translator:
        await peer.start(translator)
        await trio.testing.wait_all_tasks_blocked()
        upstream.silent = True
        with trio.move_on_after(1):
            await translator(peer.exchange("resources/subscribe", {"uri": "a:1"}))
        upstream.silent = False
        await trio.sleep(60)
        assert await translator(peer.exchange("resources/subscribe", {"uri": "a:2"})) == Result({})

    assert wishes(upstream)[-1] == {"toolsListChanged": True, "resourceSubscriptions": ["a:2"]}


async def test_a_sink_that_closes_leaves_nobody_waiting(autojump_clock, kit, upstream, peer):
    """Who subscribes then is told."""
    failures: list[Exception] = []

    async def subscribe(translator: Any) -> None:
        try:
            await translator(peer.exchange("resources/subscribe", {"uri": "a:1"}))
        except UpstreamUnavailable as error:
            failures.append(error)

    async with trio.open_nursery() as nursery, kit.translating(upstream) as translator:
        await peer.start(translator)
        await trio.testing.wait_all_tasks_blocked()
        upstream.silent = True
        nursery.start_soon(subscribe, translator)
        await trio.testing.wait_all_tasks_blocked()
    await subscribe(translator)

    assert len(failures) == 2
