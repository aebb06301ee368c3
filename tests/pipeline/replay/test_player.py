"""A tape is played to a real gateway, which decides again what it decided then."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from attrs import evolve
from msgspec.structs import replace
from trio.testing import MockClock

from sluiceway.pipeline.config import from_data
from sluiceway.pipeline.model.document import Document
from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.session import Caller, Session
from sluiceway.pipeline.protocol.errors import UpstreamClosed
from sluiceway.pipeline.protocol.mcp import Era
from sluiceway.pipeline.protocol.messages import ErrorReply, Notification, Reply, Request, Result
from sluiceway.pipeline.replay.assembly import RecordedExchange, exchanges
from sluiceway.pipeline.replay.entries import (
    Announced,
    Called,
    CallEnded,
    ClockSet,
    Configured,
    Ended,
    Entry,
    MessageData,
    Relayed,
    SessionClosed,
    SessionOpened,
    SessionTold,
)
from sluiceway.pipeline.replay.lines import parse_line, render_entry, seal
from sluiceway.pipeline.replay.playing import Played, play
from sluiceway.pipeline.replay.reading import Tape
from sluiceway.pipeline.replay.stand_ins import PlayedSink, secluded
from sluiceway.pipeline.testing import FakeSink, PipelineHarness, memory_exchange

PROGRESS = Notification("notifications/progress", {"progressToken": 7, "progress": 1})
Traffic = Callable[[PipelineHarness], Awaitable[None]]


def document(chain: list[Any], sink_chain: list[Any] | None = None, **limits: Any) -> Document:
    """A gateway of one pipeline in front of the sink `up`."""
    return from_data(
        {
            "version": 1,
            "sources": {"in": {"http": {"bind": "127.0.0.1:1"}}},
            "pipelines": {"main": {"chain": chain, "sink": "up", **limits}},
            "sinks": {"up": {"embedded": {}, "chain": sink_chain or []}},
        }
    )


@pytest.fixture
def taped(recorded: Any, tape_path: Path) -> Callable[..., Tape]:
    """Records some traffic in virtual time."""

    def record(traffic: Traffic, chain: list[Any], sink: Any = None, sink_chain: list[Any] | None = None) -> Tape:
        async def main() -> None:
            more = {"sinks": {"up": {"embedded": {}, "chain": sink_chain or []}}}
            async with recorded(chain, sink=sink, more=more) as gateway:
                await traffic(gateway)

        trio.run(main, clock=MockClock(autojump_threshold=0))
        return Tape(tape_path)

    return record


def replayed(tape: Tape, config: Document, **more: Any) -> tuple[dict[int, RecordedExchange], Played]:
    """What a replay makes of it, by exchange."""
    seen: list[Entry] = []
    played = play(tape, config, seen.append, **more)
    return {each.number: each for each in exchanges(seen)}, played


def story(exchange: RecordedExchange) -> list[tuple[Any, ...]]:
    """What happened in an exchange, and when."""
    found: list[tuple[Any, ...]] = []
    for entry in exchange.entries:
        match entry:
            case Called():
                found.append(("called", entry.t, entry.sink, entry.attempt, entry.message, entry.caller))
            case CallEnded():
                found.append(("call ended", entry.t, entry.reply, entry.failure))
            case Relayed():
                found.append(("relayed", entry.t, entry.message))
            case Ended():
                found.append(
                    ("ended", entry.t, entry.reply, entry.decisions, entry.cancelled, entry.correlation, entry.headers)
                )
    return found


def assert_equal(tape: Tape, config: Document) -> Played:
    """A replay is the tape."""
    now, played = replayed(tape, config)
    then = {each.number: each for each in exchanges(tape.entries())}

    assert {number: story(each) for number, each in now.items()} == {
        number: story(each) for number, each in then.items()
    }
    assert played.lacking == []
    return played


def test_limits_retries_and_breakers_decide_as_they_did(taped):
    """Refusals, attempts with their jittered delays, an open circuit: everything is where it was, to the last bit."""
    fails = iter([True, True, False, True, True, True, True, True, True, True, True])

    async def answer(exchange: Exchange) -> Reply:
        await trio.sleep(0.1)
        if next(fails, False):
            raise UpstreamClosed("gone")
        await exchange.relay(PROGRESS)
        return Result({"content": []})

    async def traffic(gateway: PipelineHarness) -> None:
        for _ in range(12):
            await gateway.call("tools/call", name="find", arguments={"token": "secret"})
            await trio.sleep(0.3)

    chain = ["request_id", {"rate_limit": {"per": "all", "rate": "1/s", "burst": 6}}]
    sink_chain = [{"retry": {"repeat": ["find"]}}, {"circuit_breaker": {"min_calls": 6}}]
    tape = taped(traffic, chain, FakeSink(answer), sink_chain)
    ends = {entry.reply.error.code if entry.reply.error else 0 for entry in tape.entries() if isinstance(entry, Ended)}

    assert {0, 42900, 50302} <= ends
    assert_equal(tape, document(chain, sink_chain))


def test_a_cancelled_call_is_cancelled_when_it_was(taped):
    """The client gives up after a second; the upstream would have taken ten."""

    async def traffic(gateway: PipelineHarness) -> None:
        call = gateway.start("tools/call", name="slow", arguments={})
        await trio.sleep(1)
        call.cancel()
        await call.wait()

    tape = taped(traffic, [], FakeSink.slow(10))
    assert_equal(tape, document([]))


def test_a_deadline_passes_when_it_did(taped):
    """The upstream hangs until the gateway's own timeout."""

    async def traffic(gateway: PipelineHarness) -> None:
        await gateway.call("tools/call", name="slow", arguments={})

    chain = [{"timeout": {"after": "2s"}}]
    tape = taped(traffic, chain, FakeSink.slow(10))
    assert_equal(tape, document(chain))


