"""What is answered from memory, for how long, for whom, and what makes it void."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from sluiceway.middlewares.cache.config import Warm
from sluiceway.pipeline.model.session import Caller
from sluiceway.pipeline.protocol.errors import (
    ComponentError,
    ConnectFailed,
    DeadlineExceeded,
    Forbidden,
    UpstreamClosed,
)
from sluiceway.pipeline.protocol.messages import Body, ErrorReply, Notification, Result
from sluiceway.pipeline.testing import legacy_client

ANA, BOB = Caller("ana", "acme", how="bearer"), Caller("bob", "acme", how="bearer")
ANA_AT_GLOBEX = Caller("ana", "globex", how="bearer")


def answer_of(number, **more):
    return Result({"resultType": "complete", "n": number, "ttlMs": 60_000, "cacheScope": "private", **more})


def says(**more):
    return lambda _, number: answer_of(number, **more)


def without_hints(_, number):
    return Result({"n": number})


async def test_a_second_request_makes_no_call(cached, autojump_clock):
    """The counters and the decisions say what happened."""
    async with cached() as cache:
        first, second = cache.exchange(), cache.exchange()
        await cache.ask(exchange=first)
        await cache.ask(exchange=second)

        assert len(cache.upstream.calls) == 1
        assert (cache.figure("cache_misses_total"), cache.figure("cache_hits_total")) == (1, 1)
        assert [each.link.decisions[0].outcome for each in (first, second)] == ["miss", "hit"]
        assert [each.reply_headers for each in (first, second)] == [{}, {"x-cache": "hit"}]
        assert cache.stage.details()["hits"] == 1


async def test_an_answer_says_where_it_comes_from_and_what_is_left(cached, autojump_clock):
    """In `_meta` and `ttlMs`; the payload is what it was, byte for byte."""
    raw = b'{ "n":1.50e1, "ttlMs":60000,"text":"\\u0041[CACHED]" , "_meta":{"a":[1 , 2]},"cacheScope":"private"}'
    async with cached() as cache:
        cache.upstream.answer = lambda *_: Result(raw=raw)
        first = await cache.chain.service(cache.exchange())
        await trio.sleep(12.5)
        second = await cache.chain.service(cache.exchange())

        assert first.body.raw == raw
        assert b'"n":1.50e1' in second.body.raw
        assert b'"text":"\\u0041[CACHED]"' in second.body.raw
        assert second.value == first.value | {
            "ttlMs": 47_500,
            "_meta": {"a": [1, 2], "io.sluiceway/cache": {"state": "hit", "age_ms": 12_500}},
        }


async def test_a_gateway_behind_this_one_does_not_speak_for_it(cached, autojump_clock):
    """There is one provenance: the last one."""
    async with cached() as cache:
        cache.upstream.answer = says(_meta={"io.sluiceway/cache": {"state": "stale", "age_ms": 1}})
        await cache.ask()

        assert (await cache.ask())["_meta"] == {"io.sluiceway/cache": {"state": "hit", "age_ms": 0}}


async def test_an_answer_is_gone_when_its_time_is_over(cached, autojump_clock):
    """To the millisecond that the upstream said."""
    async with cached(max_idle=1000.0) as cache:
        assert await cache.number() == 1
        await trio.sleep(59.999)
        assert await cache.number() == 1
        await trio.sleep(0.002)
        assert await cache.number() == 2


@pytest.mark.parametrize(
    ("answer", "calls"),
    [
        (says(), 1),
        (says(ttlMs=0), 2),
        (says(ttlMs=-5), 2),
        (says(ttlMs="60000"), 2),
        (says(ttlMs=True), 2),
        (without_hints, 2),
        (says(resultType="input_required"), 2),
        (says(resultType="task"), 2),
        (lambda *_: ErrorReply(-32603, "broken"), 2),
        (lambda *_: UpstreamClosed("gone"), 2),
        (lambda *_: Result(raw=b'{"n":1,"n":2,"ttlMs":60000}'), 2),
        (says(_meta=[1]), 2),
    ],
)
async def test_what_is_kept_without_any_option(cached, autojump_clock, answer, calls):
    """Only complete results that say themselves how long they are good."""
    async with cached() as cache:
        cache.upstream.answer = answer
        for _ in range(2):
            try:
                await cache.chain.service(cache.exchange())
            except UpstreamClosed:
                continue

        assert len(cache.upstream.calls) == calls


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("resources/read", {"uri": "a:b", "requestState": "x"}),
        ("resources/read", {"uri": "a:b", "inputResponses": {}}),
        ("resources/read", {"uri": "a:b", "task": {}}),
        ("prompts/get", {"name": "p"}),
        ("tools/call", {"name": "t"}),
        ("vendor/unknown", {}),
        ("subscriptions/listen", {"notifications": {}}),
        ("notifications/roots/list_changed", {}),
    ],
)
async def test_what_is_never_kept_without_a_rule(cached, autojump_clock, method, params):
    """Parts of a conversation, and methods whose results say nothing of time."""
    async with cached() as cache:
        for _ in range(2):
            await cache.ask(method, params)

        assert len(cache.upstream.calls) == 2


DIFFERENT = {
    "cursor": ({}, {"params": {"cursor": "2"}}),
    "method": ({}, {"method": "prompts/list"}),
    "principal": ({}, {"caller": BOB}),
    "tenant": ({}, {"caller": ANA_AT_GLOBEX}),
    "rights": ({}, {"caller": Caller("ana", "acme", frozenset({"w"}), how="bearer")}),
    "capabilities": ({}, {"params": {"_meta": {"io.modelcontextprotocol/clientCapabilities": {"sampling": {}}}}}),
    "session": ({"client": legacy_client(session_id="1")}, {"client": legacy_client(session_id="2")}),
    "nobody": ({"caller": Caller("anonymous")}, {"caller": Caller("anonymous"), "client": legacy_client()}),
}


@pytest.mark.parametrize("what", DIFFERENT)
@pytest.mark.parametrize("believes", [False, True])
async def test_private_answers_are_nobody_elses(cached, autojump_clock, what, believes):
    """One thing that differs, and the answer is another one; also where `public` ones would be shared."""
    async with cached(trust_public=believes) as cache:
        numbers = [await cache.number(**each) for each in DIFFERENT[what]]

        assert numbers == [1, 2]


async def test_the_order_of_members_and_trace_context_make_no_difference(cached, autojump_clock):
    """The request is the same."""
    async with cached() as cache:
        one = await cache.number("resources/read", {"uri": "a:b", "x": {"a": 1, "b": 2}})
        meta = {"_meta": {"traceparent": "00-1-2-01", "progressToken": 5}}
        other = await cache.number("resources/read", {"x": {"b": 2, "a": 1}, "uri": "a:b", **meta})

        assert one == other == 1


@pytest.mark.parametrize(
    ("options", "caller", "shared"),
    [
        ({}, BOB, False),
        ({"trust_public": True}, BOB, True),
        ({"trust_public": True}, ANA_AT_GLOBEX, False),
        ({"trust_public": True}, Caller("anonymous"), False),
    ],
)
async def test_public_answers_are_shared_if_that_is_trusted(cached, autojump_clock, options, caller, shared):
    """Within the tenant only, and whatever their clients can do."""
    async with cached(**options) as cache:
        cache.upstream.answer = says(cacheScope="public")
        await cache.number()
        meta = {"_meta": {"io.modelcontextprotocol/clientCapabilities": {"roots": {}}}}

        assert await cache.number(params=meta, caller=caller) == (1 if shared else 2)


async def test_an_answer_that_becomes_public_or_private_again_is_found_at_once(cached, autojump_clock):
    """The old one does not stand in the way of the new one."""
    async with cached(trust_public=True, stale_if_error=1000.0, max_idle=5000.0) as cache:
        for number, scope in enumerate(["private", "public", "private"], 1):
            cache.upstream.answer = says(cacheScope=scope)
            assert await cache.number() == number
            assert await cache.number() == number
            assert len(cache.stage._keeper.tiers.memory) == 1
            await trio.sleep(61)


@pytest.mark.parametrize(
    ("ttl_ms", "rules", "max_ttl", "expected_s"),
    [
        (60_000, (), 86_400.0, 60),
        (60_000, (), 30.0, 30),
        (60_000, (10.0,), 86_400.0, 10),
        (60_000, (100.0,), 86_400.0, 60),
        (0, (100.0,), 86_400.0, 100),
        (None, (100.0,), 86_400.0, 100),
        (None, (100.0,), 50.0, 50),
        (10**12, (), 86_400.0, 86_400),
    ],
)
async def test_configuration_only_lowers_what_an_upstream_says(
    cached, rule, autojump_clock, ttl_ms, rules, max_ttl, expected_s
):
    """And sets what it does not say; what is lowered is handed on lowered."""
    rules = tuple(rule("tools/list", ttl=ttl) for ttl in rules)
    async with cached(rules=rules, max_ttl=max_ttl, max_idle=10**6) as cache:
        hints = {} if ttl_ms is None else {"ttlMs": ttl_ms}
        cache.upstream.answer = lambda _, n: Result({"n": n, **hints})
        first = await cache.ask()
        assert first == ({"n": 1} if ttl_ms is None else {"n": 1, "ttlMs": min(ttl_ms, expected_s * 1000)})
        await trio.sleep(expected_s - 0.001)
        assert await cache.number() == 1
        await trio.sleep(0.002)
        assert await cache.number() == 2


@pytest.mark.parametrize(
    ("scope", "said", "shared"),
    [("public", None, True), ("public", "private", False), ("public", "public", True), ("private", "public", False)],
)
async def test_a_rule_says_who_may_share(cached, rule, autojump_clock, scope, said, shared):
    """But what says `private` and how long it is good stays private."""
    async with cached(rules=(rule("tools/list", scope=scope),), trust_public=True) as cache:
        hints = {} if said is None else {"ttlMs": 60_000, "cacheScope": said}
        cache.upstream.answer = lambda _, n: Result({"n": n, **hints})
        await cache.number()

        assert await cache.number(caller=BOB) == (1 if shared else 2)


@pytest.mark.parametrize(("name", "calls"), [("docs_find", 1), ("write", 2)])
async def test_listed_tools_are_kept(cached, rule, autojump_clock, name, calls):
    """By name, as globs; the first rule that matches counts."""
    rules = (rule("tools/call", name=("docs_*",), ttl=10.0), rule("tools/call", name=("docs_find",), ttl=1000.0))
    async with cached(rules=rules) as cache:
        cache.upstream.answer = without_hints
        for _ in range(2):
            await cache.ask("tools/call", {"name": name, "arguments": {"q": 1}})
        assert len(cache.upstream.calls) == calls

        await trio.sleep(11)
        await cache.ask("tools/call", {"name": name, "arguments": {"q": 1}})
        assert len(cache.upstream.calls) == calls + 1


def tools(exchange, number):
    if exchange.method != "tools/list":
        return Result({"n": number})
    return Result({"n": number, "tools": [{"name": "get", "annotations": {"readOnlyHint": True}}, {"name": "set"}]})


@pytest.mark.parametrize(("name", "trust", "kept"), [("get", True, True), ("set", True, False), ("get", False, False)])
async def test_a_rule_without_names_is_about_tools_that_only_read(cached, rule, autojump_clock, name, trust, kept):
    """If the upstream is trusted; the list is asked for when nothing is known."""
    async with cached(rules=(rule("tools/call"),), trust_hints=trust) as cache:
        cache.upstream.answer = tools
        numbers = [await cache.number("tools/call", {"name": name}) for _ in range(2)]
        assert (numbers[0] == numbers[1]) is kept

        cache.change("notifications/tools/list_changed")
        assert cache.stage._tools.book is None or len(cache.stage._tools.book) == 0


@pytest.mark.parametrize(("tool_errors", "calls"), [(False, 2), (True, 1)])
async def test_failures_of_tools_are_kept_only_on_demand(cached, rule, autojump_clock, tool_errors, calls):
    """For as long as other errors."""
    rules = (rule("tools/call", name=("t",)),)
    async with cached(rules=rules, negative_ttl=5.0, negative_tool_errors=tool_errors) as cache:
        cache.upstream.answer = lambda _, n: Result({"n": n, "isError": True})
        for _ in range(2):
            await cache.ask("tools/call", {"name": "t"})
        assert len(cache.upstream.calls) == calls

        await trio.sleep(6)
        await cache.ask("tools/call", {"name": "t"})
        assert len(cache.upstream.calls) == calls + 1


@pytest.mark.parametrize(
    ("code", "ttl", "calls"), [(-32002, 5.0, 1), (-32602, 5.0, 1), (-32603, 5.0, 2), (-32002, None, 2)]
)
async def test_stable_errors_are_kept_for_a_short_time(cached, autojump_clock, code, ttl, calls):
    """With all they said, and for their caller only."""
    error = ErrorReply(code, "no", {"uri": "a:b"}, 404)
    async with cached(negative_ttl=ttl, trust_public=True) as cache:
        cache.upstream.answer = lambda *_: error
        replies = [await cache.ask("resources/read", {"uri": "a:b"}) for _ in range(2)]
        assert replies == [error, error]
        assert replies[1].http_status == 404
        assert len(cache.upstream.calls) == calls

        await cache.ask("resources/read", {"uri": "a:b"}, caller=BOB)
        assert len(cache.upstream.calls) == calls + 1


@pytest.mark.parametrize(
    ("method", "calls"),
    [("notifications/progress", 1), ("notifications/message", 1), ("notifications/tools/list_changed", 2), ("x/y", 2)],
)
async def test_an_answer_that_came_with_more_is_not_kept(cached, autojump_clock, method, calls):
    """Progress and log messages can be missed; anything else would be."""
    async with cached() as cache:
        cache.upstream.relays = [Notification(method, {"progressToken": 1, "progress": 1})]
        for _ in range(2):
            await cache.ask("resources/read", {"uri": "a:b"})

        assert len(cache.upstream.calls) == calls


async def test_an_answer_for_which_the_client_was_asked_is_not_kept(cached, rule, autojump_clock):
    """It is a part of that conversation."""

    async def consent(_method, _params):
        return Result({"action": "accept"})

    async with cached(rules=(rule("prompts/get"),)) as cache:

        async def curious(exchange):
            await exchange.ask("elicitation/create", {})
            return await cache.upstream(exchange)

        for _ in range(2):
            exchange = cache.exchange("prompts/get", {"name": "p"}, ask=consent)
            await cache.stage(exchange, curious)

        assert len(cache.upstream.calls) == 2


# Misses at the same time.


async def _together(cache, exchanges):
    outcomes = {}

    async def run(number, exchange):
        outcomes[number] = await cache.ask(exchange=exchange)

    async with trio.open_nursery() as nursery:
        for number, exchange in enumerate(exchanges):
            nursery.start_soon(run, number, exchange)
            await wait_all_tasks_blocked()
    return [outcomes[number] for number in sorted(outcomes)]


async def test_fifty_misses_at_once_are_one_call(cached, autojump_clock):
    """Everybody gets the answer, and it is kept."""
    async with cached() as cache:
        cache.upstream.seconds = 1.0
        exchanges = [cache.exchange() for _ in range(50)]
        values = await _together(cache, exchanges)

        assert [value["n"] for value in values] == [1] * 50
        assert len(cache.upstream.calls) == 1
        assert cache.figure("cache_joined_total") == 49
        assert [each.link.decisions[0].outcome for each in exchanges] == ["miss", *["join"] * 49]
        assert await cache.number() == 1


async def test_a_cancelled_call_is_made_anew_and_kept(cached, autojump_clock):
    """Who waited makes it; what it brings is kept as if it had come first."""
    async with cached() as cache:
        cache.upstream.seconds = 1.0
        async with trio.open_nursery() as nursery:
            scope = trio.CancelScope()

            async def leave():
                with scope:
                    await cache.ask()

            nursery.start_soon(leave)
            await wait_all_tasks_blocked()
            nursery.start_soon(cache.ask)
            await wait_all_tasks_blocked()
            scope.cancel()
        assert len(cache.upstream.calls) == 2
        assert await cache.number() == 2


async def test_who_waits_for_a_question_of_somebody_elses_asks_alone(cached, autojump_clock):
    """A question is not shared, and not kept."""
    async with cached() as cache:
        cache.upstream.seconds = 1.0
        cache.upstream.answer = says(resultType="input_required")
        values = await _together(cache, [cache.exchange("resources/read", {"uri": "a:b"}) for _ in range(3)])

        assert sorted(value["n"] for value in values) == [1, 2, 3]


async def test_too_many_who_wait_make_the_call_themselves(cached, autojump_clock):
    """`max_waiting` bounds who waits for one call, `max_entries` the calls."""
    async with cached(max_waiting=1, max_entries=1) as cache:
        cache.upstream.seconds = 1.0
        exchanges = [cache.exchange(params={"cursor": c}) for c in ("a", "a", "a", "b")]
        await _together(cache, exchanges)

        assert [each.link.decisions[0].outcome for each in exchanges] == ["miss", "join", "bypass", "bypass"]


async def test_who_wants_progress_does_not_wait_for_a_call_without(cached, autojump_clock):
    """The other way round it does, and hears of none."""
    async with cached() as cache:
        cache.upstream.seconds = 1.0
        wants = {"_meta": {"progressToken": "p"}}
        await _together(cache, [cache.exchange(), cache.exchange(params=wants), cache.exchange()])

        assert len(cache.upstream.calls) == 2


# What makes answers void.

LISTS = ["tools/list", "prompts/list", "resources/list", "resources/templates/list"]


@pytest.mark.parametrize(
    ("change", "void"),
    [
        ("notifications/tools/list_changed", ["tools/list"]),
        ("notifications/prompts/list_changed", ["prompts/list"]),
        ("notifications/resources/list_changed", ["resources/list", "resources/templates/list"]),
        ("notifications/progress", []),
    ],
)
@pytest.mark.parametrize("way", ["announced", "relayed"])
async def test_a_changed_list_is_asked_for_again(cached, autojump_clock, change, void, way):
    """All pages of all callers, whether a sink announces the change or it passes on some client's stream."""
    async with cached() as cache:
        for caller in (ANA, BOB):
            for method in LISTS:
                await cache.ask(method, {"cursor": "2"}, caller=caller)
        cache.upstream.calls.clear()
        if way == "announced":
            cache.change(change)
        else:
            await cache.exchange("subscriptions/listen").relay(Notification(change))
        for caller in (ANA, BOB):
            for method in LISTS:
                await cache.ask(method, {"cursor": "2"}, caller=caller)

        assert [each.method for each in cache.upstream.calls] == void * 2


