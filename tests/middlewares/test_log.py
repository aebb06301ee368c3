"""The lines of one request: what they say, at which level, and what they never say."""

from __future__ import annotations

import pytest
import trio
from msgspec.structs import replace
from structlog.testing import capture_logs

from sluiceway.middlewares.log import MAX_DECISIONS, Log
from sluiceway.middlewares.request_id import RequestId
from sluiceway.middlewares.trace import Trace
from sluiceway.pipeline.model.options import Ratio
from sluiceway.pipeline.model.session import Caller
from sluiceway.pipeline.protocol.errors import CapacityExceeded, InvalidParams
from sluiceway.pipeline.protocol.messages import ErrorReply, Notification, Result
from sluiceway.pipeline.protocol.trace_context import TraceContext
from sluiceway.pipeline.runtime.chain import count_attempts
from sluiceway.pipeline.testing import PipelineHarness


def _stage(bench, *, seed=0, **options):
    return Log(Log.Config(**options), bench.context("log", seed=seed))


def _raising(error):
    async def sink(exchange):
        raise error

    return sink


async def test_start_and_completion_share_one_id(bench, autojump_clock):
    """Two lines tell the whole story of a call that went well, and share its correlation id."""

    async def sink(exchange):
        await exchange.relay(Notification("notifications/progress"))
        await trio.sleep(0.25)
        return Result({"a": 1})

    exchange = bench.exchange(caller=Caller("ana", tenant="acme"))
    await bench.service(sink, RequestId(RequestId.Config(), bench.context()), _stage(bench))(exchange)

    common = {
        "correlation_id": "id-1",
        "method": "tools/call",
        "target": "echo",
        "caller": "ana",
        "tenant": "acme",
        "era": "modern",
        "source": "test",
        "address": "192.0.2.1",
        "log_level": "info",
    }
    started, completed = bench.lines()
    assert started == {**common, "event": "request started", "params": {"name": "echo", "arguments": {}}}
    assert completed == {
        **common,
        "event": "request completed",
        "status": "ok",
        "duration_ms": 250.0,
        "response_size": len(b'{"a":1}'),
        "relayed": 1,
        "attempts": 0,
        "outcome": "success",
    }


async def test_the_last_line_says_what_became_of_it(bench, autojump_clock):
    """Which stages further in decided what, and how often an upstream was asked; where to find its trace."""

    async def sink(exchange):
        exchange.decide("cache", "miss", "a cause that may hold anything")
        exchange.decide("retry", "repeat")
        return Result({"isError": True})

    exchange = bench.exchange()
    exchange.decide("auth", "allow")
    exchange.link.trace = TraceContext("t" * 32, "s" * 16, 1)
    await bench.service(count_attempts("up", sink), _stage(bench))(exchange)

    started, ended = bench.lines()
    assert started["trace_id"] == ended["trace_id"] == "t" * 32
    assert (ended["event"], ended["outcome"], ended["attempts"]) == ("request completed", "error", 1)
    assert ended["decisions"] == ["cache:miss", "retry:repeat"]
    assert "decisions" not in started


async def test_a_line_shows_so_many_decisions(bench, autojump_clock):
    """A chain that decides all the time makes no endless line."""

    async def sink(exchange):
        for n in range(60):
            exchange.decide("stage", f"word{n}")
        return Result()

    await bench.service(sink, _stage(bench))(bench.exchange())

    assert bench.lines()[-1]["decisions"] == [f"stage:word{n}" for n in range(MAX_DECISIONS)]


async def test_one_id_is_in_the_response_the_log_and_the_span(autojump_clock):
    """`x-request-id`, as the client sent it; and the trace leads from the log to the spans."""
    chain = [(Trace, {}), (RequestId, {}), (Log, {})]
    async with PipelineHarness.from_stages(chain) as gateway:
        gateway.client = replace(gateway.client, headers={"x-request-id": "abc-1"})
        with capture_logs() as logs:
            call = gateway.start("tools/list")
            await call.wait()
        (trace, *_) = [each for each in gateway.engine.components() if isinstance(each, Trace)]
        *_, server = trace.recent_spans()

    lines = [line for line in logs if line["event"].startswith("request ")]
    assert {line["correlation_id"] for line in lines} == {"abc-1"}
    assert {line["trace_id"] for line in lines} == {server.context.trace_id}
    assert server.attributes["request_id"] == "abc-1"
    assert call.exchange.reply_headers["x-request-id"] == "abc-1"