def test_questions_are_answered_as_they_were(taped):
    """An upstream asks the client in the middle of a call."""

    async def answer(exchange: Exchange) -> Reply:
        reply = await exchange.ask("elicitation/create", {"message": "sure?"})
        assert isinstance(reply, Result)
        return Result({"content": [], "said": dict(reply.value)})

    async def said(_method: str, _params: Any) -> Reply:
        await trio.sleep(2)
        return Result({"action": "accept"})

    async def traffic(gateway: PipelineHarness) -> None:
        gateway.ask = said
        await gateway.call("tools/call", name="ask", arguments={})

    tape = taped(traffic, [], FakeSink(answer))
    now, _ = replayed(tape, document([]))

    assert [entry.reply.result for entry in now[1].answered] == [{"action": "accept"}]
    assert_equal(tape, document([]))


def test_a_caller_is_who_it_was_found_to_be(taped):
    """Credentials are on no tape: the stage that reads them knows who came of it."""

    async def traffic(gateway: PipelineHarness) -> None:
        gateway.caller = Caller("ana", tenant="acme", how="api_key")
        await gateway.call("tools/call", name="find", arguments={})
        gateway.caller = Caller("ben", tenant="acme", how="api_key")
        await gateway.call("tools/call", name="find", arguments={})
        await gateway.call("tools/call", name="find", arguments={})

    limit = {"rate_limit": {"per": "caller", "rate": "1/min", "burst": 1}}
    tape = taped(traffic, [limit])
    now, _ = replayed(tape, document(["auth_anonymous", limit]))

    assert [now[n].ended.caller.subject for n in (1, 2, 3)] == ["ana", "ben", "ben"]
    assert [now[n].ended.reply.error is None for n in (1, 2, 3)] == [True, True, False]


