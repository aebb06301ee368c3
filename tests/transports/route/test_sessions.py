"""Legacy sessions: a part at every upstream, and no upstream's end is the session's."""

import pytest
import trio

from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.protocol.errors import ConnectFailed, SessionNotFound, UnsupportedVersion
from sluiceway.pipeline.protocol.mcp import LATEST, LEGACY_VERSIONS, ErrorCode
from sluiceway.pipeline.protocol.messages import ErrorReply, Notification, Reply, Result
from sluiceway.pipeline.testing import legacy_client

MISSING = "io.sluiceway/missing"
HELLO = {"protocolVersion": "2025-11-25", "capabilities": {"roots": {}}, "clientInfo": {"name": "c", "version": "1"}}


def _client(told=None):
    client = legacy_client()
    client.session.version = None
    if told is not None:
        client.session.notify = told.append
    return client


async def test_every_upstream_is_introduced_to_the_client_itself(autojump_clock, scripted, routed):
    """Its own words and capabilities go to each, in a session of each one's own; their words are merged."""
    one, two = scripted("one"), scripted("two")
    two.answers["initialize"] = lambda _: Result(
        {"protocolVersion": "2025-06-18", "capabilities": {"logging": {}}, "instructions": "Mind.", "serverInfo": {}}
    )
    async with routed(one, two) as gateway:
        gateway.client = _client()
        reply = await gateway.call("initialize", HELLO)
        gateway.start("notifications/initialized")
        await gateway.advance(1)
        sessions = {x.client.session for u in (one, two) for x in u.sink.exchanges}

    assert "2025-06-18" == reply.value["protocolVersion"]
    assert "About names that begin with `two.`:\nMind." == reply.value["instructions"]
    assert {"tools", "prompts", "resources", "logging"} == reply.value["capabilities"].keys()
    assert "all" == reply.value["serverInfo"]["name"]
    assert [dict(HELLO)] * 2 == [u.sink.requests[0].params for u in (one, two)]
    assert [["initialize", "notifications/initialized"]] * 2 == [one.methods, two.methods]
    assert 2 == len(sessions - {gateway.client.session})
    assert {"roots": {}} == one.sink.exchanges[0].client.capabilities


async def test_a_session_that_an_upstream_lost_is_opened_again_for_it_alone(autojump_clock, scripted, routed):
    """The call goes on; level and subscriptions are repeated; the client is told that lists may have changed."""
    told = []
    one, two = scripted("one", resources=[["a://1"]]), scripted("two")
    one.capabilities = {"tools": {}, "resources": {}, "logging": {}}
    async with routed(one, two) as gateway:
        gateway.client = _client(told)
        await gateway.call("initialize", HELLO)
        gateway.start("notifications/initialized")
        await gateway.call("logging/setLevel", level="debug")
        await gateway.call("resources/subscribe", uri="a://1")
        before = one.sink.exchanges[-1].client.session

        def lose(exchange: Exchange):
            if exchange.client.session is before:
                raise SessionNotFound("gone")
            return Result({"by": "one again"})

        one.answers["tools/call"] = lose
        reply = await gateway.call("tools/call", name="one.x")

    assert Result({"by": "one again"}) == reply
    again = ["initialize", "notifications/initialized", "logging/setLevel", "resources/subscribe", "tools/call"]
    assert again == one.methods[-5:]
    assert before.closed
    assert not gateway.client.session.closed
    assert 1 == two.methods.count("initialize")
    assert "notifications/tools/list_changed" in [n.method for n in told]


async def test_an_upstream_that_is_down_joins_later(autojump_clock, scripted, routed):
    """It is missing from the introduction; the first use of its names tries again."""
    told = []
    one, two = scripted("one", tools=[["a"]]), scripted("two", tools=[["b"]])
    two.error = ConnectFailed("not there")
    async with routed(one, two) as gateway:
        gateway.client = _client(told)
        reply = await gateway.call("initialize", HELLO)
        down = await gateway.call("tools/call", name="two.b")
        two.error = None
        await gateway.advance(2)
        up = await gateway.call("tools/call", name="two.b")

    assert ["two"] == reply.value["_meta"][MISSING]
    assert "two is not available: not there" in down.message
    assert "two" == up.value["by"]
    assert 1 == [n.method for n in told].count("notifications/tools/list_changed")


