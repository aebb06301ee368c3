"""The harness: a real gateway between fakes, on the mock clock."""

import pytest
import trio
from attrs import frozen
from trio.testing import wait_all_tasks_blocked

from sluiceway.middlewares.concurrency_limit import ConcurrencyLimit
from sluiceway.middlewares.request_id import RequestId
from sluiceway.middlewares.timeout import Timeout
from sluiceway.pipeline.config import ConfigError
from sluiceway.pipeline.model.component import Context, Middleware, middleware
from sluiceway.pipeline.model.document import Limits
from sluiceway.pipeline.model.session import ANONYMOUS, Caller
from sluiceway.pipeline.protocol.messages import ErrorReply, Notification, Request, Result
from sluiceway.pipeline.testing import harness as harness_module
from sluiceway.pipeline.testing.cancelling import cancel_everywhere
from sluiceway.pipeline.testing.exchanges import MODERN_CLIENT, legacy_client
from sluiceway.pipeline.testing.fakes import FakeSink, FakeSource
from sluiceway.pipeline.testing.harness import PipelineHarness
from sluiceway.pipeline.testing.leaks import Leak

GATEWAY = {
    "version": 1,
    "sources": {"public": {"http": {"bind": "127.0.0.1:0"}, "pipeline": "main"}},
    "pipelines": {
        "main": {
            "timeout": "10s",
            "chain": ["request_id", {"concurrency_limit": {"max_in_flight": 2}}],
            "sink": "files",
        }
    },
    "sinks": {
        "files": {"embedded": {}, "chain": [{"timeout": {"after": "3s"}}]},
        "other": {"embedded": {}},
    },
}
PROGRESS = Notification("notifications/progress", {"progressToken": 1, "progress": 1})


@frozen
class NoOptions:
    """None."""


@middleware("note_caller")
class NoteCaller(Middleware):
    """Remembers who called, and asks the client if there is somebody to ask."""

    Config = NoOptions

    def __init__(self, config, context):
        super().__init__(config, context)
        self.seen = []

    async def __call__(self, exchange, call_next):
        self.seen.append((exchange.caller, exchange.client, exchange.source, await exchange.ask("roots/list", {})))
        return await call_next(exchange)


@middleware("keeps_a_task")
class KeepsATask(Middleware):
    """Leaves a task behind with every exchange."""

    Config = NoOptions

    async def __call__(self, exchange, call_next):
        self.nursery.start_soon(trio.sleep_forever, name="kept")
        return await call_next(exchange)


async def test_a_gateway_of_yaml_answers_through_its_stages(tmp_path, autojump_clock):
    """The file's chain runs in front of the sink that was put in."""
    path = tmp_path / "gateway.yaml"
    path.write_text(
        "version: 1\nsources: {in: {http: {}}}\n"
        "pipelines: {main: {chain: [request_id], sink: out}}\nsinks: {out: {embedded: {}}}\n"
    )

    async with PipelineHarness.from_yaml(path, sinks={"out": FakeSink.echo()}) as gateway:
        reply = await gateway.call("tools/call", {"name": "echo"}, arguments={"a": 1})

    assert reply == Result({"method": "tools/call", "params": {"name": "echo", "arguments": {"a": 1}}})
    assert [run.stage for run in gateway.stage_log] == ["request_id"]


async def test_a_configuration_with_errors_is_refused():
    """What `check` would say is raised."""
    with pytest.raises(ConfigError):
        PipelineHarness.from_data({"version": 1, "pipelines": {"main": {"sink": "nowhere"}}})


@pytest.mark.parametrize(
    ("replacements", "message"),
    [
        ({"sinks": {"file": FakeSink()}}, "no sink 'file' in the configuration; there are: files, other"),
        ({"sources": {"private": FakeSource()}}, "no source 'private' in the configuration; there are: public"),
    ],
)
async def test_an_id_that_matches_nothing_is_an_error_that_lists_the_ids(replacements, message):
    """A typo in a test must not leave the real sink in place."""
    with pytest.raises(ValueError, match=message):
        PipelineHarness.from_data(GATEWAY, **replacements)


