"""`trace`: spans of exchanges, attempts and stages; the context upstream; sampling."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from msgspec.structs import replace
from opentelemetry import trace as api
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes, jsonrpc_attributes, mcp_attributes

from sluiceway.middlewares.request_id import RequestId
from sluiceway.middlewares.trace import Trace
from sluiceway.pipeline.config import check_text
from sluiceway.pipeline.model.component import Middleware, middleware
from sluiceway.pipeline.model.exchange import Exchange, Service
from sluiceway.pipeline.model.session import Caller
from sluiceway.pipeline.protocol.errors import CapacityExceeded, ConnectFailed, DeadlineExceeded
from sluiceway.pipeline.protocol.messages import ErrorReply, Notification, Reply, Request, Result
from sluiceway.pipeline.runtime.chain import Stage, around_stages, compile_chain, count_attempts
from sluiceway.pipeline.telemetry import recorder
from sluiceway.pipeline.telemetry.spans import Span
from sluiceway.pipeline.testing import FakeSink, PipelineHarness, cancel_everywhere

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
SAMPLED = f"00-{TRACE_ID}-b7ad6b7169203331-01"
UNSAMPLED = f"00-{TRACE_ID}-b7ad6b7169203331-00"


@middleware("again")
class Again(Middleware):
    """Tries three times."""

    replays = True

    async def __call__(self, exchange: Exchange, call_next: Service) -> Reply:
        """Fork for each further try."""
        for _ in range(2):
            try:
                return await call_next(exchange)
            except ConnectFailed:
                exchange.decide("again", "repeat", "connect_failed")
                exchange = exchange.fork()
        return await call_next(exchange)


@middleware("viewing")
class Viewing(Middleware):
    """Goes on with a view, as stages do that rewrite something, or hide it."""

    def __call__(self, exchange: Exchange, call_next: Service) -> Awaitable[Reply]:
        """Nothing is different in it."""
        return call_next(exchange.with_client(exchange.client))


class Rig:
    """A trace stage with a chain and a sink behind it; `seen` is what the sink got."""

    def __init__(self, bench: Any, options: Mapping[str, Any]) -> None:
        self.bench = bench
        self.stage = Trace(Trace.Config(**options), bench.context("trace"))
        self.seen: list[Mapping[str, Any]] = []
        self.steps: list[Any] = []
        self.during: Callable[[Exchange], Awaitable[None]] | None = None

    async def sink(self, exchange: Exchange) -> Reply:
        self.seen.append(dict(exchange.request.params.get("_meta", {})))
        if self.during is not None:
            await self.during(exchange)
        step = self.steps.pop(0) if self.steps else Result({"content": []})
        if isinstance(step, Exception):
            raise step
        reply: Reply = step
        return reply

    def service(self, *inner: Middleware, outer: tuple[Middleware, ...] = ()) -> Service:
        stages = [Stage(each.name, each) for each in (*outer, self.stage, *inner)]
        return compile_chain(stages, count_attempts("up", self.sink), probe=around_stages(None)).service

    async def send(self, service: Service | None = None, **exchange: Any) -> Reply:
        return await (service or self.service())(self.bench.exchange(**exchange))

    @property
    def spans(self) -> list[Span]:
        return list(self.stage.recent_spans())


@pytest.fixture
def rig(bench: Any) -> Callable[..., Any]:
    @asynccontextmanager
    async def make(**options: Any) -> AsyncIterator[Rig]:
        rig = Rig(bench, options)
        async with rig.stage.open():
            yield rig

    return make


def test_the_names_are_those_of_the_conventions():
    """They are copied, because the package that has them may move them."""
    published = [*vars(mcp_attributes).values(), *vars(gen_ai_attributes).values(), *vars(jsonrpc_attributes).values()]
    ours = (recorder.METHOD, recorder.VERSION, recorder.SESSION, recorder.RESOURCE, recorder.REQUEST_ID)
    ours += (recorder.OPERATION, recorder.TOOL)

    assert [name for name in ours if name not in published] == []


async def test_a_call_has_a_span_and_its_attempt_another_one_below_it(rig, autojump_clock):
    """The upstream gets the attempt's."""
    async with rig() as r:

        async def during(exchange):
            await trio.sleep(0.25)
            await exchange.relay(Notification("notifications/progress", {}))

        r.during = during
        await r.send(caller=Caller("ana", tenant="acme"))
        attempt, server = r.spans

    assert (server.name, server.kind.name, server.parent) == ("tools/call echo", "SERVER", None)
    assert (attempt.name, attempt.kind.name, attempt.parent) == ("tools/call echo", "CLIENT", server.context)
    assert r.seen == [{"traceparent": f"00-{server.context.trace_id}-{attempt.context.span_id}-03"}]
    assert server.end_ns - server.start_ns == 250_000_000
    assert server.attributes == {
        "mcp.method.name": "tools/call", "mcp.method": "tools/call", "mcp.protocol.version": "2026-07-28",
        "gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "echo", "mcp.tool": "echo",
        "jsonrpc.request.id": "1", "client.address": "192.0.2.1", "mcp.principal": "ana", "sluiceway.tenant": "acme",
        "request_id": "unknown", "sluiceway.source": "test", "sluiceway.kind": "call", "sluiceway.attempts": 1,
        "sluiceway.outcome": "success", "sluiceway.relayed": 1,
    }  # fmt: skip
    assert attempt.attributes["sluiceway.sink"] == "up"
    assert attempt.attributes["sluiceway.relayed"] == 1
    assert server.status.name == attempt.status.name == "OK"


