"""What clients get while an upstream is not there, and that it is never more than that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import trio
from attrs import evolve
from msgspec.structs import replace
from trio.testing import MockClock

from sluiceway.middlewares.fallback import PROVENANCE, Answer, Fallback
from sluiceway.pipeline.model.component import Component, Context
from sluiceway.pipeline.model.exchange import Exchange, Service
from sluiceway.pipeline.model.session import Caller
from sluiceway.pipeline.model.store import Store
from sluiceway.pipeline.model.when import When
from sluiceway.pipeline.protocol.errors import (
    CapacityExceeded,
    CircuitOpen,
    ComponentError,
    ConnectFailed,
    DeadlineExceeded,
    Forbidden,
    GatewayError,
    UnknownMethod,
    UpstreamClosed,
    UpstreamProtocolError,
    UpstreamUnavailable,
)
from sluiceway.pipeline.protocol.mcp import Era
from sluiceway.pipeline.protocol.messages import ErrorReply, Json, Notification, Reply, Result
from sluiceway.pipeline.stores.memory import MemoryStore
from sluiceway.pipeline.testing import FakeSink, PipelineHarness, cancel_everywhere

Step = Reply | GatewayError
PROGRESS = Notification("notifications/progress", {"progressToken": 1, "progress": 1})


def _service(step: Step, seen: list[Exchange] | None = None, *, relays: bool = False) -> Service:
    async def serve(exchange: Exchange) -> Reply:
        if seen is not None:
            seen.append(exchange)
        if relays:
            await exchange.relay(PROGRESS)
        await trio.lowlevel.checkpoint()
        if isinstance(step, GatewayError):
            raise step
        return step

    return serve


class Days:
    """A date that tests move."""

    now = 1_800_000_000.0


@pytest.fixture
def days() -> Days:
    """A fresh one."""
    return Days()


def _stage(
    bench: Any, days: Days | None = None, *, sink: Service | None = None, store: Store | None = None, **options: Any
) -> Fallback:
    context: Context = bench.context("fallback")
    if sink is not None:
        options["sink"], context.sinks = "other", {"other": sink}.__getitem__
    if store is not None or "keep" in options:
        kept = store or MemoryStore(MemoryStore.Config(), Context(id="kept"))
        options["store"], context.stores = "kept", {"kept": kept}.__getitem__
    if days is not None:
        context.now = lambda: days.now
    return Fallback(Fallback.Config(**options), context)


async def _outcome(service: Service, exchange: Exchange) -> Step:
    try:
        return await service(exchange)
    except GatewayError as error:
        return error


async def _one(
    bench: Any, stage: Fallback, step: Step, method: str = "tools/list", params: Any = None, **kwargs: Any
) -> Step:
    return await _outcome(bench.service(_service(step), stage), bench.exchange(method, params, **kwargs))


def _origin(outcome: Step) -> Json:
    """What an answer says about where it comes from; None for what is no makeshift."""
    return outcome.value.get("_meta", {}).get(PROVENANCE) if isinstance(outcome, Result) else None


@pytest.mark.parametrize(
    ("step", "replaced"),
    [
        (ConnectFailed("x"), True),
        (UpstreamUnavailable("x"), True),
        (CircuitOpen("x"), True),
        (UpstreamClosed("x"), True),
        (DeadlineExceeded("x", timeout_s=1), True),
        (ErrorReply(1, "x", http_status=503), True),
        (CapacityExceeded("x"), False),
        (ErrorReply(-32603, "x"), False),
        (UpstreamProtocolError("x"), False),
        (UnknownMethod("x"), False),
        (Forbidden("x"), False),
        (ErrorReply(-32602, "no such tool"), False),
        (ErrorReply(-32002, "no such resource"), False),
        (Result({"isError": True}), False),
    ],
    ids=lambda value: repr(value)[:30],
)
async def test_only_an_upstream_that_is_not_there_is_replaced(bench: Any, step: Step, replaced: bool) -> None:
    """Not found, denied, bad arguments and a tool's own failure are answers, and come through (D-65)."""
    outcome = await _one(bench, _stage(bench, empty_lists=True), step)

    assert (_origin(outcome) is not None) == replaced
    assert replaced or outcome is step


@pytest.mark.parametrize(
    ("on", "replaced"), [(("refused",), [True, False]), (("error", "garbled"), [False, True]), ((), [False, False])]
)
async def test_on_says_what_counts(bench: Any, on: tuple[str, ...], replaced: list[bool]) -> None:
    """Everything else comes through."""
    stage = _stage(bench, empty_lists=True, on=on)
    outcomes = [await _one(bench, stage, step) for step in (CapacityExceeded("x"), ErrorReply(-32603, "x"))]

    assert [_origin(outcome) is not None for outcome in outcomes] == replaced


