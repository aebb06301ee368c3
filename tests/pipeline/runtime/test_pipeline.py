"""The boundary: every end of an exchange, told apart by its cause, on the mock clock."""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable
from typing import Any
from weakref import ref

import pytest
import trio

from sluiceway.pipeline.model.component import Context, Middleware
from sluiceway.pipeline.model.document import Limits
from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.kept_scope import KeptScope
from sluiceway.pipeline.model.session import Client
from sluiceway.pipeline.protocol.errors import (
    CODE_TABLES,
    ConnectFailed,
    Forbidden,
    GatewayError,
    RateLimited,
    Unauthenticated,
)
from sluiceway.pipeline.protocol.mcp import Era, Kind
from sluiceway.pipeline.protocol.messages import ErrorReply, Notification, Reply, Request, Result
from sluiceway.pipeline.runtime.chain import Stage, compile_chain
from sluiceway.pipeline.runtime.deadlines import Deadlines
from sluiceway.pipeline.runtime.pipeline import Pipeline
from sluiceway.pipeline.runtime.ticket import PipelineTicket

CLIENT = Client(era=Era.MODERN, version="2026-07-28")
Sink = Callable[[Exchange], Awaitable[Reply]]


class Bench:
    """A pipeline around a sink, with its timer running."""

    def __init__(self, nursery: trio.Nursery, sink: Sink, **limits: Any) -> None:
        self.sent: list[Notification] = []
        deadlines = Deadlines()
        nursery.start_soon(deadlines.serve)
        self.pipeline = Pipeline("main", compile_chain([], sink), Limits(**limits), deadlines)

    async def _emit(self, notification: Notification) -> None:
        self.sent.append(notification)

    def ticket(self, method: str = "tools/call", **params: Any) -> PipelineTicket:
        return self.pipeline.handle(Request(1, method, {"name": "x", **params}), client=CLIENT, emit=self._emit)


@pytest.fixture
async def bench(nursery: trio.Nursery) -> Any:
    return lambda sink, **limits: Bench(nursery, sink, **limits)


async def slow(exchange: Exchange) -> Reply:
    """A sink that needs 100 s."""
    await trio.sleep(100)
    return Result({"late": True})


async def progressing(exchange: Exchange) -> Reply:
    """A sink that reports progress every 8 s, for 100 s."""
    for step in range(12):
        await trio.sleep(8)
        await exchange.relay(Notification("notifications/progress", {"progress": step}))
    return Result({"done": True})


async def test_a_reply_comes_back_and_is_counted(bench: Any, autojump_clock: Any) -> None:
    """Nothing is left in flight."""

    async def sink(exchange: Exchange) -> Reply:
        assert bench.pipeline.admission.in_flight == 1
        return Result({"ok": True})

    bench = bench(sink)

    assert Result({"ok": True}) == await bench.ticket().run()
    assert {
        "id": "main", "in_flight": 0, "waiting": 0, "listeners": 0, "served": 1, "refused": 0, "cancelled": 0,
        "average_ms": 0.0,
    } == bench.pipeline.status()  # fmt: skip
    assert 0 == len(bench.pipeline.deadlines)


async def test_the_four_statistics_of_a_dispatcher_are_right(
    bench: Any, autojump_clock: Any, nursery: trio.Nursery
) -> None:
    """Who is inside, who waits, how many have ended, and how long they took on average, waiting included (M09)."""

    async def sink(exchange: Exchange) -> Reply:
        await trio.sleep(exchange.request.params["seconds"])
        return Result({})

    bench = bench(sink, max_in_flight=2, max_waiting=2, wait_at_most=60.0)
    for seconds in (4, 4, 4):
        nursery.start_soon(bench.ticket(seconds=seconds).run)
    await trio.sleep(1)
    during = bench.pipeline.status()
    await trio.sleep(20)
    after = bench.pipeline.status()

    assert [during[name] for name in ("in_flight", "waiting", "served", "average_ms")] == [2, 1, 0, 0.0]
    assert [after[name] for name in ("in_flight", "waiting", "served")] == [0, 0, 3]
    assert after["average_ms"] == pytest.approx((4 + 4 + 8) / 3 * 1000, abs=0.01)