async def test_a_span_has_the_id_that_a_stage_further_in_gave(rig, bench, autojump_clock):
    """Also where one in between made a view, which is what the id is written on."""
    request_id = RequestId(RequestId.Config(), bench.context("request_id"))
    async with rig() as r:
        await r.send(r.service(Viewing(None, bench.context("viewing")), request_id), headers={"x-request-id": "abc"})
        server = r.spans[-1]

    assert server.attributes["request_id"] == "abc"


@pytest.mark.parametrize("carrier", ["meta", "headers"])
async def test_the_clients_trace_is_continued(carrier, rig, autojump_clock):
    """From `_meta`, or from headers where `_meta` says nothing; with its tracestate."""
    context = {"traceparent": SAMPLED, "tracestate": "rojo=1, congo=2"}
    async with rig(sample=0.0) as r:
        if carrier == "meta":
            await r.send(params={"name": "echo", "_meta": {**context, "other": 1}}, headers={"traceparent": UNSAMPLED})
        else:
            await r.send(headers=context)
        attempt, server = r.spans

    assert server.parent.traceparent == SAMPLED
    assert server.context.trace_id == attempt.context.trace_id == TRACE_ID
    assert r.seen[0]["traceparent"] == attempt.context.traceparent
    assert r.seen[0]["tracestate"] == "rojo=1,congo=2"
    assert r.seen[0].get("other") == (1 if carrier == "meta" else None)


async def test_what_the_client_does_not_sample_is_not_recorded_and_goes_on_as_it_came(rig, autojump_clock):
    """Not a byte of it changes."""
    async with rig() as r:
        exchange = r.bench.exchange(params={"name": "echo", "_meta": {"traceparent": UNSAMPLED}})
        sent: list[object] = []

        async def during(inner):
            sent.append(inner.request)

        r.during = during
        await r.service()(exchange)

    assert r.spans == []
    assert sent == [exchange.request]
    assert sent[0] is exchange.request
    assert exchange.link.trace.traceparent == UNSAMPLED


async def test_what_is_not_sampled_still_has_a_context(rig, autojump_clock):
    """So that the upstream does not sample on its own, and log lines can be found."""
    async with rig(sample=0.0) as r:
        exchange = r.bench.exchange()
        await r.service()(exchange)

    assert r.spans == []
    assert r.seen == [{"traceparent": exchange.link.trace.traceparent}]
    assert r.seen[0]["traceparent"].endswith("-02")
    assert exchange.around_sink is None


async def test_a_share_of_the_traces_is_sampled(rig, autojump_clock):
    """Chance comes from the injected source."""
    async with rig(sample=0.25, keep=10_000) as r:
        for _ in range(400):
            await r.send()
        figures = {figure.name: figure.value for figure in r.stage.figures()}

    assert 60 < len(r.spans) / 2 < 140
    assert figures == {"trace_spans_total": len(r.spans), "trace_unsampled_total": 400 - len(r.spans) / 2}