async def test_another_sink_answers(bench: Any) -> None:
    """The answer says so; one warning; what the other one says about the request is its answer."""
    exchange = bench.exchange("tools/list")
    stage = _stage(bench, sink=_service(Result({"tools": [], "_meta": {"a": 1}})))
    async with stage.open():
        outcome = await _outcome(bench.service(_service(ConnectFailed("x")), stage), exchange)
        other = _stage(bench, sink=_service(ErrorReply(-32602, "bad")))
        async with other.open():
            refused = await _one(bench, other, ConnectFailed("x"))

    origin = {"from": "sink", "sink": "other", "reason": "connect_failed"}
    assert outcome == Result({"tools": [], "_meta": {"a": 1, PROVENANCE: origin}})
    assert [(d.outcome, d.cause) for d in exchange.link.decisions] == [("fallback", "sink: connect_failed")]
    assert bench.events() == ["upstream failed, using fallback"] * 2
    assert refused == ErrorReply(-32602, "bad")


@pytest.mark.parametrize(
    ("method", "step", "options", "asked"),
    [
        ("tasks/get", ConnectFailed("x"), {}, 0),
        ("tools/list", UpstreamClosed("x"), {}, 1),
        ("tools/call", UpstreamClosed("x"), {}, 0),
        ("tools/call", DeadlineExceeded("x", timeout_s=1), {}, 0),
        ("tools/call", ConnectFailed("x"), {}, 1),
        ("tools/call", UpstreamClosed("x"), {"reads": ("ec*",)}, 1),
    ],
)
async def test_what_may_have_run_is_not_run_elsewhere(
    bench: Any, method: str, step: Step, options: dict[str, Any], asked: int
) -> None:
    """Unless it may run twice."""
    seen: list[Exchange] = []
    stage = _stage(bench, sink=_service(Result({}), seen), **options)
    async with stage.open():
        outcome = await _one(bench, stage, step, method)

    assert len(seen) == asked
    assert asked or outcome is step


async def test_trusted_hints_count_and_are_forgotten_when_they_change(bench: Any) -> None:
    """A tool that says it is idempotent may be asked elsewhere; the list is fetched once."""
    listed: list[str] = []

    async def sink(exchange: Exchange) -> Reply:
        if exchange.method == "tools/list":
            listed.append(exchange.method)
            return Result({"tools": [{"name": "echo", "annotations": {"idempotentHint": True}}]})
        raise UpstreamClosed("x")

    stage = _stage(bench, sink=_service(Result({})), trust_hints=True)
    service = bench.service(sink, stage)
    async with stage.open():
        outcomes = [await _outcome(service, bench.exchange("tools/call")) for _ in range(2)]
        stage.context.changes.announce("a", Notification("notifications/tools/list_changed"))
        await _outcome(service, bench.exchange("tools/list"))
        outcomes.append(await _outcome(service, bench.exchange("tools/call")))

    assert [_origin(outcome)["from"] for outcome in outcomes] == ["sink"] * 3
    assert len(listed) == 2
    assert len(stage.context.changes) == 0


async def test_nothing_is_asked_elsewhere_once_the_client_has_seen_something(bench: Any) -> None:
    """The other sink's progress would begin anew."""
    seen: list[Exchange] = []
    stage = _stage(bench, sink=_service(Result({}), seen), empty_lists=True)
    async with stage.open():
        service = bench.service(_service(UpstreamClosed("x"), relays=True), stage)
        outcome = await _outcome(service, bench.exchange("tools/list"))

    assert (len(seen), _origin(outcome)["from"]) == (0, "empty")


@pytest.mark.parametrize("step", [ConnectFailed("y"), ErrorReply(-32603, "y"), Forbidden("y")])
async def test_if_nothing_can_help_the_failure_comes_out(bench: Any, step: Step) -> None:
    """The first one, as it is; the attempt elsewhere is heard no more."""
    seen: list[Exchange] = []
    stage, failure = _stage(bench, sink=_service(step, seen)), ConnectFailed("x")
    async with stage.open():
        assert await _one(bench, stage, failure) is failure

    await seen[0].relay(PROGRESS)
    assert bench.sent == []


async def test_the_last_good_answer_is_given_while_it_is_not_too_old(
    bench: Any, days: Days, autojump_clock: MockClock
) -> None:
    """With its age; gone after `keep`."""
    stage = _stage(bench, days, keep=60.0)
    async with stage.open():
        await _one(bench, stage, Result({"tools": [1], "ttlMs": 9000}))
        await _one(bench, stage, Result({"tools": [2], "ttlMs": 9000}))
        days.now += 30.5
        await trio.sleep(30.5)
        kept = await _one(bench, stage, ConnectFailed("x"))
        await trio.sleep(30)
        gone = await _one(bench, stage, ConnectFailed("x"))

    origin = {"from": "kept", "age_ms": 30500, "reason": "connect_failed"}
    expected = {"tools": [2], "ttlMs": 0, "resultType": "complete", "cacheScope": "private"}
    assert kept == Result({**expected, "_meta": {PROVENANCE: origin}})
    assert isinstance(gone, ConnectFailed)