async def test_a_refusal_writes_one_error_line(bench, autojump_clock):
    """A failing call writes one error line with the same id, its duration, the error text and its type."""

    async def refusing(exchange):
        await trio.sleep(2)
        raise CapacityExceeded("no place")

    service = bench.service(refusing, RequestId(RequestId.Config(), bench.context()), _stage(bench, start=False))
    with pytest.raises(CapacityExceeded):
        await service(bench.exchange())

    (line,) = bench.lines()
    assert line["event"] == "request failed"
    assert line["log_level"] == "error"
    assert line["correlation_id"] == "id-1"
    assert line["duration_ms"] == 2000.0
    assert (line["error"], line["error_type"]) == ("no place", "CapacityExceeded")
    assert (line["status"], line["reason"], line["http_status"]) == ("error", "capacity_exceeded", 503)


async def test_a_clients_fault_is_a_warning(bench):
    """What the client did wrong does not wake anybody up."""
    with pytest.raises(InvalidParams):
        await bench.service(_raising(InvalidParams("name is missing")), _stage(bench, start=False))(bench.exchange())

    assert [(line["event"], line["log_level"]) for line in bench.lines()] == [("request failed", "warning")]


async def test_an_upstreams_error_is_a_warning_with_its_code(bench):
    """An error that the upstream answered is data: the line shows its code and text."""

    async def sink(exchange):
        return ErrorReply(-32602, "unknown tool")

    reply = await bench.service(sink, _stage(bench, start=False))(bench.exchange())

    (line,) = bench.lines()
    assert reply == ErrorReply(-32602, "unknown tool")
    assert (line["event"], line["log_level"]) == ("request failed", "warning")
    assert (line["error"], line["error_type"], line["code"]) == ("unknown tool", "ErrorReply", -32602)


async def test_a_bug_is_an_error_and_goes_on(bench):
    """Any other exception is logged by type and raised unchanged."""
    with pytest.raises(ZeroDivisionError):
        await bench.service(_raising(ZeroDivisionError("oops")), _stage(bench, start=False))(bench.exchange())

    (line,) = bench.lines()
    assert (line["log_level"], line["error_type"], line["error"]) == ("error", "ZeroDivisionError", "oops")


@pytest.mark.parametrize(("given", "late"), [(10, False), (1, True)])
async def test_a_cancelled_request_has_a_line_of_its_own(bench, autojump_clock, given, late):
    """A cancel is no failure; the line says whether the deadline had passed."""
    exchange = bench.exchange()
    exchange.link.deadline = trio.current_time() + given

    async def slow(exchange):
        await trio.sleep_forever()

    with trio.move_on_after(1):
        await bench.service(slow, _stage(bench, start=False))(exchange)

    (line,) = bench.lines()
    assert (line["event"], line["log_level"], line["status"]) == ("request cancelled", "info", "cancelled")
    assert line["deadline_passed"] is late


async def test_a_cancel_inside_a_group_is_a_cancel(bench):
    """A stage whose nursery turns cancellations into a group does not make a failure of them."""

    async def grouping(exchange):
        try:
            await trio.sleep_forever()
        finally:
            cancelled = [trio.Cancelled._create(source="explicit") for _ in range(2)]
            raise BaseExceptionGroup("two tasks", cancelled)

    with trio.move_on_after(0):
        await bench.service(grouping, _stage(bench, start=False))(bench.exchange())

    assert bench.events() == ["request cancelled"]


async def test_the_level_option_moves_all_but_failures(bench, answer):
    """Start and completion are written at `level`."""
    await bench.service(answer, _stage(bench))(bench.exchange())
    await bench.service(answer, _stage(bench, level="debug"))(bench.exchange())

    assert [line["log_level"] for line in bench.lines()] == ["info", "info", "debug", "debug"]


async def test_nothing_is_computed_for_a_suppressed_line(bench):
    """Where the level is off, neither params nor the reply's size are looked at."""

    class Untouchable(Result):
        @property
        def body(self):
            raise AssertionError("the reply's body was read for a line that is not written")

    reply = object.__new__(Untouchable)

    async def sink(exchange):
        return reply

    stage = Log(Log.Config(level="info"), bench.context("log", level=30))
    stage._redaction = None  # type: ignore[assignment]  # calling it would raise

    assert await bench.service(sink, stage)(bench.exchange()) is reply
    assert bench.lines() == []


