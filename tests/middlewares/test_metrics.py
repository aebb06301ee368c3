"""`metrics`: what is counted, under which labels, and how many of them."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from sluiceway.middlewares.metrics import MAX_DECISIONS, MAX_SCHEMES, Metrics
from sluiceway.middlewares.metrics_series import MAX_ERRORS, OTHER
from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.model.figures import Distribution, Figure
from sluiceway.pipeline.model.options import Duration
from sluiceway.pipeline.protocol.errors import CapacityExceeded, DeadlineExceeded, UpstreamClosed
from sluiceway.pipeline.protocol.messages import ErrorReply, Result
from sluiceway.pipeline.protocol.trace_context import TraceContext
from sluiceway.pipeline.testing import FakeSink, PipelineHarness, cancel_everywhere


@pytest.fixture
def metrics(bench: Any) -> Metrics:
    """A stage of the pipeline `main`."""
    return Metrics(Metrics.Config(), bench.context("pipelines.main.metrics"))


async def _send(bench: Any, stage: Metrics, *steps: Any, **exchange: Any) -> None:
    for step in steps:

        async def sink(_exchange, step=step):
            if isinstance(step, BaseException):
                raise step
            return step

        try:
            await bench.service(sink, stage)(bench.exchange(**exchange))
        except Exception as error:
            if error is not step:
                raise


def _counts(stage: Metrics, name: str, *labels: str) -> dict[Any, float]:
    found = [figure for figure in stage.figures() if isinstance(figure, Figure) and figure.name == name]
    return {tuple(figure.labels[label] for label in labels): figure.value for figure in found}


def _histograms(stage: Metrics, name: str) -> list[Distribution]:
    return [figure for figure in stage.figures() if isinstance(figure, Distribution) and figure.name == name]


async def test_every_end_is_counted_by_method_and_outcome(bench, metrics, autojump_clock):
    """A tool that says it failed is an error, whatever the envelope says."""
    ok, failed = Result({"content": []}), Result({"isError": True})
    late, full = DeadlineExceeded("late", timeout_s=1), CapacityExceeded("full")
    await _send(bench, metrics, ok, ok, failed, ErrorReply(-32602, "no"), late, full, UpstreamClosed("x"), ValueError())
    await _send(bench, metrics, ok, failed, method="tools/list")

    assert _counts(metrics, "mcp_requests_total", "method", "outcome", "source", "pipeline") == {
        ("tools/call", "success", "test", "main"): 2,
        ("tools/call", "error", "test", "main"): 4,
        ("tools/call", "timeout", "test", "main"): 1,
        ("tools/call", "refused", "test", "main"): 1,
        ("tools/list", "success", "test", "main"): 2,
    }
    assert _counts(metrics, "mcp_errors_total", "method", "error") == {
        ("tools/call", error): 1
        for error in (
            "tool_error", "-32602", "deadline_exceeded", "capacity_exceeded", "upstream_closed", "ValueError",
        )
    }  # fmt: skip
    assert _counts(metrics, "mcp_tool_executions_total", "tool", "outcome") == {
        ("echo", "success"): 2, ("echo", "error"): 4, ("echo", "timeout"): 1, ("echo", "refused"): 1,
    }  # fmt: skip


async def test_what_is_counted_apart_is_added_up(bench, metrics, autojump_clock):
    """A tool by all sources, a method of a source by all its tools; with their latencies and errors."""
    ok, failed = Result({"content": []}), Result({"isError": True})
    for source, tool, replies in (("one", "a", [ok, failed, ok]), ("two", "a", [ok, ok]), ("one", "b", [ok, failed])):
        for reply in replies:
            exchange = bench.exchange(params={"name": tool})
            exchange.source = source

            async def sink(_exchange, reply=reply):
                await trio.sleep(0.25)
                return reply

            await bench.service(sink, metrics)(exchange)

    assert _counts(metrics, "mcp_requests_total", "source", "outcome") == {
        ("one", "success"): 3, ("one", "error"): 2, ("two", "success"): 2,
    }  # fmt: skip
    assert _counts(metrics, "mcp_tool_executions_total", "tool", "outcome") == {
        ("a", "success"): 4, ("a", "error"): 1, ("b", "success"): 1, ("b", "error"): 1,
    }  # fmt: skip
    assert _counts(metrics, "mcp_errors_total", "source", "error") == {("one", "tool_error"): 2}
    for name, counts in (("mcp_request_duration_seconds", [5, 2]), ("mcp_tool_execution_duration_seconds", [5, 2])):
        found = _histograms(metrics, name)
        assert [sum(each.counts) for each in found] == counts
        assert [each.total for each in found] == [pytest.approx(0.25 * count) for count in counts]


async def test_one_call_is_one_observation_also_when_it_fails(bench, metrics, autojump_clock):
    """With the time it took, under the method's name, and under the names of its own that two methods have."""

    async def sink(_exchange):
        await trio.sleep(0.3)
        raise CapacityExceeded("full")

    for method in ("tools/call", "tools/list", "ping"):
        with pytest.raises(CapacityExceeded):
            await bench.service(sink, metrics)(bench.exchange(method=method))

    for name, count in (
        ("mcp_request_duration_seconds", 3),
        ("mcp_tools_call_duration_seconds", 1),
        ("mcp_tools_list_duration_seconds", 1),
        ("mcp_tool_execution_duration_seconds", 1),
    ):
        found = _histograms(metrics, name)
        assert [(sum(each.counts), each.total) for each in found] == [(1, pytest.approx(0.3))] * count