async def test_nobody_gets_what_was_answered_to_somebody_else(bench: Any, autojump_clock: MockClock) -> None:
    """Kept per tenant, principal, rights and request."""
    ana = Caller("ana", tenant="acme", scopes=frozenset({"read"}), how="bearer")
    others = [
        evolve(ana, subject="bob"),
        evolve(ana, tenant="globex"),
        evolve(ana, scopes=frozenset()),
        evolve(ana, roles=frozenset({"admin"})),
    ]
    stage = _stage(bench, keep=60.0)
    async with stage.open():
        await _one(bench, stage, Result({"tools": ["ana's"]}), caller=ana)
        again = await _one(bench, stage, ConnectFailed("x"), caller=ana)
        rest = [await _one(bench, stage, ConnectFailed("x"), caller=caller) for caller in others]
        rest.append(await _one(bench, stage, ConnectFailed("x"), "tools/list", {"cursor": "2"}, caller=ana))

    assert _origin(again)["from"] == "kept"
    assert [type(outcome) for outcome in rest] == [ConnectFailed] * 5


@pytest.mark.parametrize(
    ("method", "params", "reply", "kept"),
    [
        ("tools/list", {}, {"tools": []}, True),
        ("resources/read", {"uri": "a"}, {"contents": []}, True),
        ("prompts/get", {"name": "a"}, {"messages": []}, True),
        ("completion/complete", {}, {"completion": {}}, True),
        ("prompts/get", {"name": "a"}, {"resultType": "input_required"}, False),
        ("prompts/get", {"name": "a", "inputResponses": {}}, {"messages": []}, False),
        ("resources/read", {"uri": "a"}, {"contents": ["x" * 500]}, False),
        ("tools/call", {"name": "search"}, {"content": []}, True),
        ("tools/call", {"name": "search"}, {"content": [], "isError": False}, True),
        ("tools/call", {"name": "search"}, {"content": [], "isError": True}, False),
        ("tools/call", {"name": "search", "requestState": "s"}, {"content": []}, False),
        ("tools/call", {"name": "pay"}, {"content": []}, False),
        ("resources/subscribe", {"uri": "a"}, {}, False),
        ("logging/setLevel", {"level": "info"}, {}, False),
        ("tasks/get", {"taskId": "a"}, {}, False),
    ],
)
async def test_only_complete_answers_of_reads_are_kept(
    bench: Any, autojump_clock: MockClock, method: str, params: Any, reply: dict[str, Json], kept: bool
) -> None:
    """Nothing that asks, fails, changes something, or is longer than `max_bytes`."""
    stage = _stage(bench, keep=60.0, reads=("search",), max_bytes=400)
    async with stage.open():
        await _one(bench, stage, Result(reply), method, params)
        outcome = await _one(bench, stage, ConnectFailed("x"), method, params)

    assert (_origin(outcome) is not None) == kept


class BrokenStore(Store):
    """Fails in the way it is told to."""

    def __init__(self, error: Exception | None, value: bytes = b"") -> None:
        Component.__init__(self, None, Context(id="broken"))
        self.error = error
        self.value = value

    async def get(self, key: str) -> bytes | None:
        if self.error is not None:
            raise self.error
        return self.value

    async def put(self, key: str, value: bytes, *, ttl_s: float | None = None) -> None:
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize(
    "store",
    [
        BrokenStore(ComponentError("s", "run", "disk full")),
        BrokenStore(CapacityExceeded("full")),
        BrokenStore(None, b"rubbish"),
    ],
    ids=["broken", "full", "rubbish"],
)
async def test_a_store_that_fails_is_as_good_as_an_empty_one(bench: Any, store: Store) -> None:
    """Neither good answers nor failures suffer from it."""
    stage = _stage(bench, keep=60.0, store=store)
    async with stage.open():
        assert await _one(bench, stage, Result({"tools": []})) == Result({"tools": []})
        assert isinstance(await _one(bench, stage, ConnectFailed("x")), ConnectFailed)


async def test_an_answer_that_cannot_be_read_is_not_kept(bench: Any) -> None:
    """It is the client's to see."""
    odd = Result(raw=b'{"isError": true, "isError": false}')
    stage = _stage(bench, keep=60.0)
    async with stage.open():
        assert await _one(bench, stage, odd) is odd


