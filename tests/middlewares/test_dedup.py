"""Equal requests at the same time: one call, everybody's own answer, and nobody harmed by anybody."""

from __future__ import annotations

from collections import Counter
from contextlib import asynccontextmanager

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from trio.testing import MockClock, wait_all_tasks_blocked

from sluiceway.middlewares.dedup import Dedup
from sluiceway.middlewares.single_flight import MAX_INBOX
from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.model.session import Caller
from sluiceway.pipeline.protocol.errors import (
    ConnectFailed,
    DeadlineExceeded,
    GatewayError,
    OutcomeUnknown,
    RateLimited,
    SlowConsumer,
    UpstreamClosed,
)
from sluiceway.pipeline.protocol.messages import Body, ErrorReply, Notification, Result
from sluiceway.pipeline.runtime.chain import Stage, compile_chain
from sluiceway.pipeline.stores.memory import MemoryStore
from sluiceway.pipeline.stores.sqlite import SqliteStore
from sluiceway.pipeline.testing import cancel_everywhere, check_middleware, legacy_client, memory_exchange

ANA = Caller("ana", "acme", how="bearer")
BOB = Caller("bob", "acme", how="bearer")


class Upstream:
    """A sink that takes a second, says how often it was asked, and how often its calls were cancelled."""

    def __init__(self, seconds=1.0, answer=None, progress=()):
        self.seconds = seconds
        self.answer = answer
        self.progress = progress
        self.calls = []
        self.cancelled = 0

    async def __call__(self, exchange):
        self.calls.append(exchange)
        number = len(self.calls)
        try:
            for note in self.progress:
                await trio.sleep(self.seconds / (len(self.progress) + 1))
                await exchange.relay(note)
            await trio.sleep(self.seconds / (len(self.progress) + 1))
        except trio.Cancelled:
            self.cancelled += 1
            raise
        answer = self.answer(exchange, number) if self.answer else Result({"number": number})
        if isinstance(answer, GatewayError):
            raise answer
        return answer


class Gate:
    """A dedup stage in front of an upstream, and exchanges in flight through it."""

    def __init__(self, bench, upstream, **options):
        self.stage = Dedup(Dedup.Config(**options), bench.context("dedup"))
        self.upstream = upstream
        self.chain = compile_chain([Stage("dedup", self.stage)], upstream)

    def exchange(self, method="tools/list", params=None, *, interim=None, **more):
        return memory_exchange(method, params or {}, interim=interim, relay=self.chain.relay, **more)

    async def call(self, exchange):
        try:
            return await self.chain.service(exchange)
        except GatewayError as error:
            return error


@asynccontextmanager
async def opened(bench, upstream=None, **options):
    gate = Gate(bench, upstream or Upstream(), **options)
    async with gate.stage.open():
        yield gate
        assert gate.stage._flights.count == 0
        assert gate.stage._flights._flights == {}


class Flying:
    """Exchanges under way, each in a task and a scope of its own."""

    def __init__(self, gate, nursery):
        self.gate = gate
        self.nursery = nursery
        self.outcomes = {}
        self.scopes = {}

    async def start(self, name, exchange):
        scope = self.scopes[name] = trio.CancelScope()

        async def run():
            with scope:
                self.outcomes[name] = await self.gate.call(exchange)

        self.nursery.start_soon(run)
        await wait_all_tasks_blocked()

    async def cancel(self, name):
        self.scopes[name].cancel()
        await wait_all_tasks_blocked()


async def _together(gate, exchanges):
    """What becomes of exchanges that come at once."""
    async with trio.open_nursery() as nursery:
        flying = Flying(gate, nursery)
        for number, exchange in enumerate(exchanges):
            await flying.start(number, exchange)
    return [flying.outcomes[n] for n in range(len(exchanges))]


async def test_twenty_equal_calls_are_one(bench, autojump_clock):
    """Each exchange gets the answer; the counter says how many shared it, and each says what became of it."""
    async with opened(bench) as gate:
        exchanges = [gate.exchange(params={"a": 1, "b": [2]}, request_id=n) for n in range(19)]
        exchanges.append(gate.exchange(params={"b": [2], "a": 1}))
        outcomes = await _together(gate, exchanges)

        assert outcomes == [Result({"number": 1})] * 20
        assert len(gate.upstream.calls) == 1
        assert {f.name: f.value for f in gate.stage.figures()}["dedup_joined_total"] == 19
        assert [[d.outcome for d in e.link.decisions] for e in exchanges] == [["lead"]] + [["join"]] * 19
        assert gate.stage.details() == {"under_way": 0}
        assert bench.events() == ["request shares a call"] * 19