async def test_the_deadline_cancels_and_answers_with_the_time_given(bench: Any, autojump_clock: Any) -> None:
    """Exactly, in milliseconds, with HTTP 504."""
    reply = await bench(slow, timeout=1.5).ticket().run()

    assert trio.current_time() == pytest.approx(1.5, abs=0.011)
    assert ErrorReply(50400, "no answer within 1.5 s; a longer timeout may help", reply.data) == reply
    assert {"origin": "gateway", "reason": "deadline_exceeded", "timeout_ms": 1500} == reply.data
    assert 504 == reply.http_status


async def test_the_client_may_ask_for_less_time_but_not_for_more(bench: Any, autojump_clock: Any) -> None:
    """The nearest deadline wins."""
    bench = bench(slow, timeout=30)
    less = await bench.ticket(_meta={"io.sluiceway/timeoutMs": 10_000}).run()
    more = await bench.ticket(_meta={"io.sluiceway/timeoutMs": 90_000}).run()

    assert [10_000, 30_000] == [less.data["timeout_ms"], more.data["timeout_ms"]]


async def test_progress_resets_the_timeout(bench: Any, autojump_clock: Any) -> None:
    """So an exchange that works outlives its timeout."""
    bench = bench(progressing, timeout=10, timeout_max=200)

    assert Result({"done": True}) == await bench.ticket().run()
    assert 12 == len(bench.sent)


async def test_progress_never_extends_beyond_the_maximum(bench: Any, autojump_clock: Any) -> None:
    """A maximum always applies (MCP, basic/lifecycle, timeouts)."""
    reply = await bench(progressing, timeout=10, timeout_max=30).ticket().run()

    assert "deadline_exceeded" == reply.data["reason"]
    assert trio.current_time() == pytest.approx(30, abs=0.011)


async def test_progress_may_be_told_not_to_extend(bench: Any, autojump_clock: Any) -> None:
    """With timeout_on_progress: keep."""
    reply = await bench(progressing, timeout=10, timeout_on_progress="keep").ticket().run()

    assert "deadline_exceeded" == reply.data["reason"]
    assert trio.current_time() == pytest.approx(10, abs=0.011)


async def test_a_client_that_cancels_gets_no_answer(bench: Any, autojump_clock: Any, nursery: trio.Nursery) -> None:
    """And the sink sees the cancel."""
    seen = []

    async def sink(exchange: Exchange) -> Reply:
        try:
            await trio.sleep_forever()
        finally:
            seen.append(trio.current_time())
        raise AssertionError

    bench = bench(sink)
    ticket = bench.ticket()

    async def cancel() -> None:
        await trio.sleep(2)
        ticket.cancel()
        ticket.cancel("shutdown")

    nursery.start_soon(cancel)

    assert await ticket.run() is None
    assert [2.0] == seen
    assert 1 == bench.pipeline.cancelled


async def test_a_cancel_before_the_run_keeps_the_sink_from_being_called(bench: Any, autojump_clock: Any) -> None:
    """Up to its first checkpoint."""

    async def sink(exchange: Exchange) -> Reply:
        await trio.lowlevel.checkpoint()
        pytest.fail("must not get here")

    ticket = bench(sink).ticket()
    ticket.cancel()

    assert await ticket.run() is None


async def test_an_error_while_unwinding_does_not_hide_the_cause(bench: Any, autojump_clock: Any) -> None:
    """A sink that fails because it was cancelled has still run out of time."""

    async def sink(exchange: Exchange) -> Reply:
        try:
            await trio.sleep_forever()
        finally:
            raise ConnectFailed("gone")

    reply = await bench(sink, timeout=1).ticket().run()

    assert "deadline_exceeded" == reply.data["reason"]


async def test_shutdown_answers_with_draining(bench: Any, autojump_clock: Any, nursery: trio.Nursery) -> None:
    """What is still running is told to try elsewhere."""
    bench = bench(slow)
    replies = []

    async def run() -> None:
        replies.append(await bench.ticket().run())

    nursery.start_soon(run)
    await trio.sleep(1)
    cancelled = await bench.pipeline.lane.finish(2, 1)

    assert 1 == cancelled
    assert ["draining"] == [reply.data["reason"] for reply in replies]


async def test_a_draining_pipeline_refuses(bench: Any, autojump_clock: Any) -> None:
    """New work gets 503."""
    bench = bench(slow)
    bench.pipeline.draining = True
    reply = await bench.ticket().run()

    assert (50300, 503) == (reply.code, reply.http_status)