async def test_the_stage_log_says_who_ran_when_and_how_long(autojump_clock):
    """In the order of entering, with virtual seconds, chains of sinks included."""
    async with PipelineHarness.from_data(GATEWAY, sinks={"files": FakeSink.slow(2)}) as gateway:
        await gateway.advance(1)
        await gateway.call("tools/list")

        log = [(run.stage, run.method, run.entered, run.seconds, run.outcome) for run in gateway.stage_log]

    assert log == [
        ("request_id", "tools/list", 1, 2, "result"),
        ("concurrency_limit", "tools/list", 1, 2, "result"),
        ("timeout", "tools/list", 1, 2, "result"),
    ]


async def test_the_stage_log_names_what_came_out(autojump_clock):
    """Errors as data, exceptions by name, and cancellation."""
    sink = FakeSink.script([ErrorReply(-1, "no"), KeyError("bug")])
    async with PipelineHarness.from_stages([RequestId], sink=sink) as gateway:
        await gateway.call("tools/list")
        await gateway.call("tools/list")
        outcomes = [run.outcome for run in gateway.stage_log]
    async with PipelineHarness.from_stages([Timeout], sink=FakeSink()) as gateway:
        call = gateway.start("tools/list")
        await wait_all_tasks_blocked()
        running = gateway.stage_log[0]

        assert (running.outcome, running.seconds) == ("", None)

        call.cancel()
        await call.wait()

    assert outcomes == ["error", "KeyError"]
    assert running.outcome == "Cancelled"


async def test_call_many_calls_one_after_the_other(autojump_clock):
    """The replies are in the order of the calls."""
    async with PipelineHarness.from_stages([], sink=FakeSink.script([{"n": 1}, {"n": 2}, {"n": 3}])) as gateway:
        replies = await gateway.call_many("tools/list", times=3)

    assert replies == [Result({"n": 1}), Result({"n": 2}), Result({"n": 3})]


async def test_a_request_in_flight_shows_what_is_relayed_and_its_reply():
    """`start` does not wait; `interim` fills while the sink works."""
    sink = FakeSink()
    async with PipelineHarness.from_stages([Timeout], sink=sink) as gateway:
        call = gateway.start("tools/call", name="slow")
        request = await sink.next()
        request.relay(PROGRESS)
        await wait_all_tasks_blocked()

        assert call.interim == [PROGRESS]
        assert (call.reply, call.is_done) == (None, False)

        await request.reply({"done": True})

        assert await call.wait() == Result({"done": True})
        assert call.is_done
        assert call.exchange.relayed == 1


async def test_a_cancelled_request_gets_no_reply_and_its_sink_notices():
    """`cancel` is the client's cancel notice; after the end it does nothing."""
    sink = FakeSink()
    async with PipelineHarness.from_stages([ConcurrencyLimit], sink=sink) as gateway:
        call = gateway.start("tools/call", name="slow")
        request = await sink.next()
        call.cancel()

        assert await call.wait() is None
        assert request.cancelled.is_set()

        call.cancel()


async def test_a_call_that_is_not_awaited_to_its_end_is_cancelled(autojump_clock):
    """Giving up on `call` is giving up on the request."""
    sink = FakeSink()
    async with PipelineHarness.from_stages([], sink=sink) as gateway:
        with trio.move_on_after(1):
            await gateway.call("tools/list")
        await wait_all_tasks_blocked()

        assert gateway.engine.pipelines["main"].status()["cancelled"] == 1
        assert len(sink.exchanges) == 1


async def test_a_notification_is_started_and_has_no_reply():
    """`start` sends it; `call` is for requests."""
    sink = FakeSink.echo()
    async with PipelineHarness.from_stages([], sink=sink) as gateway:
        assert await gateway.start("notifications/roots/list_changed").wait() is None

        with pytest.raises(TypeError, match="notifications/x has no reply; use `start`"):
            await gateway.call("notifications/x")

    assert sink.requests == [Notification("notifications/roots/list_changed"), Notification("notifications/x")]