async def test_the_next_call_is_another_one(bench, autojump_clock):
    """Nothing is kept of a call that is over, whether it went well or not."""
    answers = [Result({}), ErrorReply(-1, "no"), UpstreamClosed("gone"), Result({})]
    async with opened(bench, Upstream(answer=lambda _, n: answers[n - 1])) as gate:
        seen = [await gate.call(gate.exchange()) for _ in range(4)]

    assert seen == answers


DIFFERENT = {
    "params": ({"params": {"cursor": "a"}}, {"params": {"cursor": "b"}}),
    "method": ({"method": "prompts/list"}, {"method": "resources/list"}),
    "principal": ({"caller": ANA}, {"caller": BOB}),
    "tenant": ({"caller": ANA}, {"caller": Caller("ana", "globex", how="bearer")}),
    "rights": ({"caller": ANA}, {"caller": Caller("ana", "acme", frozenset({"w"}), how="bearer")}),
    "session": ({"client": legacy_client(session_id="1")}, {"client": legacy_client(session_id="2")}),
    "revision": ({"client": legacy_client("2025-06-18")}, {"client": legacy_client("2025-11-25")}),
    "log level": (
        {"params": {"_meta": {"io.modelcontextprotocol/logLevel": "debug"}}},
        {"params": {"_meta": {"io.modelcontextprotocol/logLevel": "error"}}},
    ),
    "no wish for progress": ({}, {"params": {"_meta": {"progressToken": 1}}}),
}


@pytest.mark.parametrize("what", DIFFERENT)
async def test_requests_that_differ_do_not_share(bench, autojump_clock, what):
    """Whatever could make the answers differ, or takes something away from the second one."""
    async with opened(bench) as gate:
        await _together(gate, [gate.exchange(**each) for each in DIFFERENT[what]])

        assert len(gate.upstream.calls) == 2


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("tools/call", {"name": "write", "arguments": {}}),
        ("tools/call", {"name": "read", "task": {}}),
        ("tools/call", {"name": "read", "requestState": "x"}),
        ("resources/read", {"uri": "a:b", "inputResponses": {}}),
        ("resources/subscribe", {"uri": "a:b"}),
        ("tasks/update", {"taskId": "t"}),
        ("vendor/unknown", {}),
        ("notifications/roots/list_changed", {}),
    ],
)
async def test_what_is_no_read_is_never_shared(bench, autojump_clock, method, params):
    """Calls that may do something, parts of a conversation, and what sets something."""
    async with opened(bench, repeat=("read",)) as gate:
        await _together(gate, [gate.exchange(method, params) for _ in range(2)])

        assert len(gate.upstream.calls) == 2


async def test_listeners_pass(bench, autojump_clock):
    """Each has a stream of its own."""
    async with opened(bench) as gate:
        await _together(gate, [gate.exchange("subscriptions/listen", {"notifications": {}}) for _ in range(2)])

        assert len(gate.upstream.calls) == 2


@pytest.mark.parametrize(("options", "calls"), [({"repeat": ("sea*",)}, 1), ({"repeat": ("x",)}, 2), ({}, 2)])
async def test_listed_tools_share(bench, autojump_clock, options, calls):
    """`repeat` lists tools as globs."""
    async with opened(bench, **options) as gate:
        await _together(gate, [gate.exchange("tools/call", {"name": "search"}) for _ in range(2)])

        assert len(gate.upstream.calls) == calls


def _tools(exchange, number):
    if exchange.method != "tools/list":
        return Result({"number": number})
    return Result({"tools": [{"name": "get", "annotations": {"readOnlyHint": True}}, {"name": "set"}]})


@pytest.mark.parametrize(
    ("name", "trust", "shared"), [("get", True, True), ("set", True, False), ("get", False, False)]
)
async def test_trusted_hints_let_tools_share(bench, autojump_clock, name, trust, shared):
    """A tool that says it only reads shares its calls, if its upstream is trusted."""
    async with opened(bench, Upstream(answer=_tools), trust_hints=trust) as gate:
        await gate.call(gate.exchange("tools/list"))
        gate.upstream.calls.clear()
        await _together(gate, [gate.exchange("tools/call", {"name": name}) for _ in range(2)])

        assert len(gate.upstream.calls) == (1 if shared else 2)