async def test_a_gateway_error_becomes_its_error_and_headers(bench: Any, autojump_clock: Any) -> None:
    """Retry-After is rounded up to whole seconds; the exact value is in the data."""

    async def sink(exchange: Exchange) -> Reply:
        raise RateLimited("too many", retry_after_s=1.2)

    ticket = bench(sink).ticket()
    reply = await ticket.run()

    assert (42900, 1200, 429) == (reply.code, reply.data["retry_after_ms"], reply.http_status)
    assert {"retry-after": "2"} == ticket.exchange.reply_headers


async def test_a_challenge_becomes_www_authenticate(bench: Any, autojump_clock: Any) -> None:
    """RFC 9110 section 11.6.1."""

    async def sink(exchange: Exchange) -> Reply:
        raise Unauthenticated("who are you?", challenge='Bearer realm="x"')

    ticket = bench(sink).ticket()
    await ticket.run()

    assert {"www-authenticate": 'Bearer realm="x"'} == ticket.exchange.reply_headers


async def test_a_refusal_that_another_token_would_lift_says_so_in_www_authenticate(
    bench: Any, autojump_clock: Any
) -> None:
    """RFC 6750 section 3.1: 403 with `insufficient_scope`; MCP 2026-07-28, authorization, step-up."""
    challenge = 'Bearer error="insufficient_scope", scope="files:write"'

    async def sink(exchange: Exchange) -> Reply:
        raise Forbidden("not with this token", challenge=challenge, scopes=["files:write"])

    ticket = bench(sink).ticket()
    reply = await ticket.run()

    assert {"www-authenticate": challenge} == ticket.exchange.reply_headers
    assert (40300, 403, {"origin": "gateway", "reason": "forbidden"}) == (reply.code, reply.http_status, reply.data)


async def test_a_bug_becomes_an_incident_that_shows_nothing(bench: Any, autojump_clock: Any, capsys: Any) -> None:
    """The client gets an id, the log gets the traceback."""

    async def sink(exchange: Exchange) -> Reply:
        raise KeyError("secret detail")

    reply = await bench(sink).ticket().run()

    assert (-32603, 500) == (reply.code, reply.http_status)
    assert "secret detail" not in reply.message
    assert reply.data["incident"] in reply.message


async def test_a_group_of_one_gateway_error_is_that_error(bench: Any, autojump_clock: Any) -> None:
    """Stages may use nurseries."""

    async def sink(exchange: Exchange) -> Reply:
        async with trio.open_nursery():
            raise RateLimited("too many")

    reply = await bench(sink).ticket().run()

    assert "rate_limited" == reply.data["reason"]


@pytest.mark.parametrize(
    ("method", "params", "missing"),
    [("tools/call", {"name": None}, "name"), ("resources/read", {}, "uri"), ("tasks/get", {"taskId": 5}, "taskId")],
)
async def test_a_request_without_its_target_is_refused(
    bench: Any, autojump_clock: Any, method: str, params: Any, missing: str
) -> None:
    """-32602, before any stage sees it."""
    reply = await bench(slow).ticket(method, **params).run()

    assert ErrorReply(-32602, f"{method} needs params.{missing}, a string", reply.data) == reply


async def test_a_notification_has_no_reply_even_when_it_fails(bench: Any, autojump_clock: Any) -> None:
    """JSON-RPC 2.0 section 4.1."""

    async def sink(exchange: Exchange) -> Reply:
        raise RateLimited("too many")

    bench = bench(sink)
    ticket = bench.pipeline.handle(Notification("notifications/initialized"), client=CLIENT, emit=bench._emit)

    assert await ticket.run() is None
    assert 1 == bench.pipeline.refused


async def test_listeners_have_no_deadline(bench: Any, autojump_clock: Any) -> None:
    """They end when the gateway drains."""

    async def sink(exchange: Exchange) -> Reply:
        await exchange.draining.wait()
        return Result({"resultType": "complete"})

    bench = bench(sink, timeout=1)
    replies = []
    async with trio.open_nursery() as nursery:

        async def run() -> None:
            replies.append(await bench.ticket("subscriptions/listen").run())

        nursery.start_soon(run)
        await trio.sleep(1000)
        assert 1 == bench.pipeline.listeners.in_flight
        assert 0 == await bench.pipeline.lane.finish(5, 1)

    assert [Result({"resultType": "complete"})] == replies
    assert 1000.0 == trio.current_time()


