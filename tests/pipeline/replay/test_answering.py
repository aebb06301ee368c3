"""A tape's upstreams behind a gateway that serves."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from attrs import evolve

from sluiceway.pipeline.config import from_data
from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.protocol.errors import UpstreamClosed, UpstreamUnavailable
from sluiceway.pipeline.protocol.messages import Notification, Result
from sluiceway.pipeline.replay import answering
from sluiceway.pipeline.replay.answering import Script, ScriptedSink, scripted
from sluiceway.pipeline.replay.assembly import exchanges
from sluiceway.pipeline.replay.entries import (
    Begun,
    Called,
    CallEnded,
    CallRelayed,
    Ended,
    Entry,
    FailureData,
    MessageData,
    ReplyData,
)
from sluiceway.pipeline.testing import PipelineHarness, memory_exchange


def call(number: int, params: dict[str, Any], outcome: Any, method: str = "tools/call", **more: Any) -> list[Entry]:
    """An exchange of two seconds with one call of the sink `up`."""
    key = "failure" if isinstance(outcome, FailureData) else "reply"
    return [
        Begun(t=1.0, exchange=number, source="in", message=MessageData(method, params, number)),
        Called(t=1.0, exchange=number, call=number, sink="up"),
        CallRelayed(t=2.0, exchange=number, call=number,
                    message=MessageData("notifications/progress", {"progressToken": 1, "progress": 1})),
        CallEnded(t=3.0, exchange=number, call=number, **{key: outcome}),
        Ended(t=3.0, exchange=number, **more),
    ]  # fmt: skip


def found(text: str) -> ReplyData:
    """A result."""
    return ReplyData(result={"text": text})


def sink_of(*tape: list[Entry]) -> tuple[ScriptedSink, Script]:
    """The sink `up`, with what it says."""
    script = Script()
    script.learn(exchanges(entry for each in tape for entry in each))
    return ScriptedSink(script, Context(id="sinks.up")), script


A = {"name": "find", "arguments": {"q": "a"}}


async def test_the_same_request_gets_the_recorded_answers_in_their_order(autojump_clock):
    """And the last one from then on; it takes the time that it took."""
    sink, script = sink_of(call(1, A, found("one")), call(2, A, found("two")))
    began = trio.current_time()
    said = [(await sink(memory_exchange("tools/call", {**A, "_meta": {"who": n}}))) for n in range(3)]

    assert [each.value for each in said] == [{"text": "one"}, {"text": "two"}, {"text": "two"}]
    assert trio.current_time() - began == pytest.approx(6)
    assert (script.given, script.lacked) == (3, 0)


async def test_progress_has_the_token_of_who_asks(autojump_clock):
    """Not that of who asked then."""
    sink, _ = sink_of(call(1, A, found("one")))
    heard: list[Notification] = []
    await sink(memory_exchange("tools/call", {**A, "_meta": {"progressToken": "mine"}}, interim=heard))

    assert [each.params for each in heard] == [{"progressToken": "mine", "progress": 1}]


async def test_failures_are_failures_again(autojump_clock):
    """Of the same class."""
    sink, _ = sink_of(call(1, A, FailureData("UpstreamClosed", "gone", "upstream_closed")))

    with pytest.raises(UpstreamClosed, match="gone"):
        await sink(memory_exchange("tools/call", A))


async def test_what_is_not_on_the_tape_fails_with_the_nearest(autojump_clock):
    """And is remembered, so that it can be told at the end."""
    sink, script = sink_of(call(1, A, found("one")))

    with pytest.raises(UpstreamUnavailable, match=r'params\.arguments\.q: "a" -> "b"'):
        await sink(memory_exchange("tools/call", {"name": "find", "arguments": {"q": "b"}}))
    assert (script.given, script.lacked, len(script.lacking)) == (0, 1, 1)


async def test_any_recorded_handshake_answers_any_client(autojump_clock):
    """They differ with every client."""
    hello = ReplyData(result={"protocolVersion": "2025-06-18"})
    sink, _ = sink_of(call(1, {"clientInfo": {"name": "a"}}, hello, "initialize"))
    reply: Any = await sink(memory_exchange("initialize", {"clientInfo": {"name": "b"}}))

    assert reply.value == {"protocolVersion": "2025-06-18"}


async def test_a_handshake_that_is_on_no_tape_is_answered(autojump_clock):
    """In either era."""
    sink, _ = sink_of()
    legacy: Any = await sink(memory_exchange("initialize", {"protocolVersion": "2025-03-26"}))
    modern: Any = await sink(memory_exchange("server/discover"))

    assert legacy.value["protocolVersion"] == "2025-03-26"
    assert "2026-07-28" in modern.value["supportedVersions"]


async def test_a_script_has_bounds(autojump_clock, monkeypatch):
    """The first requests, and the first answers to each."""
    monkeypatch.setattr(answering, "MAX_REQUESTS", 1)
    monkeypatch.setattr(answering, "MAX_REPEATS", 2)
    other = {"name": "other", "arguments": {}}
    sink, _ = sink_of(*(call(n, A, found(str(n))) for n in (1, 2, 3)), call(4, other, found("x")))
    said = [(await sink(memory_exchange("tools/call", A))) for _ in range(3)]

    assert [each.value["text"] for each in said] == ["1", "2", "2"]
    with pytest.raises(UpstreamUnavailable):
        await sink(memory_exchange("tools/call", other))


async def test_calls_that_were_cut_off_are_no_answers(autojump_clock):
    """Nobody knows what would have come."""
    cut = [entry for entry in call(1, A, found("x")) if not isinstance(entry, CallEnded)]
    sink, _ = sink_of(cut, [CallEnded(t=4.0, exchange=1, call=1)])

    with pytest.raises(UpstreamUnavailable):
        await sink(memory_exchange("tools/call", A))


async def test_a_gateway_of_scripted_sinks_keeps_its_chains_and_routers(autojump_clock):
    """Only what leads out is replaced."""
    document = from_data(
        {
            "version": 1,
            "sources": {"in": {"http": {"bind": "127.0.0.1:1"}}},
            "pipelines": {"main": {"chain": ["request_id"], "sink": "all"}},
            "sinks": {
                "all": {"route": {"to": ["up"], "separator": "."}},
                "up": {"http": {"url": "http://127.0.0.1:1/mcp"}, "max_in_flight": 3, "chain": ["retry"]},
            },
        }
    )
    script = Script()
    script.learn(exchanges(call(1, A, found("one"))))
    changed = scripted(document, script)

    assert changed.sinks["all"] is document.sinks["all"]
    assert evolve(changed.sinks["up"], cls=document.sinks["up"].cls).chain == document.sinks["up"].chain
    async with PipelineHarness(changed) as gateway:
        assert await gateway.call("tools/call", name="up.find", arguments={"q": "a"}) == Result({"text": "one"})
