"""Fake sinks and sources do what they are told and remember what reached them."""

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from sluiceway.pipeline.protocol.errors import CapacityExceeded, ConnectFailed, UpstreamClosed
from sluiceway.pipeline.protocol.messages import ErrorReply, Notification, Request, Result
from sluiceway.pipeline.testing.exchanges import MODERN_CLIENT, memory_exchange
from sluiceway.pipeline.testing.fakes import FakeSink, FakeSource

PROGRESS = Notification("notifications/progress", {"progress": 1})


async def test_echo_answers_with_what_arrived():
    """The reply repeats method and params, and the sink remembers the request."""
    sink = FakeSink.echo()

    reply = await sink(memory_exchange("tools/list", {"cursor": "c"}))

    assert reply == Result({"method": "tools/list", "params": {"cursor": "c"}})
    assert sink.requests == [Request(1, "tools/list", {"cursor": "c"})]


async def test_a_script_is_played_step_by_step():
    """A step is a reply, a mapping, an exception, or notifications before one of them."""
    interim = []
    error = ErrorReply(-1, "said so")
    sink = FakeSink.script([{"a": 1}, error, UpstreamClosed("gone"), [PROGRESS, PROGRESS, Result({"b": 2})]])

    assert await sink(memory_exchange()) == Result({"a": 1})
    assert await sink(memory_exchange()) == error

    with pytest.raises(UpstreamClosed, match="gone"):
        await sink(memory_exchange())

    assert await sink(memory_exchange(interim=interim)) == Result({"b": 2})
    assert interim == [PROGRESS, PROGRESS]


async def test_a_request_after_the_end_of_a_script_is_a_problem():
    """It fails there and then, and is remembered for the harness."""
    sink = FakeSink.script([{}])
    await sink(memory_exchange())

    with pytest.raises(AssertionError, match="the script has 1 steps, and there was one more request: ping"):
        await sink(memory_exchange("ping"))

    assert sink.problems == ["the script has 1 steps, and there was one more request: ping"]


@pytest.mark.parametrize(
    ("step", "message"),
    [([{}, Result()], "only the last part"), ([PROGRESS], "must end with an answer")],
)
async def test_a_step_that_makes_no_sense_is_a_type_error(step, message):
    """Notifications come first and an answer comes last."""
    sink = FakeSink.script([step])

    with pytest.raises(TypeError, match=message):
        await sink(memory_exchange())


async def test_fail_fails_as_often_as_told_and_then_works():
    """After that it echoes, or does what `then` says."""
    sink = FakeSink.fail(times=2, then={"up": True})

    for _ in range(2):
        with pytest.raises(ConnectFailed):
            await sink(memory_exchange())

    assert await sink(memory_exchange()) == Result({"up": True})
    assert await sink(memory_exchange()) == Result({"up": True})


async def test_fail_takes_another_error_and_another_fake():
    """The error is raised as it is; `then` may be a fake of its own."""
    sink = FakeSink.fail(error=UpstreamClosed("mine"), then=FakeSink.script([{"n": 1}, {"n": 2}]))

    with pytest.raises(UpstreamClosed, match="mine"):
        await sink(memory_exchange())

    assert [await sink(memory_exchange()) for _ in range(2)] == [Result({"n": 1}), Result({"n": 2})]


async def test_slow_takes_its_time_on_the_trio_clock(autojump_clock):
    """The seconds are virtual on a mock clock."""
    reply = await FakeSink.slow(5)(memory_exchange("tools/list"))

    assert trio.current_time() == 5
    assert reply == Result({"method": "tools/list", "params": {}})


async def test_a_held_request_is_answered_by_the_test(nursery):
    """The test takes the request, relays, replies; the exchange sees it in that order."""
    sink, interim, replies = FakeSink(), [], []

    async def run():
        replies.append(await sink(memory_exchange("tools/call", {"name": "t"}, interim=interim)))

    nursery.start_soon(run)
    request = await sink.next()

    assert (request.method, request.params) == ("tools/call", {"name": "t"})

    request.relay(PROGRESS)
    request.relay("notifications/message", {"level": "info"})
    await request.reply({"done": True})

    assert interim == [PROGRESS, Notification("notifications/message", {"level": "info"})]
    assert replies == [Result({"done": True})]
    assert not request.cancelled.is_set()


async def test_a_held_request_can_get_an_empty_reply_or_fail(nursery):
    """`reply()` is an empty result; `fail` raises in the sink."""
    sink, outcomes = FakeSink(), []

    async def run():
        try:
            outcomes.append(await sink(memory_exchange()))
        except UpstreamClosed as error:
            outcomes.append(error.message)

    nursery.start_soon(run)
    await (await sink.next()).reply()
    nursery.start_soon(run)
    await (await sink.next()).fail(UpstreamClosed("broke"))

    assert outcomes == [Result(), "broke"]


async def test_a_held_request_that_is_cancelled_says_so(nursery):
    """The event is set, an answer comes too late, and nothing stays held."""
    sink, scope = FakeSink(), trio.CancelScope()

    async def run():
        with scope:
            await sink(memory_exchange())

    nursery.start_soon(run)
    request = await sink.next()
    scope.cancel()
    await request.cancelled.wait()

    with pytest.raises(RuntimeError, match="the exchange of tools/call was cancelled already"):
        await request.reply()


async def test_a_held_request_is_answered_once(nursery):
    """A second answer is a mistake of the test."""
    sink = FakeSink()
    nursery.start_soon(sink, memory_exchange())
    request = await sink.next()
    await request.reply()

    with pytest.raises(RuntimeError, match="is answered already"):
        request.relay(PROGRESS)


async def test_a_request_that_is_cancelled_before_it_is_taken_is_not_given_out(nursery):
    """`next` gives only requests that still wait."""
    sink, scope = FakeSink(), trio.CancelScope()

    async def run():
        with scope:
            await sink(memory_exchange("tools/list"))

    nursery.start_soon(run)
    await wait_all_tasks_blocked()
    scope.cancel()
    await wait_all_tasks_blocked()
    nursery.start_soon(sink, memory_exchange("prompts/list"))
    request = await sink.next()

    assert request.method == "prompts/list"

    await request.reply()


async def test_a_refusing_sink_refuses_until_told_otherwise():
    """`refuse` turns every request away with `CapacityExceeded`."""
    sink = FakeSink.echo()
    sink.refuse()

    with pytest.raises(CapacityExceeded):
        await sink(memory_exchange())

    sink.refuse(refusing=False)

    assert isinstance(await sink(memory_exchange()), Result)


async def test_a_fake_sink_knows_whether_it_is_open():
    """Opening and closing is recorded."""
    sink = FakeSink.echo()

    async with sink.open():
        assert sink.is_open

    assert not sink.is_open
    assert sink.opened == 1


async def test_a_fake_source_hands_messages_to_its_pipeline(nursery):
    """What it is given goes to the handle it serves, until it is told to stop."""
    seen = []

    def handle(message, *, client, emit, ask):
        seen.append((message, client, ask))
        return "ticket"

    async def emit(_notification):
        pass

    source = FakeSource()

    with pytest.raises(RuntimeError, match="not connected"):
        source.handle(Request(1, "ping"), client=MODERN_CLIENT, emit=emit)

    nursery.start_soon(source.serve, handle)
    await source.wait_serving()

    assert source.accepting
    assert source.handle(Request(1, "ping"), client=MODERN_CLIENT, emit=emit) == "ticket"
    assert seen == [(Request(1, "ping"), MODERN_CLIENT, None)]

    source.stop_accepting()

    assert not source.accepting
