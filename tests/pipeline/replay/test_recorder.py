"""What passes the edges of a gateway is on the tape, in order, with its times, and nothing else changes."""

from __future__ import annotations

import pytest
import trio
from msgspec.structs import replace

from sluiceway.pipeline.config import from_data
from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.session import Caller, Session
from sluiceway.pipeline.protocol.errors import UpstreamClosed
from sluiceway.pipeline.protocol.mcp import Era
from sluiceway.pipeline.protocol.messages import EMPTY, ErrorReply, Notification, Request, Result
from sluiceway.pipeline.replay.assembly import exchanges
from sluiceway.pipeline.replay.entries import (
    Announced,
    Answered,
    Asked,
    Begun,
    CallAnswered,
    CallAsked,
    Called,
    CallEnded,
    CallRelayed,
    CancelAsked,
    ClockSet,
    Configured,
    Ended,
    Header,
    IdMade,
    Lost,
    Relayed,
    Seeded,
    SessionAnswered,
    SessionAsked,
    SessionClosed,
    SessionOpened,
    SessionTold,
    StageEntered,
    StageLeft,
    StateChanged,
    Trailer,
    event_of,
)
from sluiceway.pipeline.replay.reading import Tape
from sluiceway.pipeline.testing import FakeSink, PipelineHarness

PROGRESS = Notification("notifications/progress", {"progressToken": 7, "progress": 1})


async def test_a_call_is_on_the_tape_from_its_beginning_to_its_end(recorded, entries, autojump_clock):
    """Both edges in one order; the sink got what the client sent, and took two seconds."""

    async def answer(exchange: Exchange) -> Result:
        await trio.sleep(2)
        return Result({"content": []})

    async with recorded(["request_id"], sink=FakeSink(answer)) as gateway:
        await trio.sleep(1)
        await gateway.call("tools/call", name="echo", arguments={"text": "hi"})

    begun, called, call_ended, ended = entries(Begun, Called, CallEnded, Ended)
    assert (begun.source, begun.pipeline, begun.kind, begun.exchange) == ("in", "main", "call", 1)
    assert begun.message.params == {"name": "echo", "arguments": {"text": "hi"}}
    assert (begun.client.era, begun.client.version) == ("modern", "2026-07-28")
    assert (called.sink, called.attempt, called.message) == ("up", 1, None)
    assert (call_ended.reply.result, call_ended.failure) == ({"content": []}, None)
    assert (ended.reply.result, ended.cancelled) == ({"content": []}, "")
    assert ended.t - begun.t == pytest.approx(2)
    assert ended.correlation == entries(IdMade)[-1].value
    assert ended.headers == {"x-request-id": ended.correlation}


async def test_the_tape_begins_with_what_the_gateway_is_made_of(recorded, entries, autojump_clock):
    """Header, configuration, seeds, states; and an end."""
    async with recorded(["request_id"]) as gateway:
        digest = gateway.engine.document.digest

    first, *middle, last = entries()
    assert isinstance(first, Header)
    assert (first.format, first.version, first.part, first.epoch) == ("sluiceway-tape", 1, 1, 1_800_000_000.0)
    assert [(e.generation, e.digest, e.files) for e in middle if isinstance(e, Configured)] == [(1, digest, {})]
    assert {e.component for e in middle if isinstance(e, Seeded)} == {"pipelines.main.request_id"}
    assert ("pipelines.main.request_id", "ready") in {
        (e.component, e.state) for e in middle if isinstance(e, StateChanged)
    }
    assert last == Trailer(n=last.n, t=last.t)


async def test_the_seed_on_the_tape_is_the_one_in_use(recorded, entries, autojump_clock):
    """From it, every draw of a component follows."""
    from random import Random

    async with recorded(["request_id"]) as gateway:
        context = gateway.engine.component("pipelines.main.request_id").context
        drawn = [context.random.random() for _ in range(3)]

    seed = Random(int(entries(Seeded)[0].seed, 16))  # the point of it
    assert drawn == [seed.random() for _ in range(3)]


async def test_notifications_are_on_the_tape_at_both_edges(recorded, entries, autojump_clock):
    """What the sink relays, and what reaches the client."""

    async def answer(exchange: Exchange) -> Result:
        await exchange.relay(PROGRESS)
        return Result()

    async with recorded(sink=FakeSink(answer)) as gateway:
        call = gateway.start("tools/call", name="work")
        await call.wait()

    assert call.interim == [PROGRESS]
    call_relayed, relayed = entries(CallRelayed, Relayed)
    assert call_relayed.message.params == relayed.message.params == {"progressToken": 7, "progress": 1}
    assert (call_relayed.exchange, call_relayed.call, relayed.exchange) == (1, 1, 1)