async def test_a_client_that_is_not_trusted_begins_no_trace_of_ours(rig, autojump_clock):
    """`incoming: restart`: its trace is a link, its decision does not count, its tracestate stays out."""
    meta = {"traceparent": SAMPLED, "tracestate": "a=1"}
    async with rig(incoming="restart") as r:
        await r.send(params={"name": "echo", "_meta": meta})
        await r.send(params={"name": "echo", "_meta": {"traceparent": UNSAMPLED}})
        spans = r.spans
    async with rig(incoming="restart", sample=0.0) as other:
        await other.send(params={"name": "echo", "_meta": meta})

    assert all(span.context.trace_id != TRACE_ID for span in spans)
    assert [len(span.links) for span in spans] == [0, 1, 0, 1]
    assert f"{spans[1].links[0].context.trace_id:032x}" == TRACE_ID
    assert "tracestate" not in r.seen[0]
    assert other.spans == []
    assert TRACE_ID not in other.seen[0]["traceparent"]
    assert "tracestate" not in other.seen[0]


@pytest.mark.parametrize("sample", [0.0, 1.0])
@pytest.mark.parametrize(
    ("propagate", "passed_on"),
    [
        ((), set()),
        (("traceparent",), {"traceparent"}),
        (("tracestate",), set()),
        (("traceparent", "tracestate", "baggage"), {"traceparent", "tracestate", "baggage"}),
        (("baggage",), {"baggage"}),
    ],
)
async def test_upstreams_get_what_propagate_names(propagate, passed_on, sample, rig, autojump_clock):
    """The rest is removed: a trace id can be none of an upstream's business, and baggage is the client's text."""
    meta = {"traceparent": SAMPLED if sample else UNSAMPLED, "tracestate": "a=1", "baggage": "user = ana", "other": 1}
    async with rig(propagate=propagate) as r:
        await r.send(params={"name": "echo", "_meta": meta})

    assert r.seen[0].keys() == {*passed_on, "other"}


async def test_baggage_that_is_none_does_not_go_on(rig, autojump_clock):
    """It could become a header."""
    async with rig(propagate=("baggage",)) as r:
        await r.send(params={"name": "echo", "_meta": {"baggage": "a=1\r\nx-evil: 1"}})

    assert r.seen == [{}]


async def test_every_attempt_of_a_retry_has_a_span(rig, autojump_clock):
    """And another context; the decisions stand on the exchange's span."""
    async with rig() as r:
        r.steps = [ConnectFailed("nobody there"), ConnectFailed("nobody there")]
        await r.send(r.service(Again({}, r.bench.context("again"))))
        *attempts, server = r.spans

    assert [span.attributes["sluiceway.attempt"] for span in attempts] == [1, 2, 3]
    assert [span.attributes.get("error.type") for span in attempts] == ["connect_failed", "connect_failed", None]
    assert {span.parent.span_id for span in attempts} == {server.context.span_id}
    assert len({meta["traceparent"] for meta in r.seen}) == 3
    assert server.attributes["sluiceway.decisions"] == ["again: repeat connect_failed"] * 2
    assert server.attributes["sluiceway.attempts"] == 3


@pytest.mark.parametrize("sample", [0.0, 1.0])
async def test_below_a_retry_every_try_is_carried_and_seen(sample, rig, autojump_clock):
    """The stage comes again for the same exchange; it is one trace."""
    async with rig(sample=sample) as r:
        r.steps = [ConnectFailed("nobody there"), ConnectFailed("nobody there")]
        await r.send(r.service(outer=(Again({}, r.bench.context("again")),)))

    assert len({meta["traceparent"].split("-")[1] for meta in r.seen}) == 1
    assert len(r.seen) == 3
    assert len([span for span in r.spans if span.kind.name == "CLIENT"]) == 3 * sample


@pytest.mark.parametrize(
    ("step", "outcome", "error", "status", "event"),
    [
        (Result({"isError": True}), "error", "tool_error", "ERROR", False),
        (Result({"isError": False}), "success", None, "OK", False),
        (ErrorReply(-32602, "bad"), "error", "-32602", "ERROR", False),
        (CapacityExceeded("full"), "refused", "capacity_exceeded", "ERROR", True),
        (ConnectFailed("gone"), "error", "connect_failed", "ERROR", True),
        (DeadlineExceeded("late", timeout_s=1), "timeout", "deadline_exceeded", "ERROR", True),
        (RuntimeError("a bug"), "error", "RuntimeError", "ERROR", True),
    ],
)
async def test_spans_say_how_it_ended(step, outcome, error, status, event, rig, autojump_clock):
    """What was raised is an event as well."""
    async with rig() as r:
        r.steps = [step]
        if isinstance(step, Exception):
            with pytest.raises(type(step)):
                await r.send()
        else:
            assert await r.send() is step
        spans = r.spans

    assert len(spans) == 2
    for span in spans:
        assert span.attributes["sluiceway.outcome"] == outcome
        assert span.attributes.get("error.type") == error
        assert span.status.name == status
        assert [each.name for each in span.events] == ["exception"] * event
        assert span.attributes.get("rpc.response.status_code") == ("-32602" if isinstance(step, ErrorReply) else None)