async def test_a_slow_introduction_goes_on_in_the_background(autojump_clock, scripted, routed):
    """The client is answered at list_timeout, and told when the upstream has come."""
    told = []
    slow = scripted("slow", delay=30)
    async with routed(scripted("fast"), slow, list_timeout="2s") as gateway:
        gateway.client = _client(told)
        reply = await gateway.call("initialize", HELLO)
        gateway.start("notifications/initialized")
        await gateway.advance(70)

    assert ["slow"] == reply.value["_meta"][MISSING]
    assert ["initialize", "notifications/initialized"] == slow.methods
    assert {f"notifications/{k}/list_changed" for k in ("tools", "prompts", "resources")} == {n.method for n in told}


async def test_a_hanging_introduction_is_given_up(autojump_clock, scripted, routed):
    """After two minutes; what waits for it learns so."""
    hung = scripted("hung", delay=10_000)
    async with routed(scripted("fast"), hung, list_timeout="2s") as gateway:
        gateway.client = _client()
        await gateway.call("initialize", HELLO)
        await gateway.advance(100)
        reply = await gateway.call("tools/call", name="hung.x")

    assert "no answer to its handshake within 120 s" in reply.message


async def test_nobody_to_introduce_is_an_error(autojump_clock, scripted, routed):
    """Ours, or the upstreams' own if they have refused."""
    dead, rude = scripted("one"), scripted("one")
    dead.error = ConnectFailed("gone")
    rude.answers["initialize"] = lambda _: ErrorReply(-32600, "go away")
    replies = []
    for upstream in (dead, rude):
        async with routed(upstream) as gateway:
            gateway.client = _client()
            replies.append(await gateway.call("initialize", HELLO))

    assert ["upstream_unavailable"] * 2 == [reply.data["reason"] for reply in replies]


async def test_what_an_upstream_says_to_the_session_reaches_it(autojump_clock, scripted, routed):
    """And a changed list is looked up again."""
    told = []
    one, two = scripted("one", tools=[["a"]]), scripted("two")
    async with routed(one, two, prefixes="never") as gateway:
        gateway.client = _client(told)
        await gateway.call("initialize", HELLO)
        await gateway.call("tools/call", name="a")
        one.lists = {"tools": [["new"]]}
        one.sink.exchanges[-1].client.session.notify(Notification("notifications/tools/list_changed"))
        reply = await gateway.call("tools/call", name="new")

    assert ["notifications/tools/list_changed"] == [n.method for n in told]
    assert "one" == reply.value["by"]


async def test_the_end_of_the_session_is_the_end_of_its_parts(autojump_clock, scripted, routed):
    """Handshakes under way included; and nothing is known of it any more."""
    slow = scripted("slow", delay=50)
    one = scripted("one")
    async with routed(one, slow, list_timeout="1s") as gateway:
        gateway.client = _client()
        await gateway.call("initialize", HELLO)
        gateway.client.session.close()
        await trio.testing.wait_all_tasks_blocked()
        closed = [x.client.session.closed for u in (one, slow) for x in u.sink.exchanges]
        views = gateway.engine.sinks["all"].views

    assert [True, True] == closed
    assert 0 == views


async def test_unsubscribing_goes_where_the_subscription_is(autojump_clock, scripted, routed):
    """DC-GP-02: also when the uri is listed no more."""
    one, two = scripted("one"), scripted("two", resources=[["b://1"]])
    async with routed(one, two) as gateway:
        gateway.client = _client()
        await gateway.call("initialize", HELLO)
        await gateway.call("resources/subscribe", uri="b://1")
        two.answers["resources/unsubscribe"] = lambda _: Result()
        replies = [await gateway.call("resources/unsubscribe", uri="b://1") for _ in range(2)]

    assert [Result(), Result()] == replies
    assert "resources/unsubscribe" not in one.methods[:3]