async def test_questions_are_on_the_tape_at_both_edges(recorded, entries, autojump_clock):
    """With their answers, and which call put them."""

    async def ask(method, params):
        await trio.sleep(1)
        return Result({"action": "accept"})

    async def answer(exchange: Exchange) -> Result:
        reply = await exchange.ask("elicitation/create", {"message": "really?"})
        assert isinstance(reply, Result)
        return Result({"said": reply.value["action"]})

    async with recorded(sink=FakeSink(answer)) as gateway:
        gateway.ask = ask
        assert await gateway.call("tools/call", name="work") == Result({"said": "accept"})

    call_asked, asked, answered, call_answered = entries(CallAsked, Asked, Answered, CallAnswered)
    assert call_asked.message.method == asked.message.method == "elicitation/create"
    assert asked.message.params == {"message": "really?"}
    assert answered.reply.result == call_answered.reply.result == {"action": "accept"}
    assert (call_asked.call, call_asked.question, asked.question, answered.question) == (1, 1, 1, 1)
    assert entries(Begun)[0].can_ask


async def test_a_question_nobody_can_be_asked_is_answered_as_without_a_recorder(recorded, entries, autojump_clock):
    """The sink's question is on the tape, the client's is not, for there is none."""

    async def answer(exchange: Exchange) -> ErrorReply | Result:
        return await exchange.ask("roots/list", {})

    async with recorded(sink=FakeSink(answer)) as gateway:
        reply = await gateway.call("tools/call", name="work")

    assert isinstance(reply, ErrorReply)
    assert entries(Asked, CallAsked) == []
    assert not entries(Begun)[0].can_ask


async def test_a_refusal_has_its_error_and_the_decision_behind_it(recorded, entries, autojump_clock):
    """No sink was called."""
    chain = [{"rate_limit": {"rate": "1/min", "burst": 1}}]
    async with recorded(chain) as gateway:
        await gateway.call("tools/list")
        await gateway.call("tools/list")

    first, second = entries(Ended)
    assert [d.outcome for d in first.decisions] == ["allow"]
    assert [(d.stage, d.outcome) for d in second.decisions] == [("pipelines.main.rate_limit", "refuse")]
    assert second.reply.error.code == 42900
    assert [called.exchange for called in entries(Called)] == [1]


async def test_a_failure_of_the_sink_is_on_the_tape_with_all_it_says(recorded, entries, autojump_clock):
    """And what the client was told of it."""

    async def fail(exchange: Exchange) -> Result:
        raise UpstreamClosed("gone", retry_after_s=3.0, data={"at": "noon"})

    async with recorded(sink=FakeSink(fail)) as gateway:
        await gateway.call("tools/list")

    failure = entries(CallEnded)[0].failure
    assert (failure.type, failure.reason, failure.message) == ("UpstreamClosed", "upstream_closed", "gone")
    assert (failure.retry_after_s, failure.data, failure.counts) == (3.0, {"at": "noon"}, True)
    assert entries(Ended)[0].reply.error.code == 50201


async def test_a_bug_of_the_sink_is_on_the_tape_and_goes_on_being_one(recorded, entries, autojump_clock):
    """The incident that the client is told is on the tape, too."""

    async def fail(exchange: Exchange) -> Result:
        raise KeyError("nothing")

    async with recorded(sink=FakeSink(fail)) as gateway:
        reply = await gateway.call("tools/list")

    assert isinstance(reply, ErrorReply)
    assert (entries(CallEnded)[0].failure.type, entries(CallEnded)[0].failure.reason) == ("KeyError", "")
    incident = [entry.value for entry in entries(IdMade) if entry.component == "pipelines.main"]
    assert [reply.data["incident"]] == [each[:12] for each in incident]


@pytest.mark.parametrize("reason", ["client", "shutdown"])
async def test_who_cancelled_is_on_the_tape(reason, recorded, entries, autojump_clock):
    """The sink's call ended with neither reply nor failure."""
    async with recorded(sink=FakeSink.slow(10)) as gateway:
        call = gateway.start("tools/call", name="work")
        await trio.sleep(1)
        call.cancel(reason)
        await trio.sleep(1)
        call.cancel()

    assert [entry.by for entry in entries(CancelAsked)] == [reason]
    assert entries(Ended)[0].cancelled == reason
    assert (entries(CallEnded)[0].reply, entries(CallEnded)[0].failure) == (None, None)