async def test_caller_client_and_asker_are_those_of_the_moment():
    """They are taken when a request is sent, and can be changed in between."""
    stage = NoteCaller(NoOptions(), Context(id="note_caller"))

    async def ask(method, params):
        return Result({"roots": []})

    async with PipelineHarness.from_stages([stage]) as gateway:
        await gateway.call("tools/list")
        gateway.caller, gateway.client, gateway.ask = Caller("ana", tenant="acme"), legacy_client(), ask
        await gateway.call("tools/list")

    assert stage.seen[0][:3] == (ANONYMOUS, MODERN_CLIENT, "test")
    assert isinstance(stage.seen[0][3], ErrorReply)
    assert stage.seen[1][:2] == (Caller("ana", tenant="acme"), gateway.client)
    assert stage.seen[1][3] == Result({"roots": []})


async def test_the_same_stage_may_stand_twice():
    """Instances, classes and options by mapping or instance; equal names are numbered."""
    async with PipelineHarness.from_stages(
        [(Timeout, {"after": "5s"}), Timeout, (Timeout, Timeout.Config()), RequestId]
    ) as gateway:
        await gateway.call("tools/list")

    assert [run.stage for run in gateway.stage_log] == ["timeout", "timeout#2", "timeout#3", "request_id"]


async def test_options_of_a_stage_are_written_as_in_yaml(autojump_clock):
    """`5s` is five seconds, and a wrong unit is a configuration error."""
    async with PipelineHarness.from_stages([(Timeout, {"after": "5s"})], sink=FakeSink()) as gateway:
        reply = await gateway.call("tools/list")

        assert trio.current_time() == 5

    assert isinstance(reply, ErrorReply)
    assert reply.data["reason"] == "deadline_exceeded"

    with pytest.raises(ConfigError):
        PipelineHarness.from_stages([(Timeout, {"after": "5 parsecs"})])


async def test_limits_are_those_of_the_pipeline(autojump_clock):
    """A pipeline that is full refuses."""
    sink = FakeSink()
    async with PipelineHarness.from_stages([], sink=sink, limits=Limits(max_in_flight=1)) as gateway:
        gateway.start("tools/list")
        await sink.next()
        reply = await gateway.call("tools/list")

    assert isinstance(reply, ErrorReply)
    assert reply.data["reason"] == "capacity_exceeded"


async def test_ids_and_randomness_are_the_same_in_every_run():
    """The seed decides; another one gives others."""

    async def first_id(seed):
        async with PipelineHarness.from_stages([RequestId], seed=seed) as gateway:
            call = gateway.start("tools/list")
            await call.wait()
            return call.exchange.correlation_id

    assert await first_id(1) == await first_id(1)
    assert await first_id(1) != await first_id(2)


async def test_time_can_be_advanced_on_a_clock_that_does_not_jump_by_itself(mock_clock):
    """`advance` jumps and lets what is due happen."""
    async with PipelineHarness.from_stages([], sink=FakeSink.slow(5)) as gateway:
        call = gateway.start("tools/list")
        await gateway.advance(4.9)

        assert not call.is_done

        await gateway.advance(0.2)

        assert call.is_done


async def test_time_cannot_be_advanced_on_the_real_clock():
    """A test that would have to wait says so."""
    async with PipelineHarness.from_stages([]) as gateway:
        with pytest.raises(RuntimeError, match="advance needs a mock clock"):
            await gateway.advance(1)


async def test_a_source_has_to_be_there():
    """With no fake source left there is nobody to send through; a source is chosen by id."""
    async with PipelineHarness.from_data(GATEWAY, sinks={"files": FakeSink.echo()}) as gateway:
        assert gateway.source == "public"

        gateway.source = "private"

        with pytest.raises(ValueError, match="no fake source 'private'; there are: public"):
            gateway.start("tools/list")


async def test_a_source_may_be_the_tests_own():
    """It is used instead of the declared one, and the test speaks through it itself."""
    own = FakeSource()
    async with PipelineHarness.from_data(GATEWAY, sources={"public": own}, sinks={"files": FakeSink.echo()}) as gateway:
        await own.wait_serving()
        ticket = own.handle(Request("a", "tools/list"), client=MODERN_CLIENT, emit=_drop)

        assert ticket.exchange.source == "public"
        assert await ticket.run() == Result({"method": "tools/list", "params": {}})

        with pytest.raises(ValueError, match="no fake source ''; there are: none"):
            gateway.start("tools/list")


async def _drop(_notification):
    """Nobody listens."""


