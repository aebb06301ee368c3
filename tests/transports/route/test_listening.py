"""One stream for the client, one for each upstream."""

import trio

from sluiceway.pipeline.protocol.errors import UpstreamClosed
from sluiceway.pipeline.protocol.messages import ErrorReply, Notification
from sluiceway.pipeline.testing import FakeSink

ACK = "notifications/subscriptions/acknowledged"
ID = "io.modelcontextprotocol/subscriptionId"
TOOLS = "notifications/tools/list_changed"


def _said(call):
    return [(n.method, dict(n.params)) for n in call.interim]


async def test_the_acknowledgement_is_what_upstreams_granted_and_comes_first(autojump_clock, routed):
    """What a fast upstream says before the slow one has acknowledged waits; ids are the listener's own."""
    one, two = FakeSink(), FakeSink()
    async with routed(("one", one), ("two", two)) as gateway:
        call = gateway.start(
            "subscriptions/listen", notifications={"toolsListChanged": True, "resourceSubscriptions": ["a", "b"]}
        )
        first, second = await one.next(), await two.next()
        first.relay(ACK, {"notifications": {"toolsListChanged": True, "resourceSubscriptions": ["a"]}})
        first.relay(TOOLS, {"_meta": {ID: "theirs", "k": 1}})
        await trio.testing.wait_all_tasks_blocked()
        before = _said(call)
        second.relay(ACK, {"notifications": {"toolsListChanged": False, "resourceSubscriptions": ["b"]}})
        await trio.testing.wait_all_tasks_blocked()
        said = _said(call)
        call.cancel()

    assert [] == before
    assert (ACK, {"notifications": {"toolsListChanged": True, "resourceSubscriptions": ["a", "b"]},
                  "_meta": {ID: 1}}) == said[0]  # fmt: skip
    assert (TOOLS, {"_meta": {ID: 1, "k": 1}}) == said[1]


async def test_a_slow_upstream_does_not_hold_the_acknowledgement_up(autojump_clock, routed):
    """When it comes, the lists it has may be new; its own acknowledgement is not repeated."""
    one, two = FakeSink(), FakeSink()
    async with routed(("one", one), ("two", two), list_timeout="2s") as gateway:
        call = gateway.start("subscriptions/listen", notifications={"toolsListChanged": True})
        first, second = await one.next(), await two.next()
        first.relay(ACK, {"notifications": {}})
        await gateway.advance(3)
        before = _said(call)
        second.relay(ACK, {"notifications": {"toolsListChanged": True}})
        await gateway.advance(1)
        said = _said(call)
        call.cancel()

    assert [(ACK, {"notifications": {"toolsListChanged": True}, "_meta": {ID: 1}})] == before
    assert [(TOOLS, {"_meta": {ID: 1}})] == said[1:]


async def test_an_upstream_that_dies_is_listened_to_again(autojump_clock, routed):
    """After a pause; and the others go on meanwhile."""
    one, two = FakeSink(), FakeSink()
    async with routed(("one", one), ("two", two)) as gateway:
        call = gateway.start("subscriptions/listen", notifications={"toolsListChanged": True})
        first, second = await one.next(), await two.next()
        for held in (first, second):
            held.relay(ACK, {"notifications": {"toolsListChanged": True}})
        await first.fail(UpstreamClosed("died"))
        await gateway.advance(2)
        again = await one.next()
        again.relay(ACK, {"notifications": {"toolsListChanged": True}})
        second.relay(TOOLS, {"_meta": {ID: 1}})
        await gateway.advance(1)
        said = [method for method, _ in _said(call)]
        await again.reply({})
        await gateway.advance(5)
        third = await one.next()
        call.cancel()

    assert [ACK, TOOLS, TOOLS] == said
    assert "subscriptions/listen" == third.method


async def test_everybodys_refusal_is_the_answer(autojump_clock, routed):
    """One refusal is not."""
    refusal = ErrorReply(-32601, "no")
    one, two = FakeSink.script([refusal]), FakeSink.script([refusal])
    async with routed(("one", one), ("two", two)) as gateway:
        reply = await gateway.call("subscriptions/listen", notifications={})
    async with routed(("one", FakeSink.script([refusal])), ("two", FakeSink())) as gateway:
        call = gateway.start("subscriptions/listen", notifications={})
        await gateway.advance(30)
        said = _said(call)
        call.cancel()

    assert refusal == reply
    assert [(ACK, {"notifications": {}, "_meta": {ID: 1}})] == said


async def test_a_listener_ends_gracefully_when_the_gateway_drains(autojump_clock, routed):
    """Also where an upstream does not; the result names the subscription."""
    sink = FakeSink()
    async with routed(("one", sink)) as gateway:
        call = gateway.start("subscriptions/listen", notifications={})
        held = await sink.next()
        await gateway.engine.drain()
        reply = await call.wait()

    assert {"resultType": "complete", "_meta": {ID: 1}} == reply.value
    assert held.cancelled.is_set()


async def test_a_filter_that_is_none_is_refused(autojump_clock, routed):
    """Before anybody is asked."""
    sink = FakeSink()
    async with routed(("one", sink)) as gateway:
        reply = await gateway.call("subscriptions/listen", notifications=[])

    assert -32602 == reply.code
    assert [] == sink.requests


async def test_uris_are_listened_to_where_they_are(autojump_clock, scripted, routed):
    """Known ones at their owner alone, unknown ones everywhere, hidden ones nowhere."""
    one, two = scripted("one", resources=[["a"]]), scripted("two", resources=[["b"]])
    held = []

    def listen(exchange):
        held.append((exchange.source, exchange.request.params["notifications"]["resourceSubscriptions"]))
        return ErrorReply(-32601, "no")

    for upstream in (one, two):
        upstream.answers["subscriptions/listen"] = listen
    hidden = {"resources": {"deny": ["x*"]}}
    async with routed(one, two, to={"one": hidden, "two": hidden}) as gateway:
        await gateway.call("resources/list")
        await gateway.call("subscriptions/listen", notifications={"resourceSubscriptions": ["a", "b", "c", "x", 7]})

    assert [["a", "c"], ["b", "c"]] == sorted(uris for _, uris in held)


async def test_a_list_that_changed_is_looked_up_again(autojump_clock, scripted, routed):
    """Where names have no prefixes: the route hears what its listeners hear."""
    one, two = scripted("one", tools=[["a"]]), scripted("two", tools=[["b"]])

    async def behave(exchange):
        if exchange.method == "subscriptions/listen":
            await exchange.relay(Notification(ACK, {"notifications": {"toolsListChanged": True}}))
            await changed.wait()
            await exchange.relay(Notification(TOOLS))
            await trio.sleep_forever()
        return await original(exchange)

    changed, original = trio.Event(), one.behave
    one.sink._behaviour = behave
    async with routed(one, two, prefixes="never") as gateway:
        call = gateway.start("subscriptions/listen", notifications={"toolsListChanged": True})
        await gateway.call("tools/call", name="a")
        one.lists = {"tools": [["new"]]}
        changed.set()
        await trio.testing.wait_all_tasks_blocked()
        reply = await gateway.call("tools/call", name="new")
        call.cancel()

    assert "one" == reply.value["by"]