async def test_hints_that_cannot_be_had_are_none(bench, autojump_clock):
    """A list that fails does not fail the call."""
    answer = lambda exchange, n: ConnectFailed("down") if exchange.method == "tools/list" else Result({"n": n})  # noqa: E731
    async with opened(bench, Upstream(answer=answer), trust_hints=True) as gate:
        assert await gate.call(gate.exchange("tools/call", {"name": "get"})) == Result({"n": 2})


async def test_hints_are_forgotten_when_tools_change(bench, autojump_clock):
    """The tool may be another one now."""
    async with opened(bench, Upstream(answer=_tools), trust_hints=True) as gate:
        await gate.call(gate.exchange("tools/list"))
        gate.stage.context.changes.announce("s", Notification("notifications/tools/list_changed"))

        assert len(gate.stage._tools.book) == 0


async def test_a_follower_that_cancels_leaves_the_others_alone(bench, autojump_clock):
    """The call goes on, and everybody else gets its answer."""
    async with opened(bench) as gate, trio.open_nursery() as nursery:
        flying = Flying(gate, nursery)
        for name in "abc":
            await flying.start(name, gate.exchange())
        await flying.cancel("b")
        await trio.sleep(2)

        assert flying.outcomes == dict.fromkeys("ac", Result({"number": 1}))
        assert gate.upstream.cancelled == 0


async def test_a_leader_that_cancels_hands_over(bench, autojump_clock):
    """The one that has waited longest makes the call anew; the upstream is left alone when the last one leaves."""
    async with opened(bench) as gate, trio.open_nursery() as nursery:
        flying = Flying(gate, nursery)
        exchanges = {name: gate.exchange() for name in "abcd"}
        for name in "abcd":
            await flying.start(name, exchanges[name])
        await flying.cancel("a")
        await flying.cancel("b")

        assert gate.upstream.calls[1:] == [exchanges["b"], exchanges["c"]]
        assert {f.name: f.value for f in gate.stage.figures()}["dedup_handed_over_total"] == 2

        await trio.sleep(2)
        assert flying.outcomes == dict.fromkeys("cd", Result({"number": 3}))

        await flying.start("e", gate.exchange())
        await flying.cancel("e")
        assert (len(gate.upstream.calls), gate.upstream.cancelled) == (4, 3)


async def test_a_leader_and_its_heir_that_cancel_at_once_hand_over_to_the_third(bench, autojump_clock):
    """The call is not lost between two that leave in the same step."""
    async with opened(bench) as gate, trio.open_nursery() as nursery:
        flying = Flying(gate, nursery)
        for name in "abc":
            await flying.start(name, gate.exchange())
        flying.scopes["b"].cancel()
        flying.scopes["a"].cancel()
        await trio.sleep(5)

        assert flying.outcomes == {"c": Result({"number": len(gate.upstream.calls)})}


@pytest.mark.parametrize("error", [DeadlineExceeded("late", timeout_s=1), SlowConsumer("slow")])
async def test_what_is_about_the_leader_is_not_shared(bench, autojump_clock, error):
    """Its time was over, or its client reads slowly; the next one makes the call."""
    upstream = Upstream(answer=lambda _, n: error if n == 1 else Result({"number": n}))
    async with opened(bench, upstream) as gate:
        outcomes = await _together(gate, [gate.exchange() for _ in range(3)])

    assert outcomes == [error, Result({"number": 2}), Result({"number": 2})]


@pytest.mark.parametrize(
    "error", [UpstreamClosed("gone"), RateLimited("often", retry_after_s=3.0), ErrorReply(-5, "no")]
)
async def test_failures_of_the_call_are_shared(bench, autojump_clock, error):
    """With all they say; each task has an exception of its own."""
    async with opened(bench, Upstream(answer=lambda *_: error)) as gate:
        one, other = await _together(gate, [gate.exchange() for _ in range(2)])

        assert len(gate.upstream.calls) == 1
        if isinstance(error, ErrorReply):
            assert one == other == error
        else:
            assert one is not other
            assert (type(one), vars(one), one.args) == (type(other), vars(other), other.args)