@pytest.mark.parametrize(("late", "outcome", "status"), [(False, "cancelled", "UNSET"), (True, "timeout", "ERROR")])
async def test_a_cancelled_exchange_ends_its_spans(late, outcome, status, rig, autojump_clock):
    """A client that left is no failure; a deadline that passed is."""
    async with rig() as r:
        exchange = r.bench.exchange()
        exchange.link.deadline = trio.current_time() + (1 if late else 60)

        async def during(_exchange):
            await trio.sleep_forever()

        r.during = during
        with trio.move_on_after(1):
            await r.service()(exchange)
        spans = r.spans

    assert [span.attributes["sluiceway.outcome"] for span in spans] == [outcome] * 2
    assert [span.status.name for span in spans] == [status] * 2
    assert [span.end_ns - span.start_ns for span in spans] == [1_000_000_000] * 2
    assert exchange.around_sink is None


async def test_listening_is_no_call(rig, autojump_clock):
    """Its span says so: whoever reads latencies can leave it out."""
    async with rig() as r:
        await r.send(method="subscriptions/listen")
        await r.send(method="notifications/roots/list_changed", params={"_meta": {"traceparent": SAMPLED}})

    assert [span.attributes.get("sluiceway.kind") for span in r.spans] == [None, "listen", None, "notify"]
    assert r.seen[1]["traceparent"] != SAMPLED
    assert TRACE_ID in r.seen[1]["traceparent"]


@pytest.mark.parametrize(
    ("method", "params", "name", "attributes"),
    [
        ("prompts/get", {"name": "hello"}, "prompts/get hello", {"gen_ai.prompt.name": "hello"}),
        (
            "resources/read",
            {"uri": "https://ana:pw@host:1/a?token=s3cret#f"},
            "resources/read",
            {"mcp.resource.uri": "https://host:1/a"},
        ),
        ("resources/read", {"uri": "http://[bad?token=s3cret"}, "resources/read", {"mcp.resource.uri": "http://[bad"}),
        ("tasks/get", {"taskId": "t-1"}, "tasks/get", {}),
        ("tools/list", {}, "tools/list", {}),
        ("x" * 500, {}, "x" * 200 + "...(+300)", {}),
    ],
)
async def test_names_and_subjects(method, params, name, attributes, rig, autojump_clock):
    """Short names, from what clients cannot make up freely; nothing secret of a uri."""
    async with rig() as r:
        await r.send(method=method, params=params)
        server = r.spans[-1]

    assert server.name == name
    subject = ("gen_ai.prompt.name", "mcp.resource.uri", "gen_ai.tool.name")
    assert {key: value for key, value in server.attributes.items() if key in subject} == attributes


async def test_a_legacy_sessions_id_is_not_shown(rig, legacy_exchange, autojump_clock):
    """It is a credential: a digest tells sessions apart as well."""
    async with rig() as r:
        await r.service()(legacy_exchange)
        shown = repr([span.as_json() for span in r.spans])

    assert r.spans[-1].attributes["network.transport"] == "pipe"
    assert len(r.spans[-1].attributes["mcp.session.id"]) == 16
    assert "s3cret-session" not in shown


async def test_stages_have_spans_if_wanted(rig, autojump_clock):
    """The attempts are below the stage that made them, with what it decided."""
    async with rig(stages=True) as r:
        r.steps = [ConnectFailed("nobody there")]
        await r.send(r.service(Again({}, r.bench.context("again"))))
        first, second, stage, server = r.spans

    assert (stage.name, stage.kind.name, stage.parent) == ("again", "INTERNAL", server.context)
    assert stage.attributes["sluiceway.decisions"] == ["repeat connect_failed"]
    assert first.parent == second.parent == stage.context
    assert Trace.sees_stages(Trace.Config(stages=True))
    assert not Trace.sees_stages(Trace.Config())