@pytest.mark.parametrize(
    ("params", "void"),
    [
        ({"uri": "a:b/c"}, ["a:b", "a:b/c", "a:b/c/d"]),
        ({"uri": "a:x"}, ["a:x"]),
        ({}, ["a:b", "a:b/c", "a:b/c/d", "a:x"]),
    ],
)
async def test_a_changed_resource_is_read_again(cached, autojump_clock, params, void):
    """With what is below it and what it is a part of; what cannot be told apart is void."""
    async with cached() as cache:
        uris = ["a:b", "a:b/c", "a:b/c/d", "a:x"]
        for uri in uris:
            await cache.ask("resources/read", {"uri": uri})
        await cache.ask("resources/list")
        cache.upstream.calls.clear()
        cache.change("notifications/resources/updated", **params)
        for uri in uris:
            await cache.ask("resources/read", {"uri": uri})
        await cache.ask("resources/list")

        assert [each.target for each in cache.upstream.calls] == void


async def test_what_changes_while_it_is_fetched_is_not_kept(cached, autojump_clock):
    """And who asks after the change does not wait for the answer from before it."""
    async with cached() as cache:
        cache.upstream.seconds = 2.0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cache.ask)
            await trio.sleep(1)
            cache.change("notifications/tools/list_changed")
            assert await cache.number() == 2
        cache.upstream.seconds = 0.0

        assert await cache.number() == 2