def test_a_tighter_limit_refuses_what_it_would_have_refused(taped):
    """Under another configuration the same clients get other answers, and the upstream is asked less."""

    async def traffic(gateway: PipelineHarness) -> None:
        for _ in range(5):
            await gateway.call("tools/call", name="find", arguments={})

    tape = taped(traffic, [])
    now, played = replayed(tape, document([{"rate_limit": {"per": "all", "rate": "1/min", "burst": 2}}]))

    assert [each.ended.reply.error is None for each in now.values()] == [True, True, False, False, False]
    assert played.lacking == []


def test_what_the_tape_has_no_answer_to_is_told_with_the_nearest_request(taped):
    """The gateway asks for something else now: the difference is named, and the call fails."""

    async def traffic(gateway: PipelineHarness) -> None:
        await gateway.call("tools/call", name="find", arguments={"q": "b"})

    path = taped(traffic, []).path
    other = MessageData("tools/call", {"name": "find", "arguments": {"q": "a"}}, 1)
    entries = [parse_line(line) for line in path.read_bytes().splitlines(keepends=True)]
    then = [msgspec.structs.replace(each, message=other) if isinstance(each, Called) else each for each in entries]
    path.write_bytes(b"".join(seal(render_entry(each)) for each in then))
    now, played = replayed(Tape(path), document([]))

    assert now[1].ended.reply.error.code == 50304
    assert played.lacking == [
        'up: an answer to tools/call find; the nearest recorded request differs: params.arguments.q: "a" -> "b"'
    ]


def test_a_session_is_what_its_handshake_left(taped):
    """Legacy clients are known by their session, whose revision is that of the answer to initialize."""

    async def answer(exchange: Exchange) -> Reply:
        session = exchange.client.session
        assert session is not None
        if exchange.method == "initialize":
            return Result({"protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": {"name": "x"}})
        return Result({"content": []})

    async def traffic(gateway: PipelineHarness) -> None:
        session = Session(id="secret", source="in")
        gateway.client = replace(gateway.client, era=Era.LEGACY, version=None, session=session)
        await gateway.call("initialize", protocolVersion="2025-06-18", capabilities={}, clientInfo={"name": "c"})
        gateway.client = replace(gateway.client, version="2025-06-18")
        await gateway.call("tools/call", name="find", arguments={})
        session.close()

    tape = taped(traffic, ["request_id"], FakeSink(answer))
    assert_equal(tape, document(["request_id"]))


def test_a_result_that_cannot_be_read_is_passed_on(taped):
    """What the gate refuses is on no tape, and nobody needs it."""

    async def traffic(gateway: PipelineHarness) -> None:
        await gateway.call("tools/call", name="find", arguments={})

    async def answer(_exchange: Exchange) -> Reply:
        return Result(raw=b'{"content":[],"content":[]}')

    tape = taped(traffic, [], FakeSink(answer))
    now, _ = replayed(tape, document([]))

    assert now[1].ended.reply.unreadable != ""


def test_a_source_that_is_gone_is_told(taped):
    """What came in there cannot come in."""

    async def traffic(gateway: PipelineHarness) -> None:
        await gateway.call("ping")

    tape = taped(traffic, [])
    other = from_data(
        {
            "version": 1,
            "sources": {"other": {"http": {"bind": "127.0.0.1:1"}}},
            "pipelines": {"main": {"chain": [], "sink": "up"}},
            "sinks": {"up": {"embedded": {}}},
        }
    )
    now, played = replayed(tape, other)

    assert (now, played.lacking, played.lacked) == ({}, ["a source in"], 1)


def test_errors_of_upstreams_are_replies_again(taped):
    """What an upstream says is passed on; so is what it says to nobody."""

    async def traffic(gateway: PipelineHarness) -> None:
        await gateway.call("tools/call", name="find", arguments={})
        await gateway.start("notifications/roots/list_changed").wait()

    tape = taped(traffic, [], FakeSink.script([ErrorReply(-32000, "no"), Result({})]))
    assert_equal(tape, document([]))