async def test_latencies_fall_into_the_buckets_that_are_wanted(bench, autojump_clock):
    """A third of a second is more than 100 ms."""
    config = Metrics.Config(buckets=(Duration(0.1), Duration(1.0)))
    stage = Metrics(config, bench.context("sinks.up.metrics"))

    async def sink(_exchange):
        await trio.sleep(0.3)
        return Result()

    await bench.service(sink, stage)(bench.exchange())
    (histogram,) = _histograms(stage, "mcp_request_duration_seconds")

    assert (histogram.bounds, histogram.counts) == ((0.1, 1.0), (0, 1, 0))
    assert histogram.labels == {"method": "tools/call", "source": "test", "pipeline": "sinks.up"}


@pytest.mark.parametrize("buckets", [(1.0, 0.5), (1.0, 1.0), (0.0, 1.0), (-1.0,)])
def test_buckets_rise(buckets):
    """The error says so."""
    with pytest.raises(ValueError, match="rise"):
        Metrics.Config(buckets=buckets)


async def test_listening_is_counted_and_no_latency(bench, metrics, autojump_clock):
    """Nor is a notification."""
    await _send(bench, metrics, Result(), method="subscriptions/listen")
    await _send(bench, metrics, Result(), method="notifications/roots/list_changed")

    assert len(_counts(metrics, "mcp_requests_total", "method")) == 2
    assert _histograms(metrics, "mcp_request_duration_seconds") == []


async def test_what_is_under_way_is_seen_and_never_drifts(bench, metrics, autojump_clock):
    """Also when it is cancelled, or a bug ends it."""
    seen = []

    async def sink(_exchange):
        seen.append(_counts(metrics, "mcp_requests_in_flight", "kind")["call",])
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(bench.service(sink, metrics), bench.exchange())
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    await _send(bench, metrics, ValueError())

    assert seen == [1, 2]
    assert set(_counts(metrics, "mcp_requests_in_flight", "kind").values()) == {0}
    assert _counts(metrics, "mcp_requests_total", "outcome") == {("cancelled",): 2, ("error",): 1}


async def test_cancelling_everywhere_leaves_the_gauge_at_zero():
    """At every point."""
    async with PipelineHarness.from_stages([Metrics], sink=FakeSink.echo()) as gateway:
        await cancel_everywhere(lambda: gateway.call("tools/list"))
        snapshot = gateway.engine.snapshot()

    assert {f.value for f in snapshot if isinstance(f, Figure) and f.name == "mcp_requests_in_flight"} == {0}


async def test_methods_nobody_knows_are_one(bench, metrics, autojump_clock):
    """A client that invents methods makes no series."""
    for n in range(5):
        await _send(bench, metrics, ErrorReply(-32601, "no"), method=f"made/up{n}")

    assert _counts(metrics, "mcp_requests_total", "method", "outcome") == {(OTHER, "error"): 5}