async def test_a_change_that_cannot_be_read_means_any(cached, autojump_clock):
    """It passes on, and everything it may be about is void."""
    heard = []
    async with cached() as cache:
        await cache.number("resources/read", {"uri": "a:b"})
        listener = cache.exchange("subscriptions/listen", interim=heard)
        await listener.relay(Notification("notifications/resources/updated", Body(raw=b'{"uri":1,"uri":2}')))

        assert len(heard) == 1
        assert await cache.number("resources/read", {"uri": "a:b"}) == 2


async def test_another_change_does_not_disturb_what_is_fetched(cached, autojump_clock):
    """Only what it is about is void."""
    async with cached() as cache:
        cache.upstream.seconds = 2.0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cache.ask)
            await trio.sleep(1)
            cache.change("notifications/prompts/list_changed")

        assert await cache.number() == 1


async def test_a_cursor_that_is_refused_makes_all_pages_void(cached, autojump_clock):
    """Of that list and caller; errors of other kinds do not."""
    async with cached() as cache:
        for cursor in ("1", "2"):
            await cache.ask(params={"cursor": cursor})
            await cache.ask(params={"cursor": cursor}, caller=BOB)
        await cache.ask("prompts/list", {"cursor": "1"})
        cache.upstream.answer = lambda *_: ErrorReply(-32602, "unknown cursor")
        await cache.ask("prompts/list")
        await cache.ask(params={"cursor": "3"})
        cache.upstream.calls.clear()
        await cache.ask(params={"cursor": "1"})
        await cache.ask(params={"cursor": "1"}, caller=BOB)
        await cache.ask("prompts/list", {"cursor": "1"})

        assert [(each.method, each.caller.subject) for each in cache.upstream.calls] == [("tools/list", "ana")]


