"""Entries are put together by exchange, whatever is missing."""

from __future__ import annotations

from sluiceway.pipeline.replay import assembly
from sluiceway.pipeline.replay.assembly import exchange_of, exchanges
from sluiceway.pipeline.replay.entries import (
    Answered,
    Asked,
    Begun,
    CallAnswered,
    CallAsked,
    Called,
    CallEnded,
    CallRelayed,
    CancelAsked,
    Ended,
    MessageData,
    Relayed,
    ReplyData,
    StageEntered,
    StageLeft,
    StateChanged,
)

PING = MessageData("ping")


def begun(exchange: int, t: float = 0.0, source: str = "in") -> Begun:
    """A beginning."""
    return Begun(t=t, exchange=exchange, source=source, message=MessageData("ping", {}, exchange))


def ended(exchange: int, t: float = 9.0) -> Ended:
    """An end."""
    return Ended(t=t, exchange=exchange)


def called(exchange: int, call: int, message: MessageData | None = None) -> Called:
    """A call."""
    return Called(t=1.0, exchange=exchange, call=call, sink="up", message=message)


def call_ended(exchange: int, call: int) -> CallEnded:
    """Its end."""
    return CallEnded(t=4.0, exchange=exchange, call=call, reply=ReplyData(result={}))


def test_everything_of_an_exchange_is_found_in_its_place():
    """Calls with what belongs to them, in the order of the tape."""
    tape = [
        begun(1), StageEntered(t=0.5, exchange=1, visit=1, stage="s"), called(1, 1),
        CallRelayed(t=2.0, exchange=1, call=1, message=PING), Relayed(t=2.0, exchange=1, message=PING),
        CallAsked(t=2.0, exchange=1, call=1, question=1, message=PING),
        Asked(t=2.0, exchange=1, question=1, message=PING), Answered(t=3.0, exchange=1, question=1),
        CallAnswered(t=3.0, exchange=1, call=1, question=1), CancelAsked(t=3.0, exchange=1, by="client"),
        call_ended(1, 1), StageLeft(t=5.0, exchange=1, visit=1, stage="s"), ended(1),
    ]  # fmt: skip
    (found,) = exchanges(tape)
    call = found.calls[1]

    assert found.entries == tape
    assert (found.begun, found.ended, found.is_whole, found.took) == (tape[0], tape[-1], True, 9.0)
    assert [len(x) for x in (found.relayed, found.asked, found.answered, found.cancels)] == [1, 1, 1, 1]
    assert [len(x) for x in (call.relayed, call.asked, call.answered)] == [1, 1, 1]
    assert (call.took, found.visits[1].left) == (3.0, tape[-2])
    assert found.request_of(call) == tape[0].message


def test_the_message_of_a_call_is_its_own_if_a_stage_changed_it():
    """Else it is the client's, if that is there."""
    other = MessageData("other")
    (found,) = exchanges([begun(1), called(1, 1, other), call_ended(1, 1), ended(1)])
    (torn,) = exchanges([called(2, 1), call_ended(2, 1), ended(2)])

    assert found.request_of(found.calls[1]) == other
    assert torn.request_of(torn.calls[1]) is None


def test_exchanges_come_in_the_order_in_which_they_end():
    """Those that do not end come last, and say so."""
    found = list(exchanges([begun(1), begun(2), begun(3), ended(3), StateChanged(t=1.0, component="x", state="ready"),
                            ended(2)]))  # fmt: skip

    assert [(x.number, x.is_whole) for x in found] == [(3, True), (2, True), (1, False)]
    assert found[-1].took is None


def test_a_call_that_outlasts_its_exchange_is_waited_for():
    """An attempt that lost is told to stop, and may take its time."""
    found = list(exchanges([begun(1), called(1, 1), ended(1), begun(2), ended(2), call_ended(1, 1)]))

    assert [x.number for x in found] == [2, 1]
    assert found[1].calls[1].took == 3.0


def test_an_exchange_that_a_component_began_is_over_when_its_calls_are():
    """Nobody waits for its end."""
    found = list(exchanges([begun(1, source=""), called(1, 1), call_ended(1, 1), begun(2), ended(2)]))

    assert [(x.number, x.ended) for x in found] == [(1, None), (2, ended(2))]


def test_what_lost_its_beginning_is_still_put_together():
    """Old parts are dropped in the middle of exchanges."""
    (found,) = exchanges([
        CallRelayed(t=1.0, exchange=1, call=5, message=PING), call_ended(1, 5),
        StageLeft(t=1.0, exchange=1, visit=3, stage="s"), ended(1),
    ])  # fmt: skip

    assert (found.begun, found.calls, found.visits, found.is_whole, found.took) == (None, {}, {}, False, None)


def test_exchanges_that_never_end_fill_no_memory(monkeypatch):
    """Their ends may have been lost; the oldest is handed out as it is."""
    monkeypatch.setattr(assembly, "MAX_OPEN", 3)
    found = exchanges([begun(number) for number in range(1, 6)])

    assert [x.number for x in found] == [1, 2, 3, 4, 5]


def test_entries_without_an_exchange_belong_to_none():
    """They have other members."""
    assert exchange_of(StateChanged(t=0.0, component="x", state="ready")) == 0
    assert exchange_of(begun(4)) == 4
    assert called(1, 1).call == 1
    assert next(exchanges([called(1, 1)])).calls[1].took is None