async def test_a_bug_is_the_leaders_alone(bench, autojump_clock):
    """What is no failure of the gateway's kind comes out as it is, and the next one makes the call."""

    def answer(_, number):
        if number == 1:
            raise ZeroDivisionError
        return Result({"number": number})

    async with opened(bench, Upstream(answer=answer)) as gate, trio.open_nursery() as nursery:
        flying = Flying(gate, nursery)

        async def fail():
            with pytest.raises(ZeroDivisionError):
                await gate.chain.service(gate.exchange())

        nursery.start_soon(fail)
        await wait_all_tasks_blocked()
        await flying.start("b", gate.exchange())
        await trio.sleep(3)

        assert flying.outcomes == {"b": Result({"number": 2})}


@pytest.mark.parametrize("kind", ["input_required", "task"])
async def test_what_begins_something_with_one_client_is_not_shared(bench, autojump_clock, kind):
    """A question, or a task, belongs to the one that was given it."""
    upstream = Upstream(answer=lambda _, n: Result({"resultType": kind, "number": n}))
    async with opened(bench, upstream) as gate:
        outcomes = await _together(gate, [gate.exchange("prompts/get", {"name": "a"}) for _ in range(3)])

    assert sorted(outcome.value["number"] for outcome in outcomes) == [1, 2, 3]


def _progress(value, token="a"):
    return Notification("notifications/progress", {"progressToken": token, "progress": value})


async def test_progress_goes_to_everybody_under_their_own_token(bench, autojump_clock):
    """Other notifications of the call, too; who wants no progress gets none."""
    log = Notification("notifications/message", {"level": "info", "data": "x"})
    heard = {token: [] for token in ("a", "b", None)}
    async with opened(bench, Upstream(progress=[_progress(1), log, _progress(2)])) as gate:
        await _together(
            gate,
            [
                gate.exchange(params={"_meta": {"progressToken": t} if t else {}}, interim=heard[t])
                for t in ("a", "b", None)
            ],
        )

        assert len(gate.upstream.calls) == 1
        assert heard == {t: [_progress(1, t), log, _progress(2, t)] for t in "ab"} | {None: [log]}


async def test_progress_never_goes_back(bench, autojump_clock):
    """A call made anew starts from nothing; those who were told more already hear nothing until it goes on."""
    heard = {name: [] for name in "abc"}
    async with opened(bench, Upstream(progress=[_progress(n, "t") for n in (1, 2, 3)])) as gate:
        async with trio.open_nursery() as nursery:
            flying = Flying(gate, nursery)
            for name in "abc":
                meta = {"_meta": {"progressToken": "t"}}
                await flying.start(name, gate.exchange(params=meta, interim=heard[name]))
            await trio.sleep(0.6)
            await flying.cancel("a")

        assert [[note.params["progress"] for note in heard[name]] for name in "abc"] == [[1, 2], [1, 2, 3], [1, 2, 3]]


async def test_progress_that_cannot_be_read_is_the_leaders(bench, autojump_clock):
    """It fails nobody: alone, the exchange would have passed it on unread."""
    garbage = Notification("notifications/progress", Body(raw=b'{"progress":1,"progress":2}'))
    heard = {token: [] for token in "ab"}
    async with opened(bench, Upstream(progress=[garbage])) as gate:
        exchanges = [gate.exchange(params={"_meta": {"progressToken": t}}, interim=heard[t]) for t in "ab"]
        assert await _together(gate, exchanges) == [Result({"number": 1})] * 2

    assert {token: len(each) for token, each in heard.items()} == {"a": 1, "b": 0}


async def test_a_follower_that_reads_slowly_holds_nobody_up(bench, autojump_clock):
    """Progress it has not read gives way to newer progress; the others do not wait."""
    count = MAX_INBOX + 20
    upstream = Upstream(progress=[_progress(n) for n in range(count)])
    async with opened(bench, upstream) as gate:
        fast, slow = [], []
        meta = {"_meta": {"progressToken": "a"}}
        leader, follower = gate.exchange(params=meta, interim=fast), gate.exchange(params=meta)

        async def crawl(notification):
            await trio.sleep(2)
            slow.append(notification.params["progress"])

        follower.link.emit = crawl
        async with trio.open_nursery() as nursery:
            flying = Flying(gate, nursery)
            await flying.start("fast", leader)
            await flying.start("slow", follower)
            await trio.sleep(1.1)
            assert flying.outcomes == {"fast": Result({"number": 1})}

        assert len(fast) == count
        assert slow == [0, *range(count - MAX_INBOX, count)]
        assert flying.outcomes["slow"] == Result({"number": 1})