@pytest.mark.parametrize(
    ("arguments", "left"),
    [
        ({}, []),
        ({"method": "resources/read"}, ["list ana", "list globex"]),
        ({"name": "a:*"}, ["list ana", "read x", "list globex"]),
        ({"tenant": "acme"}, ["list globex"]),
        ({"tenant": "acme", "method": "tools/list"}, ["read a", "read x", "list globex"]),
        ({"tenant": "nobody"}, ["list ana", "read a", "read x", "list globex"]),
    ],
)
async def test_an_operator_can_purge(cached, autojump_clock, arguments, left):
    """All, by method, by pattern, by tenant, or by several of these."""
    asks = {
        "list ana": ("tools/list", {}, ANA),
        "read a": ("resources/read", {"uri": "a:b"}, ANA),
        "read x": ("resources/read", {"uri": "x:b"}, ANA),
        "list globex": ("tools/list", {}, ANA_AT_GLOBEX),
    }
    async with cached() as cache:
        for method, params, caller in asks.values():
            await cache.ask(method, params, caller=caller)
        assert await cache.stage.act("purge", arguments) == {"removed": 4 - len(left), "pending": 0}
        before = len(cache.upstream.calls)
        hits = []
        for name, (method, params, caller) in asks.items():
            if await cache.number(method, params, caller=caller) <= before:
                hits.append(name)

        assert hits == left
        assert cache.figure("cache_invalidated_total") == 4 - len(left)


