"""Upstreams that are not quite equal: filter first, then balance."""

from __future__ import annotations

from collections import Counter

import pytest
import trio

from sluiceway.pipeline.protocol.errors import ConnectFailed, InvalidParams, UpstreamUnavailable
from sluiceway.pipeline.protocol.messages import ErrorReply, Notification, Result
from sluiceway.pipeline.testing import memory_exchange
from sluiceway.transports.balance.member import Member, Vitals
from sluiceway.transports.balance.offers import FRESH_S, MAX_NAMES, TEMPLATES, Offers

KEYS = {
    "tools/list": ("tools", "name"),
    "prompts/list": ("prompts", "name"),
    "resources/list": ("resources", "uri"),
    TEMPLATES: ("resourceTemplates", "uriTemplate"),
}


def offer(up, **lists):
    """Have an upstream list some pages: `tools=[["a"], ["b"]]`."""

    def listing(method):
        member, key = KEYS[method]

        def answer(exchange):
            pages = lists.get(member)
            if pages is None:
                return ErrorReply(-32601, "none of these")
            number = int(exchange.request.params.get("cursor", 0))
            more = {"nextCursor": str(number + 1)} if number + 1 < len(pages) else {}
            return Result({member: [{key: name, "by": up.name} for name in pages[number]], "ttlMs": 1000, **more})

        return answer

    up.answers.update({method: listing(method) for method in KEYS})


async def call(made, method="tools/call", **params):
    """Who has served a request."""
    return (await made.sink(memory_exchange(method, params))).value["by"]


async def test_lists_are_those_of_all_each_thing_once(autojump_clock, group):
    """Whole, in the order of the configuration; the first one's word where several have a thing."""
    async with group("a", "b", offers="differ") as made:
        offer(made.ups["a"], tools=[["x", "both"], ["y"]])
        offer(made.ups["b"], tools=[["both", "z"]])
        value = (await made.sink(memory_exchange("tools/list"))).value

        assert [(each["name"], each["by"]) for each in value["tools"]] == [
            ("x", "a"), ("both", "a"), ("y", "a"), ("z", "b"),
        ]  # fmt: skip
        assert value["ttlMs"] == 1000
        assert "nextCursor" not in value
        with pytest.raises(InvalidParams, match="has one page"):
            await made.sink(memory_exchange("tools/list", {"cursor": "1"}))


async def test_a_request_goes_to_all_that_offer_it_and_to_nobody_else(autojump_clock, group):
    """Without a list before it; spread over who is able; a stranger's tool to anybody."""
    async with group("a", "b", "c", offers="differ", strategy="round_robin") as made:
        offer(made.ups["a"], tools=[["x"]])
        offer(made.ups["b"], tools=[["x", "z"]])
        offer(made.ups["c"])
        assert Counter([await call(made, name="x") for _ in range(10)]) == {"a": 5, "b": 5}
        assert [await call(made, name="z") for _ in range(3)] == ["b"] * 3
        assert {await call(made, name="unknown") for _ in range(9)} == {"a", "b", "c"}

        assert made.ups["a"].methods.count("tools/list") == 1


async def test_where_all_offer_the_same_nobody_is_asked_what(autojump_clock, group):
    """By default: no list is fetched, and one that a client fetches is one upstream's."""
    async with group("a", "b") as made:
        for up in made.ups.values():
            offer(up, tools=[["x"]])
        await call(made, name="z")
        await made.sink(memory_exchange("tools/list"))

        assert Counter(made.ups["a"].methods + made.ups["b"].methods) == {"tools/call": 1, "tools/list": 1}


async def test_resources_go_by_uri_and_by_template(autojump_clock, group):
    """Schemes of their own."""
    async with group("a", "b", offers="differ") as made:
        offer(made.ups["a"], resources=[["file:///one"]], resourceTemplates=[["file:///{path}"]])
        offer(made.ups["b"], resources=[[]], resourceTemplates=[["vault://{key}"]])
        assert [await call(made, "resources/read", uri="file:///two") for _ in range(4)] == ["a"] * 4
        assert [await call(made, "resources/read", uri="vault://k") for _ in range(4)] == ["b"] * 4