async def test_a_follower_that_misses_what_must_not_be_lost_fails(bench, autojump_clock):
    """Better an error than a silent hole; the leader is not concerned."""
    many = [Notification("vendor/event", {"n": n}) for n in range(MAX_INBOX + 2)]
    async with opened(bench, Upstream(progress=[*many, _progress(1)])) as gate:
        leader, follower = gate.exchange(), gate.exchange()

        async def crawl(_notification):
            await trio.sleep(2)

        follower.link.emit = crawl
        one, other = await _together(gate, [leader, follower])

        assert one == Result({"number": 1})
        assert isinstance(other, SlowConsumer)


async def test_log_messages_give_way_to_what_must_not_be_lost(bench, autojump_clock):
    """They are the ones that may be lost."""
    log = Notification("notifications/message", {"level": "info", "data": "x"})
    events = [Notification("vendor/event", {"n": n}) for n in range(10)]
    got = []
    async with opened(bench, Upstream(progress=[*[log] * (MAX_INBOX + 1), *events])) as gate:
        leader, follower = gate.exchange(), gate.exchange()

        async def crawl(notification):
            await trio.sleep(2)
            got.append(notification)

        follower.link.emit = crawl
        await _together(gate, [leader, follower])

    assert got[-10:] == events
    assert len(got) == MAX_INBOX + 1


async def test_a_full_table_shares_no_more(bench, autojump_clock):
    """Above `max_flights` every exchange makes its own call; above `max_waiting` the ones too many do."""
    async with opened(bench, max_flights=1, max_waiting=1) as gate:
        exchanges = [gate.exchange(params={"cursor": c}) for c in ("a", "a", "a", "b", "b")]
        await _together(gate, exchanges)

        assert len(gate.upstream.calls) == 4
        assert [e.link.decisions[0].outcome for e in exchanges] == ["lead", "join", "bypass", "bypass", "bypass"]


@pytest.mark.parametrize(("writer", "calls"), [(ANA, 2), (BOB, 1)])
async def test_who_has_written_is_not_answered_from_before(bench, autojump_clock, writer, calls):
    """A read that began before the principal's own write ended is not shared with a read after it."""
    async with opened(bench) as gate, trio.open_nursery() as nursery:
        flying = Flying(gate, nursery)
        gate.upstream.seconds = 10
        await flying.start("read", gate.exchange(caller=ANA))
        gate.upstream.seconds = 1
        await gate.call(gate.exchange("tools/call", {"name": "write"}, caller=writer))
        gate.upstream.calls.clear()
        await flying.start("again", gate.exchange(caller=ANA))

        assert len(gate.upstream.calls) == calls - 1


@pytest.mark.parametrize(
    ("method", "change", "calls"),
    [
        ("tools/list", "notifications/tools/list_changed", 2),
        ("prompts/list", "notifications/tools/list_changed", 1),
        ("resources/read", "notifications/resources/updated", 2),
        ("resources/read", "notifications/progress", 1),
    ],
)
@pytest.mark.parametrize("way", ["announced", "relayed"])
async def test_who_asks_after_a_change_is_not_answered_from_before(bench, autojump_clock, method, change, calls, way):
    """Clients ask again when they hear of a change; that must not join the call it makes void."""
    async with opened(bench) as gate, trio.open_nursery() as nursery:
        flying = Flying(gate, nursery)
        await flying.start("before", gate.exchange(method, {"uri": "a:b"}))
        notification = Notification(change, {"uri": "a:b"})
        if way == "announced":
            gate.stage.context.changes.announce("sink", notification)
        else:
            await gate.exchange().relay(notification)
        await flying.start("after", gate.exchange(method, {"uri": "a:b"}))

        assert len(gate.upstream.calls) == calls


# Idempotency keys.