async def test_an_operator_can_purge_one_key(cached, autojump_clock):
    """As it stands in a store; also if its answer is just under way."""
    async with cached() as cache:
        await cache.ask(params={"cursor": "1"})
        await cache.ask(params={"cursor": "2"})
        first = next(iter(cache.stage._keeper.tiers.memory._slots))
        assert await cache.stage.act("purge", {"key": first}) == {"removed": 1, "pending": 0}
        assert await cache.number(params={"cursor": "2"}) == 2

        cache.upstream.seconds = 1.0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cache.ask, "tools/list", {"cursor": "1"})
            await wait_all_tasks_blocked()
            await cache.stage.act("purge", {"key": first})
        assert await cache.number(params={"cursor": "1"}) == 4
        assert await cache.stage.act("purge", {"key": "nonsense"}) == {"removed": 0, "pending": 0}


@pytest.mark.parametrize("arguments", [{"keys": "x"}, {"key": 5}])
async def test_an_operators_mistakes_are_told(cached, arguments):
    """And nothing is purged."""
    async with cached() as cache:
        with pytest.raises(ValueError, match="purge takes key, method, name, tenant"):
            await cache.stage.act("purge", arguments)
        with pytest.raises(LookupError):
            await cache.stage.act("explode", {})


# Stale answers.