async def test_a_full_pipeline_refuses_with_503(bench: Any, autojump_clock: Any, nursery: trio.Nursery) -> None:
    """And serves again once there is room."""
    bench = bench(slow, max_in_flight=1, timeout=5)
    nursery.start_soon(bench.ticket().run)
    await trio.sleep(1)
    refused = await bench.ticket().run()
    await trio.sleep(10)

    assert (50301, 503) == (refused.code, refused.http_status)
    assert 0 == bench.pipeline.admission.in_flight


async def test_the_code_table_is_data(bench: Any, autojump_clock: Any) -> None:
    """`error_codes: legacy` keeps the numbers older gateways chose."""
    bench = bench(slow, timeout=1)
    bench.pipeline.codes = CODE_TABLES["legacy"]
    reply = await bench.ticket().run()

    assert -32001 == reply.code


async def test_a_tool_that_exits_ends_its_exchange_and_not_the_gateway(bench: Any, autojump_clock: Any) -> None:
    """Command line functions call sys.exit, and tools call command line functions."""

    async def sink(exchange: Exchange) -> Reply:
        raise SystemExit(7)

    reply = await bench(sink).ticket().run()

    assert isinstance(reply, ErrorReply)
    assert reply.code == -32603


async def test_a_stage_without_its_return_is_an_incident_that_says_so(
    bench: Any, autojump_clock: Any, capsys: Any
) -> None:
    """The mistake everybody makes once."""

    async def sink(exchange: Exchange) -> Any:
        return None

    reply = await bench(sink).ticket().run()

    assert isinstance(reply, ErrorReply)
    assert isinstance(reply.data, dict)
    assert str(reply.data["incident"]) in reply.message
    assert "the chain returned None, not a reply; does a stage lack its return?" in capsys.readouterr().out


async def test_exchanges_of_one_task_may_share_a_scope(bench: Any, autojump_clock: Any, nursery: trio.Nursery) -> None:
    """One that is cancelled, or whose time passes, ends alone; a ticket that has ended cancels nobody."""
    bench, replies, tickets = bench(slow, timeout=150), [], []

    async def task() -> None:
        kept = KeptScope()
        for timeout in (150_000, 1_000, 150_000, 150_000):
            tickets.append(bench.ticket(_meta={"io.sluiceway/timeoutMs": timeout}))
            replies.append(await tickets[-1].run(kept))
        kept.close()

    nursery.start_soon(task)
    await trio.sleep(50)
    tickets[0].cancel()
    await trio.sleep(20)
    tickets[0].cancel()
    tickets[1].cancel()
    await trio.sleep(300)

    assert [None, 50400, {"late": True}, {"late": True}] == [
        reply.code if isinstance(reply, ErrorReply) else reply and reply.value for reply in replies
    ]
    assert (2, 1, 1) == (bench.pipeline.served, bench.pipeline.refused, bench.pipeline.cancelled)


async def test_a_ticket_that_has_ended_cancels_nobody(bench: Any, autojump_clock: Any, nursery: trio.Nursery) -> None:
    """Its source may hear late that its client is gone, while the task serves the next exchange in the same scope."""
    bench, replies, tickets = bench(slow, timeout=150), [], []

    async def task() -> None:
        kept = KeptScope()
        for _ in range(2):
            tickets.append(bench.ticket())
            replies.append(await tickets[-1].run(kept))
        kept.close()

    nursery.start_soon(task)
    await trio.sleep(150)
    tickets[0].cancel()
    await trio.sleep(100)

    assert [Result({"late": True}), Result({"late": True})] == replies


async def test_progress_gives_as_much_time_as_the_client_asked_for(bench: Any, autojump_clock: Any) -> None:
    """Not as much as the pipeline would."""

    async def sink(exchange: Exchange) -> Reply:
        await trio.sleep(8)
        await exchange.relay(Notification("notifications/progress", {"progress": 1}))
        await trio.sleep_forever()
        raise AssertionError

    bench = bench(sink, timeout=60)
    reply = await bench.ticket(_meta={"io.sluiceway/timeoutMs": 10_000}).run()

    assert (50400, 18_000) == (reply.code, reply.data["timeout_ms"])
    assert trio.current_time() == pytest.approx(18, abs=0.011)