async def test_a_passed_deadline_is_on_the_tape(recorded, entries, autojump_clock):
    """The client was told."""
    more = {"pipelines": {"main": {"chain": [], "sink": "up", "timeout": "3s"}}}
    async with recorded(sink=FakeSink.slow(10), more=more) as gateway:
        await gateway.call("tools/list")

    ended = entries(Ended)[0]
    assert (ended.cancelled, ended.reply.error.code) == ("deadline", 50400)


async def test_a_connection_that_goes_away_under_an_exchange_is_on_the_tape(recorded, entries, autojump_clock):
    """Whoever ran the exchange was cancelled, and nobody said why."""
    async with recorded(sink=FakeSink.slow(10)) as gateway:
        with trio.move_on_after(1):
            source = gateway.engine.sources["in"]
            ticket = source.handle(Request(1, "ping", EMPTY), client=gateway.client, emit=_drop)
            await ticket.run()
        ticket.cancel()

    assert [entry.cancelled for entry in entries(Ended)] == ["connection"]
    assert entries(CancelAsked) == []


async def _drop(_notification: Notification) -> None:
    """Nobody listens."""


async def test_every_attempt_is_a_call_of_its_own(recorded, entries, autojump_clock):
    """With its number, and what came of it."""
    sink = FakeSink.fail(times=1, then=FakeSink.echo())
    async with recorded([{"retry": {}}], sink=sink) as gateway:
        await gateway.call("tools/list")

    assert [(e.call, e.attempt) for e in entries(Called)] == [(1, 1), (2, 2)]
    assert [e.failure is None for e in entries(CallEnded)] == [False, True]


async def test_a_request_that_a_stage_changed_is_on_the_tape_as_the_sink_got_it(recorded, entries, autojump_clock):
    """One that nobody changed is not there twice."""
    more = {
        "pipelines": {"main": {"chain": [{"redact": {"paths": ["params.arguments.card"]}}], "sink": "up"}},
    }
    async with recorded(more=more) as gateway:
        await gateway.call("tools/call", name="pay", arguments={"card": "4111"})
        await gateway.call("tools/list")

    first, second = entries(Called)
    assert first.message is not None
    assert first.message.params["arguments"] != {"card": "4111"}
    assert second.message is None


async def test_the_caller_is_on_the_tape_when_it_is_known(recorded, entries, autojump_clock):
    """Credentials are not, so a replay needs to be told."""
    async with recorded() as gateway:
        gateway.caller = Caller("ana", "acme", frozenset({"b", "a"}), "api_key", credential="k1")
        await gateway.call("tools/list")

    caller = entries(Ended)[0].caller
    assert (caller.subject, caller.tenant, caller.scopes, caller.credential) == ("ana", "acme", ("a", "b"), "k1")


async def test_stages_are_on_the_tape_if_that_was_asked_for(recorded, entries, autojump_clock):
    """Each visit, entered and left, with its times."""
    async with recorded(["request_id", {"retry": {}}], sink=FakeSink.slow(1), stages=True) as gateway:
        await gateway.call("tools/list")

    visits = [(event_of(e), e.stage, e.visit) for e in entries(StageEntered, StageLeft)]
    assert visits == [
        ("stage_entered", "pipelines.main.request_id", 1),
        ("stage_entered", "pipelines.main.retry", 2),
        ("stage_left", "pipelines.main.retry", 2),
        ("stage_left", "pipelines.main.request_id", 1),
    ]
    assert entries(Header)[0].stages
    (exchange,) = exchanges(entries())
    assert [v.left.t - v.entered.t for v in exchange.visits.values() if v.left is not None] == [1.0, 1.0]


async def test_a_failure_is_on_the_tape_at_each_stage_it_passes(recorded, entries, autojump_clock):
    """It goes on its way unharmed."""

    async def fail(exchange: Exchange) -> Result:
        raise UpstreamClosed("gone")

    async with recorded(["request_id"], sink=FakeSink(fail), stages=True) as gateway:
        await gateway.call("tools/list")

    assert entries(StageLeft)[0].failure.reason == "upstream_closed"