def _keyed(gate, key="k", name="pay", by="meta", **more):
    headers = {"idempotency-key": key} if by == "header" else {}
    params = {"name": name, "_meta": {"io.sluiceway/idempotencyKey": key} if by == "meta" else {}}
    exchange = gate.exchange("tools/call", params, **more)
    return _with_headers(exchange, headers)


def _with_headers(exchange, headers):
    return exchange.with_client(replace(exchange.client, headers=headers))


@pytest.mark.parametrize("by", ["meta", "header"])
async def test_the_same_key_twice_at_once_is_one_call(bench, autojump_clock, by):
    """Case 37 of the reliability table: one upstream call, two equal answers."""
    async with opened(bench) as gate:
        outcomes = await _together(gate, [_keyed(gate, by=by) for _ in range(2)])

        assert outcomes == [Result({"number": 1})] * 2
        assert len(gate.upstream.calls) == 1


@pytest.mark.parametrize("answer", [Result({"isError": True, "content": []}), ErrorReply(-7, "no", {"a": 0}, 418)])
async def test_the_outcome_of_a_key_is_given_again(bench, autojump_clock, answer):
    """To its principal, whatever it was, until it is too old."""
    async with opened(bench, Upstream(answer=lambda *_: answer), outcome_ttl=60.0) as gate:
        seen = [await gate.call(_keyed(gate, caller=ANA)) for _ in range(2)]
        assert (seen, len(gate.upstream.calls)) == ([answer] * 2, 1)
        assert getattr(seen[1], "http_status", None) == getattr(answer, "http_status", None)
        assert {f.name: f.value for f in gate.stage.figures()}["dedup_replayed_total"] == 1

        await gate.call(_keyed(gate, caller=BOB))
        assert len(gate.upstream.calls) == 2

        await trio.sleep(61)
        await gate.call(_keyed(gate, caller=ANA))
        assert len(gate.upstream.calls) == 3


async def test_a_key_of_another_request_is_refused(bench, autojump_clock):
    """At the same time, and later."""
    async with opened(bench) as gate:
        _, refused = await _together(gate, [_keyed(gate), _keyed(gate, name="refund")])
        later = await gate.call(_keyed(gate, name="refund"))

        for error in (refused, later):
            assert (error.reason, error.http_status) == ("invalid_params", 409)
            assert "key of its own" in error.message
        assert len(gate.upstream.calls) == 1


@pytest.mark.parametrize("key", ["", "x" * 256, 7])
async def test_a_key_that_is_none_is_refused(bench, autojump_clock, key):
    """Rather than ignored: the client counts on it."""
    async with opened(bench) as gate:
        assert (await gate.call(_keyed(gate, key))).reason == "invalid_params"
        assert gate.upstream.calls == []


async def test_two_keys_that_differ_are_refused(bench, autojump_clock):
    """Header and `_meta` say the same, or one of them says nothing."""
    async with opened(bench) as gate:
        exchange = _keyed(gate, "a")
        error = await gate.call(_with_headers(exchange, {"idempotency-key": "b"}))

        assert "differ" in error.message


async def test_a_call_that_was_cancelled_is_not_made_again(bench, autojump_clock):
    """It may have run: whoever waited, and whoever repeats it, is told so."""
    async with opened(bench) as gate, trio.open_nursery() as nursery:
        flying = Flying(gate, nursery)
        for name in "ab":
            await flying.start(name, _keyed(gate))
        await flying.cancel("a")
        await trio.sleep(1)
        await flying.start("c", _keyed(gate))
        await trio.sleep(1)

        assert [type(flying.outcomes[name]) for name in "bc"] == [OutcomeUnknown] * 2
        assert len(gate.upstream.calls) == 1


@pytest.mark.parametrize(
    ("answer", "calls"),
    [(ConnectFailed("down"), 2), (UpstreamClosed("gone"), 1), (Result({"resultType": "input_required"}), 2)],
)
async def test_a_call_that_did_nothing_may_be_made_again(bench, autojump_clock, answer, calls):
    """Because it was never sent, or the upstream only asked something first."""
    async with opened(bench, Upstream(answer=lambda *_: answer)) as gate:
        for _ in range(2):
            await gate.call(_keyed(gate))

        assert len(gate.upstream.calls) == calls