async def test_nothing_can_be_sent_before_the_harness_runs():
    """It is used in `async with`."""
    gateway = PipelineHarness.from_stages([])

    with pytest.raises(RuntimeError, match="not running"):
        gateway.start("tools/list")


async def test_what_is_still_in_flight_ends_with_the_block():
    """Leaving the block cancels it and is no leak."""
    sink = FakeSink()
    async with PipelineHarness.from_stages([], sink=sink) as gateway:
        call = gateway.start("tools/list")
        request = await sink.next()

    assert request.cancelled.is_set()
    assert call.is_done


async def test_a_task_that_a_stage_leaves_is_reported(nursery):
    """The harness is under the leak oracle itself."""
    stage = KeepsATask(NoOptions(), Context(id="keeps_a_task"))
    stage.nursery = nursery

    with pytest.raises(Leak, match="task 'kept'"):
        async with PipelineHarness.from_stages([stage]) as gateway:
            await gateway.call("tools/list")


async def test_a_place_that_is_not_given_back_is_reported(autojump_clock):
    """Counters of pipelines and deadlines must be at rest."""
    with pytest.raises(Leak, match=r"pipeline main: 1 in_flight"):
        async with PipelineHarness.from_stages([]) as gateway:
            gateway.engine.pipelines["main"].admission.admitted += 1

    with pytest.raises(Leak, match="deadlines: 1 armed"):
        async with PipelineHarness.from_stages([]) as gateway:
            gateway.engine.deadlines.add(100, lambda: None)


async def test_a_script_that_was_too_short_fails_the_test():
    """The boundary turns the fake's complaint into an error reply; the harness does not forget it."""
    with pytest.raises(AssertionError, match="the script has 0 steps"):
        async with PipelineHarness.from_stages([], sink=FakeSink.script([])) as gateway:
            await gateway.call("tools/list")


async def test_an_exception_of_the_block_comes_out_as_it_is():
    """Not in a group, and not hidden by what the failing block left."""

    async def block():
        async with PipelineHarness.from_stages([], sink=FakeSink()) as gateway:
            gateway.start("tools/list")
            gateway.engine.pipelines["main"].admission.admitted += 1
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await block()


async def test_a_block_that_hangs_is_ended(autojump_clock):
    """A deadlock ends at the bound, in no time on the mock clock."""
    with pytest.raises(trio.TooSlowError):
        async with PipelineHarness.from_stages([]):
            await trio.sleep_forever()


async def test_the_bound_on_the_real_clock_is_short(monkeypatch):
    """On the real clock nobody waits for thirty days."""
    monkeypatch.setattr(harness_module, "REAL_BOUND_S", 0.0)

    with pytest.raises(trio.TooSlowError):
        async with PipelineHarness.from_stages([]):
            await trio.sleep_forever()


async def test_a_gateway_can_be_cancelled_at_any_point_of_its_life():
    """Starting, serving and stopping: nothing hangs and nothing stays."""

    async def life():
        async with PipelineHarness.from_stages([RequestId, ConcurrencyLimit]) as gateway:
            await gateway.call("tools/list")

    assert await cancel_everywhere(life) > 20


async def test_an_empty_gateway_answers_handshakes_with_empty_capabilities(autojump_clock):
    """A server that offers nothing, for tests of what stands around it."""
    async with PipelineHarness.empty() as gateway:
        discovered = await gateway.call("server/discover")
        tools = await gateway.call("tools/list")
        gateway.client = legacy_client()
        pong = await gateway.call("ping")

    assert isinstance(discovered, Result)
    assert discovered.value["capabilities"] == {}
    assert isinstance(tools, ErrorReply)
    assert tools.code == -32601
    assert pong == Result({})


async def test_the_fixtures_of_the_plugin_are_there(gateway_harness, fake_sink, leak_oracle):
    """`gateway_harness` is the harness, `fake_sink` holds its requests."""
    leak_oracle.watch("requests", lambda: 0)
    async with gateway_harness.from_stages([], sink=fake_sink) as gateway:
        call = gateway.start("tools/list")
        request = await fake_sink.next()

        assert isinstance(request.exchange.request, Request)

        await request.reply()

        assert await call.wait() == Result()