async def test_a_reload_is_on_the_tape(recorded, entries, autojump_clock):
    """With the digest of the new configuration, and the seeds of the new components."""
    async with recorded(["request_id"]) as gateway:
        old = gateway.engine.document
        other = from_data(
            {
                "version": 1,
                "sources": {"in": {"http": {"bind": "127.0.0.1:1"}}},
                "pipelines": {"main": {"chain": ["request_id", "headers"], "sink": "up"}},
                "sinks": {"up": {"embedded": {}}},
            }
        )
        await gateway.engine.reload(other)

    assert [(e.generation, e.digest) for e in entries(Configured)] == [(1, old.digest), (2, other.digest)]
    assert [e.component for e in entries(Seeded)][-1] == "pipelines.main.headers"


async def test_what_a_sink_announces_is_on_the_tape(recorded, entries, autojump_clock):
    """No exchange caused it."""
    async with recorded() as gateway:
        await gateway.call("ping")
        changed = Notification("notifications/tools/list_changed")
        gateway.engine._around.changes.announce("up", changed)

    assert [(e.sink, e.message.method) for e in entries(Announced)] == [("up", "notifications/tools/list_changed")]


async def test_a_session_is_a_number_on_the_tape(recorded, entries, autojump_clock):
    """Its id opens it, so it is not there. What it is told, and its end, are."""
    told: list[Notification] = []
    session = Session(id="sesame", source="in", notify=told.append)
    async with recorded() as gateway:
        gateway.client = replace(gateway.client, era=Era.LEGACY, version="2025-11-25", session=session)
        await gateway.call("tools/list")
        await gateway.call("tools/list")
        session.notify(Notification("notifications/tools/list_changed"))
        session.close()
        await gateway.call("ping")

    opened, session_told, closed, again = entries(SessionOpened, SessionTold, SessionClosed)
    assert (opened.session, opened.source) == (1, "in")
    assert session_told.message.method == "notifications/tools/list_changed"
    assert closed.session == 1
    assert isinstance(again, SessionOpened)
    assert [e.client.session for e in entries(Begun)] == [1, 1, 2]
    assert [n.method for n in told] == ["notifications/tools/list_changed"]


async def test_a_question_that_no_request_caused_is_on_the_tape(recorded, entries, autojump_clock):
    """An upstream may ask a legacy client whenever it likes."""

    async def ask(method, params):
        return Result({"roots": []})

    session = Session(id="sesame", source="in", ask=ask)
    async with recorded() as gateway:
        gateway.client = replace(gateway.client, era=Era.LEGACY, version="2025-11-25", session=session)
        await gateway.call("ping")
        assert session.ask is not None
        assert await session.ask("roots/list", {}) == Result({"roots": []})

    asked, answered = entries(SessionAsked, SessionAnswered)
    assert (asked.session, asked.question, asked.message.method) == (1, 1, "roots/list")
    assert answered.reply.result == {"roots": []}


async def test_what_a_recording_writes_and_loses_is_counted(recorded, autojump_clock):
    """For metrics; without a recorder there are no such figures."""
    async with recorded() as gateway:
        await gateway.call("ping")
        await trio.sleep(1)
        figures = {each.name: each.value for each in gateway.engine.snapshot() if each.name.startswith("recording_")}
    async with PipelineHarness.from_stages([]) as plain:
        none = [each for each in plain.engine.snapshot() if each.name.startswith("recording_")]

    assert figures["recording_entries_total"] > 5
    assert figures["recording_written_bytes_total"] > 500
    assert (figures["recording_lost_total"], figures["recording_waiting_bytes"]) == (0, 0)
    assert none == []


async def test_the_date_follows_the_clock_and_a_correction_is_on_the_tape(recorded, entries, autojump_clock):
    """A replay that knows both has every date that the gateway had."""
    off = 0.0
    began = trio.current_time()
    async with recorded(["request_id"], now=lambda: 1_000.0 + trio.current_time() - began + off) as gateway:
        now = gateway.engine.component("pipelines.main.request_id").context.now
        dates = [now()]
        await trio.sleep(5)
        dates.append(now())
        off = 0.01
        dates.append(now())
        off = 60.0
        dates.append(now())
        await gateway.call("ping")

    assert dates == [pytest.approx(date) for date in (1_000.0, 1_005.0, 1_005.0, 1_065.0)]
    assert [e.epoch for e in entries(ClockSet)] == [pytest.approx(1_060.0)]