async def test_an_outcome_that_is_too_large_is_not_made_again(bench, autojump_clock):
    """Only that there was one is kept."""
    for answer in (Result({"text": "x" * 99}), ErrorReply(-1, "x" * 99)):
        async with opened(bench, Upstream(answer=lambda *_, a=answer: a), max_outcome=64) as gate:
            outcomes = [await gate.call(_keyed(gate)) for _ in range(2)]

            assert outcomes[0] == answer
            assert "too large" in outcomes[1].message
            assert len(gate.upstream.calls) == 1


async def test_of_too_many_keys_the_oldest_is_forgotten(bench, autojump_clock):
    """Memory has an end: `max_keys`."""
    async with opened(bench, max_keys=2) as gate:
        for key in ("a", "b", "c", "b", "c", "a"):
            await gate.call(_keyed(gate, key))

        assert len(gate.upstream.calls) == 4


@pytest.mark.parametrize("method", ["tools/list", "tasks/update", "initialize"])
async def test_keys_of_what_needs_none_are_ignored(bench, autojump_clock, method):
    """A read may be repeated anyway; a handshake or an answer in a conversation has an order of its own."""
    async with opened(bench) as gate:
        for _ in range(2):
            params = {"taskId": "t", "_meta": {"io.sluiceway/idempotencyKey": "k"}}
            await gate.call(gate.exchange(method, params))

        assert len(gate.upstream.calls) == 2


async def test_a_full_table_does_not_make_keys_worthless(bench, autojump_clock):
    """Who comes at the same time finds the record instead of the call."""
    async with opened(bench, max_flights=1) as gate:
        outcomes = await _together(gate, [gate.exchange(), _keyed(gate), _keyed(gate)])

        assert outcomes == [Result({"number": n}) for n in (1, 2, 2)]
        assert len(gate.upstream.calls) == 2


async def test_keys_can_be_switched_off(bench, autojump_clock):
    """With `outcome_ttl: null` nothing is kept."""
    async with opened(bench, outcome_ttl=None) as gate:
        for _ in range(2):
            await gate.call(_keyed(gate))

        assert len(gate.upstream.calls) == 2


class Shared:
    """Two gateways with one store."""

    def __init__(self, bench, store, upstream):
        self.gates = []
        for _ in range(2):
            gate = Gate(bench, upstream, store="shared")
            gate.stage.context.stores = lambda _: store
            self.gates.append(gate)


@asynccontextmanager
async def two_gateways(bench, upstream=None):
    store = MemoryStore(MemoryStore.Config(), Context(id="shared"))
    pair = Shared(bench, store, upstream or Upstream())
    async with pair.gates[0].stage.open(), pair.gates[1].stage.open():
        yield store, *pair.gates


async def test_gateways_that_share_a_store_make_one_call(bench, autojump_clock):
    """The second waits until the first has the outcome."""
    async with two_gateways(bench) as (_, one, other), trio.open_nursery() as nursery:
        first, second = Flying(one, nursery), Flying(other, nursery)
        await first.start("a", _keyed(one, deadline=30.0))
        await second.start("b", _keyed(other))
        await trio.sleep(2)

        assert first.outcomes | second.outcomes == dict.fromkeys("ab", Result({"number": 1}))
        assert len(one.upstream.calls) == 1


async def test_a_crash_leaves_an_outcome_that_nobody_knows(bench, autojump_clock):
    """The lease of who made the call is over, its record says `started`: it is not made again."""
    async with two_gateways(bench) as (store, one, other):
        await one.call(_keyed(one))
        [key] = await store.keys()
        record = await store.get(key)
        await store.put(key, record.replace(b'"done"', b'"started"'))

        assert isinstance(await other.call(_keyed(other)), OutcomeUnknown)
        assert len(one.upstream.calls) == 1


async def test_a_race_for_a_key_has_one_winner(bench, autojump_clock):
    """Somebody else's swap came first: the outcome is theirs."""
    async with two_gateways(bench) as (store, one, other):
        await one.call(_keyed(one))
        swap, get = store.swap, store.get
        [key] = await store.keys()
        record = await store.get(key)
        await store.delete(key)

        async def late(*args, **kwargs):
            await store.put(key, record)
            return await swap(*args, **kwargs)

        store.swap, store.get = late, get
        assert await other.call(_keyed(other)) == Result({"number": 1})
        assert len(one.upstream.calls) == 1