async def test_a_second_trace_stage_makes_a_span_below_the_first(autojump_clock):
    """In the chain of a sink, say: still one trace, and one span for the attempt."""
    sink = FakeSink.echo()
    async with PipelineHarness.from_data(
        {
            "version": 1,
            "sources": {"test": {"stdio": {}, "pipeline": "main"}},
            "pipelines": {"main": {"chain": [{"trace": {"id": "outer"}}, {"trace": {"id": "inner"}}], "sink": "up"}},
            "sinks": {"up": {"embedded": {}}},
        },
        sinks={"up": sink},
    ) as gateway:
        await gateway.call("tools/call", name="x")
        stages = [host.component for host in gateway.engine._generation.stages.values()]
        outer, inner = [list(stage.recent_spans()) for stage in stages if isinstance(stage, Trace)]

    assert [span.kind.name for span in outer] == ["CLIENT", "SERVER"]
    assert [span.kind.name for span in inner] == ["INTERNAL"]
    assert inner[0].parent == outer[1].context
    assert outer[0].parent == inner[0].context


async def test_code_inside_finds_the_span_by_the_api(rig, autojump_clock):
    """An embedded server's spans become children of the attempt, whoever makes them."""
    async with rig() as r:
        found: list[Any] = []

        async def during(_exchange):
            span = api.get_current_span()
            span.set_attribute("mine", "x" * 300)
            span.set_attribute("my_password", "s3cret")
            found.append(span.get_span_context())
            async with trio.open_nursery() as nursery:
                nursery.start_soon(child)

        async def child():
            found.append(api.get_current_span().get_span_context())

        r.during = during
        await r.send()
        attempt = r.spans[0]

    assert found[0] == found[1]
    assert f"{found[0].span_id:016x}" == attempt.context.span_id
    assert attempt.attributes["my_password"] == "***"
    assert len(attempt.attributes["mine"]) < 300
    assert not api.get_current_span().get_span_context().is_valid


async def test_few_spans_are_kept(rig, autojump_clock):
    """The latest."""
    async with rig(keep=3) as r:
        for n in range(5):
            await r.send(method="tools/call", params={"name": f"t{n}"})

    assert [span.name for span in r.spans] == ["tools/call t3", "tools/call t4", "tools/call t4"]


async def test_it_can_be_cancelled_anywhere():
    """Every span that began ends."""
    async with PipelineHarness.from_stages([(Trace, {"stages": True}), Again]) as gateway:
        await cancel_everywhere(lambda: gateway.call("tools/call", name="x"))
        (stage,) = [each for each in gateway.engine.components() if isinstance(each, Trace)]

    assert all(span.end_ns is not None for span in stage.recent_spans())


@pytest.fixture
def legacy_exchange(bench: Any) -> Exchange:
    """A request in a session over stdio."""
    from sluiceway.pipeline.model.session import Session

    exchange: Exchange = bench.exchange()
    session = Session(id="s3cret-session", source="test", version="2025-06-18")
    exchange.client = replace(exchange.client, session=session, transport="stdio")
    assert isinstance(exchange.request, Request)
    return exchange


def test_it_stands_first_or_beside_others_that_do():
    """`check` says so where a stage in front could refuse; `request_id` cannot, and wants to be first as well."""

    def rules(*chain: str) -> list[str]:
        checked = check_text(
            f"""\
version: 1
sources: {{test: {{stdio: {{}}, pipeline: main}}}}
pipelines: {{main: {{chain: [{", ".join(chain)}], sink: up}}}}
sinks: {{up: {{embedded: {{}}}}}}
"""
        )
        return [problem.rule for problem in checked.problems]

    assert rules("request_id", "trace", "log") == rules("trace", "request_id", "log") == []
    assert rules("timeout", "trace") == ["order/trace-not-first"]
    assert rules("trace", "metrics", "concurrency_limit") == []
    assert rules("trace", "concurrency_limit", "metrics") == ["order/concurrency_limit-before-metrics"]


async def test_a_second_trace_stage_leaves_what_is_not_sampled_to_the_first(rig, autojump_clock):
    """One context goes upstream, and nothing is recorded by either."""
    async with rig(sample=0.0) as r:
        inner = Trace(Trace.Config(propagate=()), r.bench.context("inner"))
        async with inner.open():
            await r.send(r.service(inner))
            recorded = list(inner.recent_spans())

    assert [*recorded, *r.spans] == []
    assert r.seen[0].keys() == {"traceparent"}


async def test_before_its_handshake_a_client_has_no_version(rig, autojump_clock):
    """Then the span has none either."""
    async with rig() as r:
        exchange = r.bench.exchange(method="initialize")
        exchange.client = replace(exchange.client, version=None)
        await r.service()(exchange)

    assert "mcp.protocol.version" not in r.spans[-1].attributes