async def test_ids_that_may_open_something_are_fingerprints(recorded, entries, autojump_clock):
    """Ids of requests and incidents are for everybody; others can be keys, sessions, secrets of seals."""
    async with recorded(["request_id", {"retry": {}}]) as gateway:
        secret = gateway.engine.component("pipelines.main.retry").context.new_id()
        public = gateway.engine.component("pipelines.main.request_id").context.new_id()

    masked, plain = entries(IdMade)
    assert masked.value.startswith("***:")
    assert secret not in masked.value
    assert plain.value == public


async def test_a_call_that_a_stage_makes_of_its_own_accord_is_an_exchange_without_a_source(
    recorded, entries, autojump_clock
):
    """A cache that refreshes what it has, for example."""
    chain = [{"cache": {"rules": [{"method": ["resources/read"], "ttl": "10s", "stale_while_revalidate": "1h"}]}}]
    sink = FakeSink(_document)
    async with recorded(chain, sink=sink) as gateway:
        await gateway.call("resources/read", uri="file:///a")
        await trio.sleep(20)
        await gateway.call("resources/read", uri="file:///a")
        await trio.sleep(1)

    assert [e.source for e in entries(Begun)] == ["in", "in", ""]
    assert [e.exchange for e in entries(Called)] == [1, 3]
    assert [x.is_over for x in exchanges(entries())] == [True, True, True]


async def _document(exchange: Exchange) -> Result:
    return Result({"contents": [{"uri": "file:///a", "text": "a"}], "cacheScope": "public", "ttlMs": 10_000})


async def test_notifications_of_clients_are_exchanges_without_a_reply(recorded, entries, autojump_clock):
    """They end with nothing."""
    async with recorded() as gateway:
        await gateway.start("notifications/roots/list_changed").wait()

    assert (entries(Begun)[0].kind, entries(Begun)[0].message.id) == ("notify", None)
    assert (entries(Ended)[0].reply, entries(Ended)[0].cancelled) == (None, "")


async def test_what_finds_no_room_is_counted_and_the_tape_says_where(recorded, tape_path, autojump_clock):
    """Nobody waits for it."""
    async with recorded(max_waiting=20_000) as gateway:
        for _ in range(20):
            await gateway.call("tools/call", name="echo", arguments={"text": "x" * 1000})
        await trio.sleep(10)
        await gateway.call("ping")

    tape = Tape(tape_path)
    found = list(tape.entries())
    lost = [e for e in found if isinstance(e, Lost)]
    assert {e.reason for e in lost} == {"more than 20000B waited to be written"}
    assert {f.what for f in tape.findings} == {"lost"}
    assert isinstance(found[-1], Trailer)
    assert found[-1].lost == sum(e.entries for e in lost) > 0
    assert any(isinstance(e, Begun) and e.message.method == "ping" for e in found)


async def test_a_gateway_without_a_recorder_is_what_it_was(autojump_clock):
    """Nothing is left at its edges."""
    async with PipelineHarness.from_stages([]) as gateway:
        await gateway.call("tools/list")
        call = gateway.start("tools/list")
        await call.wait()

    assert call.exchange.link.number == 0


async def test_a_body_that_does_not_pass_the_gate_is_not_on_the_tape(recorded, entries, autojump_clock):
    """Nobody can say what of it is secret."""

    async def answer(exchange: Exchange) -> Result:
        return Result(raw=b'{"a":1,"a":{"password":"x"}}')

    async with recorded(sink=FakeSink(answer)) as gateway:
        await gateway.call("tools/list")

    reply = entries(CallEnded)[0].reply
    assert reply.result is None
    assert reply.unreadable != ""


async def test_a_long_result_is_taken_whole(recorded, entries, autojump_clock):
    """A source that could take it in pieces does not get it so, for the tape has to."""
    took: list[bool] = []

    async def answer(exchange: Exchange) -> Result:
        took.append(exchange.takes_pieces)
        return Result({"content": []})

    async def piece(_text: bytes) -> None:
        raise AssertionError("must not come in pieces")

    async with recorded(sink=FakeSink(answer)) as gateway:
        source = gateway.engine.sources["in"]
        ticket = source.handle(Request(1, "tools/call", {"name": "x"}), client=gateway.client, emit=_drop)
        ticket.exchange.link.pieces = piece
        await ticket.run()

    assert took == [False]
    assert entries(Ended)[0].reply.result == {"content": []}