async def test_a_deadline_of_its_own_goes_with_its_exchange(bench: Any, autojump_clock: Any) -> None:
    """Nothing is left among the deadlines, however the exchange came by its own."""
    bench = bench(progressing, timeout=20)

    assert Result({"done": True}) == await bench.ticket().run()
    assert Result({"done": True}) == await bench.ticket(_meta={"io.sluiceway/timeoutMs": 10_000}).run()
    assert (0, 0) == (len(bench.pipeline.deadlines), len(bench.pipeline.lane.tickets))


async def test_who_left_in_time_gets_nothing_even_if_a_reply_came(bench: Any, autojump_clock: Any) -> None:
    """What was not cancelled in time is counted as cancelled; nobody is there to be answered."""

    async def sink(exchange: Exchange) -> Reply:
        ticket.cancel()
        return Result({})

    bench = bench(sink)
    ticket = bench.ticket()

    assert await ticket.run() is None
    assert (0, 1) == (bench.pipeline.served, bench.pipeline.cancelled)


async def test_a_notification_is_answered_with_nothing(bench: Any, autojump_clock: Any) -> None:
    """Sinks return that it was taken; the client hears nothing (JSON-RPC 2.0 section 4.1)."""
    seen: list[Kind] = []

    async def sink(exchange: Exchange) -> Reply:
        seen.append(exchange.kind)
        return Result()

    bench = bench(sink)
    told = bench.pipeline.handle(Notification("notifications/initialized"), client=CLIENT, emit=bench._emit)
    asked = bench.pipeline.handle(Request(1, "notifications/initialized"), client=CLIENT, emit=bench._emit)

    assert [None, Result()] == [await told.run(), await asked.run()]
    assert [Kind.NOTIFY, Kind.CALL] == seen
    assert 2 == bench.pipeline.served


async def test_stages_are_told_of_who_did_not_get_in_only(bench: Any, autojump_clock: Any) -> None:
    """Those it passed have seen for themselves how it ended."""
    told: list[GatewayError | None] = []

    class Watch(Middleware):
        """Hears who was turned away."""

        def turned_away(self, exchange: Exchange, error: GatewayError | None) -> None:
            told.append(error)

    async def sink(exchange: Exchange) -> Reply:
        raise RateLimited("too many")

    bench = bench(sink)
    bench.pipeline.swap(compile_chain([Stage("w", Watch(None, Context(id="w")))], sink))
    inside = await bench.ticket().run()
    bench.pipeline.draining = True
    outside = await bench.ticket().run()

    assert ["rate_limited", "draining"] == [inside.data["reason"], outside.data["reason"]]
    assert ["draining"] == [error and error.reason for error in told]


async def test_a_lane_waits_for_those_whose_time_has_passed_and_cancels_listeners(
    bench: Any, autojump_clock: Any, nursery: trio.Nursery
) -> None:
    """It is idle once all are out: one that takes its time to end, and one that listens whatever it is told."""

    async def sink(exchange: Exchange) -> Reply:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(10)
        raise AssertionError

    bench = bench(sink, timeout=5)
    nursery.start_soon(bench.ticket().run)
    nursery.start_soon(bench.ticket("subscriptions/listen").run)
    await trio.sleep(6)

    assert 2 == len(bench.pipeline.lane.tickets)
    assert 1 == await bench.pipeline.lane.finish(drain_timeout_s=12, grace_s=20)
    assert trio.current_time() == pytest.approx(6 + 12 + 10, abs=0.02)


async def test_a_refused_exchange_leaves_no_cycle(bench: Any, autojump_clock: Any) -> None:
    """The error's traceback holds the frames that hold the error: it is let go of, so that all goes at once."""

    async def sink(exchange: Exchange) -> Reply:
        raise RateLimited("too many")

    await check_it_goes_at_once(bench(sink).ticket())


@pytest.mark.parametrize("asked", [{}, {"io.sluiceway/timeoutMs": 9_000}])
async def test_a_deadline_leaves_no_cycle(asked: dict[str, int], bench: Any, autojump_clock: Any) -> None:
    """Nor does one of its own, given by the client or moved by progress, whose entry leads back to the ticket."""
    await check_it_goes_at_once(bench(progressing, timeout=10, timeout_on_progress="reset").ticket(_meta=asked))


async def check_it_goes_at_once(ticket: PipelineTicket) -> None:
    """When it has run, nothing is left of an exchange for the collector to find."""
    link = ref(ticket.exchange.link)
    gc.disable()
    try:
        await ticket.run()
        del ticket

        assert link() is None
    finally:
        gc.enable()