async def test_invented_tools_do_not_take_all_labels(bench, autojump_clock):
    """Half of `max_tools` is for tools that have answered well; a real one is found after any number of lies."""
    stage = Metrics(Metrics.Config(max_tools=4), bench.context("pipelines.main.metrics"))
    for n in range(10):
        await _send(bench, stage, ErrorReply(-32602, "unknown tool"), params={"name": f"lie{n}"})
    for n in range(4):
        await _send(bench, stage, Result(), params={"name": f"real{n}"})
    await _send(bench, stage, ErrorReply(-32602, "no"), params={"name": "real0"})
    await _send(bench, stage, Result(), Result(), params={"name": 7})
    await _send(bench, stage, Result(), params={"name": "x" * 200})

    assert _counts(stage, "mcp_tool_executions_total", "tool", "outcome") == {
        ("lie0", "error"): 1, ("lie1", "error"): 1, (OTHER, "error"): 8,
        ("real0", "success"): 1, ("real1", "success"): 1, (OTHER, "success"): 5, ("real0", "error"): 1,
    }  # fmt: skip


async def test_resources_are_counted_by_scheme(bench, metrics, autojump_clock):
    """Not by uri; and there are not so many schemes."""
    for uri in ("file:///a", "FILE:///b", "note://x", "no scheme", 7):
        await _send(bench, metrics, Result(), method="resources/read", params={"uri": uri})
    few = _counts(metrics, "mcp_resource_accesses_total", "scheme")
    for n in range(50):
        await _send(bench, metrics, Result(), method="resources/read", params={"uri": f"s{n}:x"})

    assert few == {("file",): 2, ("note",): 1, (OTHER,): 2}
    assert len(_counts(metrics, "mcp_resource_accesses_total", "scheme")) == MAX_SCHEMES


async def test_codes_of_errors_are_bounded(bench, metrics, autojump_clock):
    """An upstream may send any number."""
    await _send(bench, metrics, *(ErrorReply(n, "no") for n in range(MAX_ERRORS + 10)))

    errors = _counts(metrics, "mcp_errors_total", "error")
    assert len(errors) == MAX_ERRORS + 1
    assert errors[OTHER,] == 10


async def test_decisions_of_stages_are_counted(bench, metrics, autojump_clock):
    """Those made further in, by stage and word; no cause, which may hold anything."""

    async def sink(exchange):
        exchange.decide("cache", "hit", "some key")
        exchange.decide("limit", "allow")
        return Result()

    exchange = bench.exchange()
    exchange.decide("auth", "allow", "ana")
    await bench.service(sink, metrics)(exchange)
    await bench.service(sink, metrics)(bench.exchange())
    few = _counts(metrics, "stage_decisions_total", "stage", "outcome")

    async def chatty(exchange):
        for n in range(60):
            exchange.decide(exchange.method, f"word{n}")
        return Result()

    for n in range(12):
        await bench.service(chatty, metrics)(bench.exchange(method=f"stage{n}"))

    assert few == {("cache", "hit"): 2, ("limit", "allow"): 2}
    assert len(_counts(metrics, "stage_decisions_total", "stage", "outcome")) == MAX_DECISIONS + 1


@pytest.mark.parametrize(("flags", "found"), [(1, 1), (0, 0)])
async def test_a_sampled_trace_is_the_example_of_its_bucket(flags, found, bench, metrics, autojump_clock):
    """One that is not sampled leads nowhere."""
    exchange = bench.exchange()
    exchange.link.trace = TraceContext("t" * 32, "s" * 16, flags)

    async def sink(_exchange):
        return Result()

    await bench.service(sink, metrics)(exchange)
    (histogram,) = _histograms(metrics, "mcp_request_duration_seconds")

    assert [each.trace_id for each in histogram.exemplars.values()] == ["t" * 32] * found
    assert all(each.at > 1_700_000_000 for each in histogram.exemplars.values())


async def test_an_example_has_the_date_that_the_stage_is_given(bench, autojump_clock):
    """Not the system's: a replay has the date of its tape."""
    zero = trio.current_time()
    metrics = Metrics(Metrics.Config(), Context(id="metrics", now=lambda: 1000.0 + trio.current_time() - zero))
    exchange = bench.exchange()
    exchange.link.trace = TraceContext("t" * 32, "s" * 16, 1)

    async def sink(_exchange):
        await trio.sleep(5)
        return Result()

    await bench.service(sink, metrics)(exchange)
    (histogram,) = _histograms(metrics, "mcp_request_duration_seconds")

    assert [each.at for each in histogram.exemplars.values()] == [1005.0]


async def test_a_body_that_does_not_pass_the_gate_is_no_tool_error(bench, metrics, autojump_clock):
    """Whoever has to read it will refuse it; counting does not."""
    await _send(bench, metrics, Result(raw=b'{"isError":true,"isError":false}'))

    assert _counts(metrics, "mcp_requests_total", "outcome") == {("success",): 1}