async def test_a_stale_answer_is_given_out_while_it_is_refreshed(cached, autojump_clock):
    """At once, and once: a second request in the meantime starts no second call."""
    async with cached(stale_while_revalidate=30.0, max_idle=1000.0) as cache:
        await cache.ask()
        await trio.sleep(61)
        cache.upstream.seconds = 5.0
        exchanges = [cache.exchange() for _ in range(2)]
        values = [await cache.ask(exchange=each) for each in exchanges]
        assert [(value["n"], value["ttlMs"]) for value in values] == [(1, 0)] * 2
        assert values[0]["_meta"]["io.sluiceway/cache"] == {"state": "stale", "age_ms": 61_000}
        assert [[d.outcome for d in each.link.decisions] for each in exchanges] == [["stale"]] * 2

        await trio.sleep(6)
        assert await cache.number() == 2
        assert len(cache.upstream.calls) == 2
        assert (cache.figure("cache_stale_total"), cache.figure("cache_refreshes_total")) == (2, 1)

        await trio.sleep(1000)
        assert await cache.number() == 3


async def test_a_refresh_has_its_callers_rights_and_nobodys_stream(cached, autojump_clock):
    """It asks as the caller, relays to nobody, cannot ask a client, and reports no progress."""
    async with cached(stale_while_revalidate=30.0, max_idle=1000.0) as cache:
        heard = []
        await cache.ask()
        await trio.sleep(61)
        cache.upstream.relays = [Notification("notifications/progress", {"progressToken": 1, "progress": 1})]
        exchange = cache.exchange(params={"_meta": {"progressToken": 1, "x": 2}}, interim=heard)
        await cache.ask(exchange=cache.exchange(params={"_meta": {"x": 2}}))
        heard.clear()
        await trio.sleep(61)
        await cache.ask(exchange=exchange)
        await wait_all_tasks_blocked()
        own = cache.upstream.calls[-1]

        assert own is not exchange
        assert own.caller == ANA
        assert own.request.params == {"_meta": {"x": 2}}
        assert own.link.caller == ANA
        assert (own.own_accord, exchange.own_accord) == (True, False)
        assert isinstance(await own.ask("ping", {}), ErrorReply)
        assert heard == []
        assert [d.outcome for d in own.link.decisions] == ["refresh"]


async def test_a_refresh_that_brings_news_with_it_is_not_kept(cached, autojump_clock):
    """What is relayed to nobody would be missed."""
    async with cached(stale_while_revalidate=600.0, max_idle=1000.0) as cache:
        await cache.ask()
        await trio.sleep(61)
        cache.upstream.relays = [Notification("x/y")]
        await cache.ask()
        await wait_all_tasks_blocked()

        assert await cache.number() == 1


@pytest.mark.parametrize("failure", [ConnectFailed("down"), ZeroDivisionError("bug"), ErrorReply(-32603, "no")])
async def test_a_refresh_that_fails_harms_nobody(cached, autojump_clock, failure):
    """The old answer stays, and the next request tries again."""
    async with cached(stale_while_revalidate=30.0, max_idle=1000.0) as cache:
        await cache.ask()
        await trio.sleep(61)
        cache.upstream.answer = lambda *_: failure
        for calls in (2, 3):
            assert await cache.number() == 1
            await wait_all_tasks_blocked()
            assert len(cache.upstream.calls) == calls