async def test_a_store_that_fails_refuses_before_the_call(bench, autojump_clock):
    """A promise that cannot be kept is not given; a record that fails after the call fails nobody."""
    async with two_gateways(bench) as (store, one, _):

        async def broken(*_args, **_kwargs):
            raise OSError("disk")

        put = store.put
        store.get = broken
        assert (await one.call(_keyed(one))).reason == "capacity_exceeded"
        assert one.upstream.calls == []

        del store.get
        store.delete = broken
        store.put = put
        assert await one.call(_keyed(one)) == Result({"number": 1})


async def test_an_outcome_survives_a_restart(bench, tmp_path):
    """In a file; the second gateway is another process as far as it can tell. On the real clock."""
    upstream = Upstream(seconds=0.0)
    for _ in range(2):
        store = SqliteStore(SqliteStore.Config(path=tmp_path / "state.db"), Context(id="state"))
        gate = Gate(bench, upstream, store="state")
        gate.stage.context.stores = lambda _, store=store: store
        async with store.open(), gate.stage.open():
            assert await gate.call(_keyed(gate)) == Result({"number": 1})

    assert len(upstream.calls) == 1


# Laws.


def test_it_keeps_the_contract_with_everything_on():
    """Shared tools, trusted hints, small tables."""
    check_middleware(Dedup, {"repeat": ["*"], "trust_hints": True, "max_flights": 2, "max_waiting": 1, "max_keys": 4})


async def test_cancelling_anybody_anywhere_leaves_nothing(bench, autojump_clock):
    """Leader, follower or both: the table is empty, and the others have their answer."""

    for victim in ("leader", "follower", "keyed"):

        @asynccontextmanager
        async def trial(victim=victim):
            async with opened(bench, Upstream(progress=[_progress(1)])) as gate, trio.open_nursery() as nursery:
                flying = Flying(gate, nursery)
                make = (lambda: _keyed(gate)) if victim == "keyed" else (lambda: gate.exchange())
                if victim == "follower":
                    await flying.start("leader", make())

                async def call():
                    if victim != "follower":
                        nursery.start_soon(later)
                    await gate.call(make())

                async def later():
                    await trio.sleep(0.1)
                    flying.outcomes["late"] = await gate.call(make())

                yield call
                await trio.sleep(5)
            expected = {"leader"} if victim == "follower" else {"late"} if flying.outcomes else set()
            assert flying.outcomes.keys() == expected
            if victim != "keyed":
                assert all(isinstance(outcome, Result) for outcome in flying.outcomes.values())

        await cancel_everywhere(trial)


EVENTS = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.2, 0.5, 1.0]),  # pause before it comes
        st.sampled_from(["ana", "bob"]),
        st.sampled_from(["x", "y"]),
        st.sampled_from([None, 0.3, 0.9]),  # when its client leaves
    ),
    max_size=12,
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(EVENTS)
def test_shared_calls_equal_calls_of_their_own(events):
    """Whoever stays gets what its own call would have said, nobody what another principal's call said."""

    async def main():
        calls = Counter()

        async def upstream(exchange):
            about = (exchange.caller.subject, exchange.request.params["cursor"])
            calls[about] += 1
            await trio.sleep(1)
            return Result({"for": list(about)})

        stage = Dedup(Dedup.Config(), Context(id="dedup"))
        chain = compile_chain([Stage("dedup", stage)], upstream)
        outcomes = {}

        async def visit(number, who, what, leaves):
            exchange = memory_exchange(
                "tools/list", {"cursor": what}, caller=Caller(who, how="bearer"), relay=chain.relay
            )
            with trio.move_on_after(leaves if leaves is not None else 1000):
                outcomes[number] = await chain.service(exchange)

        async with stage.open():
            async with trio.open_nursery() as nursery:
                for number, (pause, who, what, leaves) in enumerate(events):
                    await trio.sleep(pause)
                    nursery.start_soon(visit, number, who, what, leaves)
            assert stage._flights.count == 0

        stayed = {n: [who, what] for n, (_, who, what, leaves) in enumerate(events) if leaves is None}
        assert {n: outcomes[n].value["for"] for n in stayed} == stayed
        for number, (_, who, what, _leaves) in enumerate(events):
            if number in outcomes:
                assert outcomes[number].value == {"for": [who, what]}
        assert sum(calls.values()) <= len(events)

    trio.run(main, clock=MockClock(autojump_threshold=0))