async def test_failures_below_the_log_level_are_not_written(bench):
    """A log that only takes errors gets no warnings."""
    stage = Log(Log.Config(), bench.context("log", level=40))
    with pytest.raises(InvalidParams):
        await bench.service(_raising(InvalidParams("bad")), stage)(bench.exchange())

    assert bench.lines() == []


async def test_params_none_leaves_them_out(bench, answer):
    """`params: none` writes no params at all."""
    await bench.service(answer, _stage(bench, params="none"))(bench.exchange())

    assert "params" not in bench.lines()[0]


async def test_params_digest_is_a_fingerprint_of_what_was_asked(bench, answer):
    """Equal arguments have equal digests, whatever the order of keys and whatever `_meta` says."""
    service = bench.service(answer, _stage(bench, params="digest"))
    for params in (
        {"name": "echo", "arguments": {"a": 1, "b": 2}, "_meta": {"progressToken": 1}},
        {"arguments": {"b": 2, "a": 1}, "name": "echo"},
        {"arguments": {"b": 2, "a": 2}, "name": "echo"},
    ):
        await service(bench.exchange(params=params))

    first, second, third = (line["params"] for line in bench.lines() if line["event"] == "request started")
    assert first == second
    assert first != third
    assert first.startswith("sha256:")


async def test_params_redacted_masks_secrets_and_nothing_else(bench, answer):
    """Values under keys that sound secret are masked; `_meta` is not shown."""
    params = {"name": "login", "arguments": {"user": "ana", "apiKey": "canary"}, "_meta": {"x": 1}}
    await bench.service(answer, _stage(bench))(bench.exchange(params=params))

    assert bench.lines()[0]["params"] == {"name": "login", "arguments": {"user": "ana", "apiKey": "***"}}
    assert "canary" not in str(bench.lines())


async def test_redact_masks_further_keys(bench, answer):
    """A list of one's own comes on top of what is always masked."""
    params = {"name": "x", "arguments": {"to_IBAN": "DE02", "apiKey": "k", "cents": 1}}
    await bench.service(answer, _stage(bench, redact=("*iban",)))(bench.exchange(params=params))

    assert bench.lines()[0]["params"]["arguments"] == {"to_IBAN": "***", "apiKey": "***", "cents": 1}


async def test_start_false_writes_completions_only(bench, answer):
    """With `start: false` there is one line per request, as in an access log."""
    await bench.service(answer, _stage(bench, start=False))(bench.exchange())

    assert bench.events() == ["request completed"]


async def test_sample_thins_successes_but_no_failures(bench, answer):
    """A fifth of the good calls is written, by the injected random source, start and end alike; failures all are."""
    stage = _stage(bench, seed=7, sample=Ratio(0.2))
    for _ in range(100):
        await bench.service(answer, stage)(bench.exchange())
    good = bench.events()
    bench.logged.entries.clear()
    for _ in range(20):
        with pytest.raises(CapacityExceeded):
            await bench.service(_raising(CapacityExceeded("no")), stage)(bench.exchange())

    assert good.count("request started") == good.count("request completed")
    assert 10 <= good.count("request completed") <= 30
    assert bench.events().count("request failed") == 20


async def test_an_unsampled_cancel_is_not_written(bench):
    """A cancel is thinned like a success."""

    async def slow(exchange):
        await trio.sleep_forever()

    with trio.move_on_after(0):
        await bench.service(slow, _stage(bench, sample=Ratio(0)))(bench.exchange())

    assert bench.lines() == []


async def test_long_names_from_outside_are_cut(bench, answer):
    """No client can blow up a log line with a long method or tool name."""
    await bench.service(answer, _stage(bench))(bench.exchange(params={"name": "x" * 1000}))

    assert bench.lines()[0]["target"] == "x" * 200 + "...(+800)"


async def test_a_later_attempt_says_so(bench, answer):
    """Inside a retry the lines count the attempts."""
    await bench.service(answer, _stage(bench, start=False))(bench.exchange().fork())

    assert bench.lines()[0]["attempt"] == 2


async def test_a_caller_that_was_authenticated_further_inside_is_named(bench):
    """The line about the end knows who it was, even if the stage that found out stands behind a rewriting one."""

    async def authenticating(exchange):
        exchange.with_request(exchange.request).authenticate(Caller("ana"))
        return Result()

    await bench.service(authenticating, _stage(bench))(bench.exchange())

    assert [line["caller"] for line in bench.lines()] == ["anonymous", "ana"]