async def test_a_refresh_ends_after_a_while(cached, autojump_clock):
    """An upstream that never answers does not block refreshing for ever."""
    async with cached(stale_while_revalidate=600.0, max_idle=1000.0) as cache:
        await cache.ask()
        await trio.sleep(61)
        cache.upstream.seconds = 10_000
        await cache.ask()
        await trio.sleep(31)
        await cache.ask()
        await wait_all_tasks_blocked()

        assert len(cache.upstream.calls) == 3


async def test_a_refresh_ends_with_the_stage(cached, autojump_clock):
    """Nothing of it outlives the stage."""
    async with cached(stale_while_revalidate=600.0, max_idle=1000.0) as cache:
        await cache.ask()
        await trio.sleep(61)
        cache.upstream.seconds = 10_000
        await cache.ask()
        await wait_all_tasks_blocked()
        before = trio.current_time()

    assert trio.current_time() == before


async def test_only_so_many_refreshes_at_once(cached, autojump_clock):
    """Above `max_refreshing` the stale answer is given out, and that is all."""
    async with cached(stale_while_revalidate=600.0, max_idle=1000.0, max_refreshing=1) as cache:
        for cursor in "ab":
            await cache.ask(params={"cursor": cursor})
        await trio.sleep(61)
        cache.upstream.seconds = 5.0
        for cursor in "ab":
            assert (await cache.ask(params={"cursor": cursor}))["ttlMs"] == 0
        await wait_all_tasks_blocked()

        assert len(cache.upstream.calls) == 3


async def test_a_session_that_has_ended_is_not_refreshed(cached, rule, autojump_clock):
    """Its upstream session has ended, too."""
    rules = (rule("tools/list", ttl=10.0, stale_while_revalidate=60.0),)
    client = legacy_client()
    async with cached(rules=rules, max_idle=1000.0) as cache:
        await cache.ask(client=client)
        await trio.sleep(11)
        client.session.close()
        await cache.ask(client=client)
        await wait_all_tasks_blocked()

        assert len(cache.upstream.calls) == 1


@pytest.mark.parametrize(
    ("failure", "served"),
    [
        (ConnectFailed("down"), True),
        (UpstreamClosed("gone"), True),
        (DeadlineExceeded("late", timeout_s=1.0), True),
        (ErrorReply(-32603, "broken"), True),
        (ErrorReply(-32602, "no such thing"), False),
        (Forbidden("no"), False),
    ],
)
async def test_a_stale_answer_is_given_out_when_the_upstream_fails(cached, autojump_clock, failure, served):
    """For as long as `stale_if_error`; what is no failure of the upstream's comes through."""
    async with cached(stale_if_error=600.0, max_idle=10_000.0) as cache:
        await cache.ask()
        await trio.sleep(61)
        cache.upstream.answer = lambda *_: failure
        exchange = cache.exchange()
        outcome = await cache.ask(exchange=exchange)
        if served:
            assert outcome["_meta"]["io.sluiceway/cache"]["state"] == "stale"
            assert exchange.link.decisions[-1].cause == "the upstream fails"
        else:
            assert outcome == failure

        await trio.sleep(601)
        assert await cache.ask() == failure


@pytest.mark.parametrize("options", [{}, {"stores": ("s",), "memory": False}])
@pytest.mark.parametrize("is_void", [False, True])
async def test_what_became_void_is_not_given_out_when_the_upstream_fails(
    cached, store, autojump_clock, options, is_void
):
    """Also if it became void while the upstream was asked."""
    async with cached({"s": store}, stale_if_error=600.0, max_idle=10_000.0, **options) as cache:
        await cache.ask()
        await trio.sleep(61)
        cache.upstream.seconds = 2.0
        cache.upstream.answer = lambda *_: ConnectFailed("down")
        outcomes = []

        async def ask():
            outcomes.append(await cache.ask())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.sleep(1)
            if is_void:
                cache.change("notifications/tools/list_changed")

        assert isinstance(outcomes[0], ConnectFailed) is is_void


async def test_a_definite_answer_takes_the_place_of_a_stale_one(cached, autojump_clock):
    """Also if it is not kept itself: what it replaces is not so any more."""
    async with cached(stale_if_error=600.0, max_idle=10_000.0, trust_public=True) as cache:
        await cache.ask()
        await trio.sleep(61)
        cache.upstream.answer = lambda *_: ErrorReply(-32601, "not here any more")
        await cache.ask()
        cache.upstream.answer = lambda *_: ConnectFailed("down")

        assert isinstance(await cache.ask(), ConnectFailed)