async def test_fixed_answers_go_by_what_matches_first(bench: Any) -> None:
    """Per method and name; a modern client's revision gets what it wants of results."""
    weather = Answer(when=When(method=("tools/call",), name=("weather",)), result={"content": ["later"]})
    rest = Answer(when=When(method=("tools/*",)), result={"content": [], "isError": True})
    stage = _stage(bench, answers=(weather, rest))
    outcomes = [
        await _one(bench, stage, ConnectFailed("x"), "tools/call", {"name": name}) for name in ("weather", "pay")
    ]
    other = await _one(bench, stage, ConnectFailed("x"), "resources/read", {"uri": "a"})

    meta = {PROVENANCE: {"from": "answer", "reason": "connect_failed"}}
    assert outcomes == [
        Result({"content": ["later"], "resultType": "complete", "_meta": meta}),
        Result({"content": [], "isError": True, "resultType": "complete", "_meta": meta}),
    ]
    assert isinstance(other, ConnectFailed)


@pytest.mark.parametrize(
    ("method", "member"),
    [
        ("tools/list", "tools"),
        ("prompts/list", "prompts"),
        ("resources/list", "resources"),
        ("resources/templates/list", "resourceTemplates"),
    ],
)
async def test_empty_lists_say_that_they_are_makeshift(bench: Any, method: str, member: str) -> None:
    """With status and reason; for a legacy client, without what its revisions do not know."""
    exchange = bench.exchange(method)
    exchange = exchange.with_client(replace(exchange.client, era=Era.LEGACY, version="2025-06-18"))
    outcome = await _outcome(bench.service(_service(ConnectFailed("x")), _stage(bench, empty_lists=True)), exchange)
    without = await _one(bench, _stage(bench), ConnectFailed("x"), method)

    meta = {PROVENANCE: {"from": "empty", "status": "error", "reason": "connect_failed"}}
    assert outcome == Result({member: [], "_meta": meta})
    assert isinstance(without, ConnectFailed)


async def test_one_dead_source_does_not_take_the_others_with_it(autojump_clock: MockClock) -> None:
    """Behind a router, the merged list has what the living ones offer (S1-GD-01)."""
    data = {
        "version": 1,
        "sources": {"s": {"stdio": {}}},
        "pipelines": {"main": {"chain": [], "sink": "all"}},
        "sinks": {
            "all": {"route": {"to": ["dead", "alive"], "separator": "."}},
            "dead": {"embedded": {}, "chain": [{"fallback": {"empty_lists": True}}]},
            "alive": {"embedded": {}},
        },
    }
    sinks = {
        "dead": FakeSink.fail(times=99, then=Result({})),
        "alive": FakeSink.script([Result({"tools": [{"name": "t"}]})]),
    }
    async with PipelineHarness.from_data(data, sinks=sinks) as gateway:
        reply = await gateway.call("tools/list")

    assert isinstance(reply, Result)
    assert [tool["name"] for tool in reply.value["tools"]] == ["alive.t"]


async def test_other_exchanges_pass(bench: Any) -> None:
    """Listeners and notifications have no answer that could be replaced."""
    stage = _stage(bench, answers=(Answer(when=When(), result={}),))

    for method in ("subscriptions/listen", "notifications/roots/list_changed"):
        assert isinstance(await _one(bench, stage, ConnectFailed("x"), method), ConnectFailed)


async def test_figures_count_by_origin(bench: Any, autojump_clock: MockClock) -> None:
    """What was given, and from where."""
    stage = _stage(bench, keep=60.0, empty_lists=True)
    async with stage.open():
        await _one(bench, stage, ConnectFailed("x"))
        await _one(bench, stage, Result({"tools": []}))
        await _one(bench, stage, ConnectFailed("x"))

    assert stage.details() == {"given": {"empty": 1, "kept": 1}}
    assert [(f.value, dict(f.labels)) for f in stage.figures()] == [(1, {"from": "empty"}), (1, {"from": "kept"})]


@pytest.mark.parametrize("options", [{"keep": 60.0}, {"store": "a"}])
def test_keep_and_store_belong_together(options: Mapping[str, Any]) -> None:
    """One without the other would do nothing."""
    with pytest.raises(ValueError, match="belong together"):
        Fallback.Config(**options)


async def test_it_can_be_cancelled_anywhere(autojump_clock: MockClock) -> None:
    """While it keeps an answer, and while it gives one."""
    data = {
        "version": 1,
        "stores": {"kept": {"memory": {}}},
        "sources": {"s": {"stdio": {}}},
        "pipelines": {"main": {"chain": [{"fallback": {"keep": "1h", "store": "kept", "sink": "b"}}], "sink": "a"}},
        "sinks": {"a": {"embedded": {}}, "b": {"embedded": {}}},
    }
    sinks = {"a": FakeSink.fail(times=5, then=Result({})), "b": FakeSink.slow(1)}
    async with PipelineHarness.from_data(data, sinks=sinks) as gateway:
        await cancel_everywhere(lambda: gateway.call("tools/list"))