def test_stages_keep_to_themselves(taped, tmp_path):
    """An audit trail is not written by a replay."""

    async def traffic(gateway: PipelineHarness) -> None:
        await gateway.call("ping")

    trail = tmp_path / "trail.jsonl"
    tape = taped(traffic, [])
    now, _ = replayed(tape, document([{"audit": {"path": str(trail)}}]))

    assert now[1].ended.reply.error is None
    assert not trail.exists()


def test_the_configuration_is_on_the_new_tape_only_if_asked_for(taped, tmp_path):
    """Its text is as private as it was."""

    async def traffic(gateway: PipelineHarness) -> None:
        await gateway.call("ping")

    tape, file = taped(traffic, []), tmp_path / "g.yaml"
    file.write_text("version: 1\n")
    config = evolve(document([]), files=(file,))
    seen: list[Entry] = []
    play(tape, config, seen.append, files=True)

    assert [each.files for each in seen if isinstance(each, Configured)] == [{"g.yaml": "version: 1\n"}]


def test_a_call_that_comes_earlier_is_answered_as_much_earlier(taped):
    """The old gateway waited for its turn; the new one does not, and neither does the upstream."""

    async def traffic(gateway: PipelineHarness) -> None:
        calls = [gateway.start("tools/call", name="slow", arguments={}) for _ in range(2)]
        for each in calls:
            await each.wait()

    async def answer(exchange: Exchange) -> Reply:
        await trio.sleep(1)
        await exchange.relay(PROGRESS)
        await trio.sleep(1)
        return Result({"content": []})

    tape = taped(
        traffic,
        [{"concurrency_limit": {"max_in_flight": 1, "max_waiting": 5, "wait_at_most": "10s"}}],
        FakeSink(answer),
    )
    then = {each.number: each for each in exchanges(tape.entries())}
    now, played = replayed(tape, document([]))

    assert sorted(each.ended.t for each in then.values()) == [2.0, 4.0]
    assert [each.ended.t for each in now.values()] == [2.0, 2.0]
    assert [[relayed.t for relayed in each.relayed] for each in now.values()] == [[1.0], [1.0]]
    assert played.lacking == []


def test_a_call_that_comes_later_is_answered_as_much_later(taped):
    """The new gateway lets one wait for the other."""

    async def traffic(gateway: PipelineHarness) -> None:
        calls = [gateway.start("tools/call", name="slow", arguments={}) for _ in range(2)]
        for each in calls:
            await each.wait()

    tape = taped(traffic, [], FakeSink.slow(2))
    one_by_one = document([{"concurrency_limit": {"max_in_flight": 1, "max_waiting": 5, "wait_at_most": "10s"}}])
    now, _ = replayed(tape, one_by_one, linger_s=60)

    assert sorted(each.ended.t for each in now.values()) == [2.0, 4.0]


def test_requests_end_with_the_tape_unless_they_may_linger(taped):
    """What is on the tape only in part has no end."""

    async def traffic(gateway: PipelineHarness) -> None:
        calls = [gateway.start("tools/call", name="slow", arguments={}) for _ in range(2)]
        for each in calls:
            await each.wait()

    tape = taped(traffic, [], FakeSink.slow(2))
    one_by_one = document([{"concurrency_limit": {"max_in_flight": 1, "max_waiting": 5, "wait_at_most": "10s"}}])
    now, _ = replayed(tape, one_by_one)

    assert sorted(each.ended.cancelled for each in now.values()) == ["", "connection"]


def test_sessions_are_told_and_changes_announced_as_they_were(taped):
    """What upstreams say of their own accord comes at its time, once."""
    changed = Notification("notifications/tools/list_changed", {})

    async def traffic(gateway: PipelineHarness) -> None:
        session = Session(id="secret", source="in", version="2025-06-18")
        gateway.client = replace(gateway.client, era=Era.LEGACY, version="2025-06-18", session=session)
        await gateway.call("tools/call", name="find", arguments={})
        await trio.sleep(1)
        session.notify(changed)
        gateway.engine._around.changes.announce("up", changed)
        await trio.sleep(1)
        session.close()
        await trio.sleep(1)

    tape = taped(traffic, [])
    kinds = (SessionOpened, SessionTold, SessionClosed, Announced)
    then = [(type(each), each.t) for each in tape.entries() if isinstance(each, kinds)]
    seen: list[Entry] = []
    play(tape, document([]), seen.append)

    assert [kind for kind, _ in then] == [SessionOpened, SessionTold, Announced, SessionClosed]
    assert [(type(each), each.t) for each in seen if isinstance(each, kinds)] == then