@pytest.mark.parametrize("of_rule", [False, True])
async def test_rules_have_their_own_windows(cached, rule, autojump_clock, of_rule):
    """`stale_while_revalidate` and `stale_if_error` of a rule count instead of the stage's."""
    windows = {"stale_while_revalidate": 0.0, "stale_if_error": 0.0} if of_rule else {}
    async with cached(
        rules=(rule("tools/list", ttl=10.0, **windows),),
        stale_while_revalidate=10.0, stale_if_error=100.0, max_idle=1000.0,
    ) as cache:  # fmt: skip
        await cache.ask()
        await trio.sleep(15)
        assert await cache.number() == (2 if of_rule else 1)
        await trio.sleep(30)
        cache.upstream.answer = lambda *_: ConnectFailed("down")
        assert isinstance(await cache.ask(), ConnectFailed) is of_rule


# Bounds.


async def test_what_is_too_large_is_not_kept(cached, autojump_clock):
    """`max_entry` bounds one answer."""
    async with cached(max_entry=64) as cache:
        cache.upstream.answer = says(text="x" * 100)

        assert [await cache.number() for _ in range(2)] == [1, 2]


async def test_the_least_recently_used_answer_makes_room(cached, autojump_clock):
    """The one too many by `max_entries`."""
    async with cached(max_entries=2) as cache:
        for cursor in ("a", "b", "a", "c", "a", "b"):
            await cache.ask(params={"cursor": cursor})

        assert [each.request.params["cursor"] for each in cache.upstream.calls] == ["a", "b", "c", "b"]
        assert cache.figure("cache_evictions_total") == 2
        assert cache.figure("cache_entries") == 2


async def test_answers_that_nobody_asks_for_go(cached, autojump_clock):
    """After `max_idle`; asking for one prolongs that, but not its time."""
    async with cached(max_idle=10.0) as cache:
        await cache.ask()
        for _ in range(6):
            await trio.sleep(9)
            assert await cache.number() == 1
        await trio.sleep(9)
        assert await cache.number() == 2
        await trio.sleep(11)
        assert await cache.number() == 3


# Warming.

WARM_RULE = {"scope": "public", "ttl": 1000.0}


def _warm(*requests):
    return tuple(Warm(**each) for each in requests)


@pytest.mark.parametrize("waits", [True, False])
async def test_the_first_request_after_the_start_is_a_hit(cached, rule, autojump_clock, waits):
    """Readiness waits for it, or not."""
    rules = (rule("tools/list", "resources/read", **WARM_RULE),)
    warm = _warm({"method": "tools/list", "tenant": "acme"}, {"method": "resources/read", "params": {"uri": "a:b"}})
    async with cached(answer=without_hints, rules=rules, warm=warm, warm_wait=waits) as cache:
        assert len(cache.upstream.calls) == (2 if waits else 0)
        await wait_all_tasks_blocked()

        meta = {"_meta": {"io.modelcontextprotocol/clientCapabilities": {"roots": {}}}}
        assert await cache.number(params=meta) == 1
        assert await cache.number("resources/read", {"uri": "a:b"}, caller=Caller("anonymous")) == 2
        assert await cache.number("resources/read", {"uri": "a:b"}) == 3


async def test_what_cannot_be_warmed_is_told(cached, rule, autojump_clock):
    """An answer that is nobody's yet cannot be private, and one that fails cannot be kept."""
    for answer, rules in [
        (without_hints, (rule("tools/list"),)),
        (without_hints, ()),
        (lambda *_: ConnectFailed("down"), (rule("tools/list", **WARM_RULE),)),
    ]:
        cache = cached(rules=rules, warm=_warm({"method": "tools/list"}))
        async with cache as cache:
            cache.upstream.answer = answer
            await wait_all_tasks_blocked()

            assert [line["event"] for line in cache.logged.entries] == ["an answer cannot be warmed"]


async def test_a_start_can_depend_on_warming(cached, rule, autojump_clock):
    """With `warm_required` the gateway does not start without."""
    with pytest.raises(ComponentError, match="tools/list cannot be warmed"):
        async with cached(warm=_warm({"method": "tools/list"}), warm_required=True):
            raise AssertionError


async def test_a_stage_that_is_put_in_while_serving_warms_up_with_its_first_exchange(new_cache, rule, autojump_clock):
    """Before that it does not know what stands behind it."""
    rules = (rule("tools/list", **WARM_RULE),)
    cache = new_cache(answer=without_hints, rules=rules, warm=_warm({"method": "tools/list", "tenant": "acme"}))
    behind, cache.stage.behind = cache.stage.behind, None
    async with cache.stage.open():
        cache.stage.behind = behind
        await cache.ask("prompts/list")
        await wait_all_tasks_blocked()

        assert [each.method for each in cache.upstream.calls] == ["prompts/list", "tools/list"]
        await cache.number()
        assert len(cache.upstream.calls) == 2