async def test_who_is_able_but_ill_is_named(autojump_clock, group):
    """Others could only say that they do not know it."""
    async with group("a", "b", offers="differ", eject={"consecutive": 1}, panic_threshold="0%") as made:
        offer(made.ups["a"], tools=[["x"]])
        offer(made.ups["b"], tools=[["y"]])
        await call(made, name="y")
        made.ups["a"].error = ConnectFailed("dead")
        with pytest.raises(ConnectFailed):
            await call(made, name="x")
        with pytest.raises(UpstreamUnavailable, match="only a offers this, and is not well"):
            await call(made, name="x")

        assert await call(made, name="y") == "b"


async def test_who_is_missing_is_named(autojump_clock, group):
    """A list goes on without who is dead, slow or talks rubbish; nobody at all is an error."""
    async with group("a", "b", "c", "d", offers="differ") as made:
        offer(made.ups["a"], tools=[["x"]])
        made.ups["b"].error = ConnectFailed("dead")
        made.ups["c"].delay = 60
        made.ups["d"].answers["tools/list"] = lambda _: Result({"tools": [1]})
        began = trio.current_time()
        value = (await made.sink(memory_exchange("tools/list"))).value
        assert value["_meta"] == {"io.sluiceway/missing": ["b", "c", "d"]}
        assert value["ttlMs"] == 0
        assert trio.current_time() - began == 5
        made.ups["a"].error = ConnectFailed("dead")
        with pytest.raises(UpstreamUnavailable, match="none of a, b, c, d has answered"):
            await made.sink(memory_exchange("tools/list"))
        offer(made.ups["d"])

        assert (await made.sink(memory_exchange("tools/list"))).code == -32601


async def test_a_change_is_heard(autojump_clock, group):
    """What an upstream has listed before counts no more."""
    async with group("a", "b", offers="differ") as made:
        offer(made.ups["a"], tools=[["x"]])
        offer(made.ups["b"], tools=[["y"]])
        assert await call(made, name="x") == "a"
        offer(made.ups["a"], tools=[[]])
        offer(made.ups["b"], tools=[["x", "y"]])
        for name in "ab":
            made.sink.context.changes.announce(f"sinks.{name}", Notification("notifications/tools/list_changed"))

        assert [await call(made, name="x") for _ in range(4)] == ["b"] * 4
    assert len(made.sink.context.changes) == 0


async def _nowhere(_exchange):
    raise AssertionError("nothing is sent")


MEMBERS = tuple(Member(name, index, _nowhere, 1, Vitals()) for index, name in enumerate("ab"))


def test_an_old_list_is_replaced_and_a_young_one_added_to():
    """Callers see different things; what nobody lists any more is forgotten in the end."""
    offers = Offers()
    exchanges = {name: memory_exchange("tools/call", {"name": name}) for name in "xy"}
    offers.learn("tools/list", "a", ["x"], 0.0)
    offers.learn("tools/list", "a", ["y"], FRESH_S - 1)
    assert [len(offers.who_has(each, MEMBERS)) for each in exchanges.values()] == [1, 1]
    offers.learn("tools/list", "a", ["y"], FRESH_S)

    assert [len(offers.who_has(each, MEMBERS)) for each in exchanges.values()] == [0, 1]
    assert offers.who_may_have(exchanges["x"], MEMBERS) == MEMBERS[1:]


def test_what_is_remembered_is_bounded():
    """Of an upstream with too many names nothing is known, so it is asked."""
    offers = Offers()
    offers.learn("tools/list", "a", map(str, range(MAX_NAMES + 1)), 0.0)

    assert not offers.knows("tools/list", MEMBERS)
    assert offers.who_may_have(memory_exchange("tools/call", {"name": "1"}), MEMBERS) == MEMBERS
    assert offers.who_may_have(memory_exchange("tools/list"), MEMBERS) == MEMBERS