def test_a_connection_that_went_away_goes_away_again(taped):
    """Its exchange ends with it."""

    async def traffic(gateway: PipelineHarness) -> None:
        with trio.move_on_after(1):
            source = next(iter(gateway.engine.sources.values()))
            ticket = source.handle(  # type: ignore[attr-defined]  # a fake source's
                Request(1, "tools/call", {"name": "slow"}), client=gateway.client, emit=_emit
            )
            await ticket.run()

    tape = taped(traffic, [], FakeSink.slow(10))
    assert [each.cancelled for each in tape.entries() if isinstance(each, Ended)] == ["connection"]
    assert_equal(tape, document([]))


async def _emit(_notification: Notification) -> None:
    """Nobody hears it."""


def test_the_date_is_that_of_the_tape(recorded, tape_path):
    """Also where it was corrected."""
    dates = iter([1_800_000_000.0])
    told: list[float] = []

    async def main() -> None:
        offset = [0.0]

        def now() -> float:
            return next(dates, 1_800_000_000.0) + trio.current_time() + offset[0]

        async with recorded([], now=now) as gateway:
            await gateway.call("ping")
            told.append(gateway.engine._around.now())
            offset[0] = 3600.0
            await trio.sleep(1)
            told.append(gateway.engine._around.now())
            await gateway.call("ping")

    trio.run(main, clock=MockClock(autojump_threshold=0))
    tape = Tape(tape_path)
    seen: list[Entry] = []
    play(tape, document([]), seen.append)

    assert told[1] - told[0] == pytest.approx(3601.0)
    assert [each.epoch for each in seen if isinstance(each, ClockSet)] == [
        each.epoch for each in tape.entries() if isinstance(each, ClockSet)
    ]
    assert len([each for each in seen if isinstance(each, ClockSet)]) == 1


def test_who_was_refused_is_refused_again(taped, tmp_path):
    """Nobody has the credential any more; the stage that asked for it says what it said."""

    async def traffic(gateway: PipelineHarness) -> None:
        await gateway.call("tools/call", name="find", arguments={})

    keys, pepper = tmp_path / "keys.yaml", tmp_path / "pepper"
    keys.write_text('{"keys": []}')
    pepper.write_text("a pepper of thirty-two characters")
    chain = [{"auth_api_key": {"pepper": {"from_file": str(pepper)}, "file": str(keys)}}]
    tape = taped(traffic, chain)
    then = next(exchanges(tape.entries()))
    keys.unlink()
    pepper.unlink()
    now, played = replayed(tape, document(chain))

    assert then.ended.reply.error.http_status == 401
    assert now[1].ended.reply == then.ended.reply
    assert now[1].ended.headers == then.ended.headers == {"www-authenticate": 'ApiKey realm="sluiceway"'}
    assert (list(now[1].calls), played.lacking) == ([], [])


def test_a_played_sink_is_never_called_itself():
    """The player answers in its place, at the edge."""
    with pytest.raises(AssertionError, match="is played"):
        trio.run(PlayedSink("up"), memory_exchange("ping"))


def test_spans_are_not_exported():
    """A stage says which options keep it to itself."""
    config = document([{"trace": {"otlp": {"endpoint": "http://127.0.0.1:1"}}}])

    assert config.pipelines["main"].chain[0].config.otlp is not None
    assert secluded(config).pipelines["main"].chain[0].config.otlp is None