async def test_ping_is_answered_here_and_levels_go_to_those_that_log(autojump_clock, scripted, routed):
    """The rest would refuse it."""
    one, two = scripted("one"), scripted("two")
    two.capabilities = {"logging": {}}
    async with routed(one, two) as gateway:
        gateway.client = _client()
        await gateway.call("initialize", HELLO)
        pong = await gateway.call("ping")
        await gateway.call("logging/setLevel", level="info")

    assert Result() == pong
    assert (["initialize"], ["initialize", "logging/setLevel"]) == (one.methods, two.methods)


@pytest.mark.parametrize(
    "answer",
    [
        lambda _: ErrorReply(-32601, "method not found: server/discover"),
        lambda _: _raise(UnsupportedVersion("handshakes only", data={"supported": ["2025-11-25"]})),
    ],
    ids=["it knows no such method", "its sink says so"],
)
async def test_with_a_legacy_upstream_the_whole_is_legacy(autojump_clock, scripted, routed, answer):
    """A client that speaks both kinds is told to shake hands, for else it would lose that upstream."""
    old, new = scripted("old", tools=[["x"]]), scripted("new", tools=[["y"]])
    old.answers["server/discover"] = answer
    new.answers["server/discover"] = lambda _: Result({"supportedVersions": [LATEST], "capabilities": {}})
    async with routed(old, new) as gateway:
        reply = await gateway.call("server/discover")

    assert isinstance(reply, ErrorReply)
    assert ErrorCode.UNSUPPORTED_PROTOCOL_VERSION == reply.code
    assert "old can be reached after a handshake only" in reply.message
    assert {"supported": list(LEGACY_VERSIONS), "requested": LATEST} == {
        key: reply.data[key] for key in ("supported", "requested")
    }


def _raise(error: Exception) -> Reply:
    raise error


async def test_discovery_is_merged(autojump_clock, scripted, routed):
    """The modern era: common versions, all capabilities, the shortest time to keep it; who is away is noted."""
    one, two, three = scripted("one"), scripted("two"), scripted("three")
    three.error = ConnectFailed("gone")
    for upstream, versions, ttl in ((one, ["2026-07-28", "2025-11-25"], 9), (two, ["2026-07-28"], 5)):
        result = {"supportedVersions": versions, "capabilities": {upstream.name: {}}, "ttlMs": ttl,
                  "cacheScope": "public", "resultType": "complete"}  # fmt: skip
        upstream.answers["server/discover"] = lambda _, result=result: Result(result)
    async with routed(one, two) as gateway:
        reply = await gateway.call("server/discover")
    async with routed(one, three) as gateway:
        partly = await gateway.call("server/discover")
    async with routed(three) as gateway:
        nobody = await gateway.call("server/discover")

    assert {"supportedVersions": ["2026-07-28"], "capabilities": {"one": {}, "two": {}}, "ttlMs": 5,
            "cacheScope": "public", "resultType": "complete"} == reply.value  # fmt: skip
    assert (0, ["three"]) == (partly.value["ttlMs"], partly.value["_meta"][MISSING])
    assert "upstream_unavailable" == nobody.data["reason"]


async def test_what_all_refuse_is_their_refusal(autojump_clock, scripted, routed):
    """Discovery and log levels: an upstream's word, not ours; and ours where nobody is there."""
    one = scripted("one")
    refusal = ErrorReply(-32601, "what?")
    for method in ("server/discover", "logging/setLevel"):
        one.answers[method] = lambda _: refusal
    async with routed(one) as gateway:
        replies = [await gateway.call("server/discover"), await gateway.call("logging/setLevel", level="info")]
        one.error = ConnectFailed("gone")
        dead = await gateway.call("logging/setLevel", level="info")

    assert [refusal, refusal] == replies
    assert "upstream_unavailable" == dead.data["reason"]


async def test_servers_without_a_common_version_cannot_be_one(autojump_clock, scripted, routed):
    """The error names them."""
    one, two = scripted("one"), scripted("two")
    for upstream, versions in ((one, ["2026-07-28"]), (two, ["2025-11-25"])):
        upstream.answers["server/discover"] = lambda _, v=versions: Result({"supportedVersions": v, "serverInfo": {}})
    async with routed(one, two) as gateway:
        reply = await gateway.call("server/discover")

    assert "one, two have no protocol version in common" == reply.message
