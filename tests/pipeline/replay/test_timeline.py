"""A tape is read in order, and a bounded way ahead."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from sluiceway.pipeline.model.session import ANONYMOUS, Caller
from sluiceway.pipeline.protocol.errors import Forbidden, GatewayError, Unauthenticated
from sluiceway.pipeline.replay import timeline
from sluiceway.pipeline.replay.entries import (
    Begun,
    Called,
    CallEnded,
    CallerData,
    CallRelayed,
    Configured,
    DecisionData,
    Ended,
    Entry,
    ErrorData,
    IdMade,
    MessageData,
    ReplyData,
    Seeded,
)
from sluiceway.pipeline.replay.timeline import Timeline


def begun(number: int, source: str = "in") -> Begun:
    """An exchange begins."""
    return Begun(t=number, exchange=number, source=source, message=MessageData("ping", {}, number))


def called(number: int, call: int, sink: str = "up", **more: Any) -> Called:
    """Its sink is called."""
    return Called(t=number, exchange=number, call=call, sink=sink, **more)


def ended(number: int, **more: Any) -> Ended:
    """It ends."""
    return Ended(t=number, exchange=number, **more)


def any_call(_open: Any, _called: Called) -> bool:
    """Whatever it is."""
    return True


def counted(entries: list[Entry], taken: list[Entry]) -> Iterator[Entry]:
    """Entries, with those that were read."""
    for entry in entries:
        taken.append(entry)
        yield entry


def test_what_was_looked_ahead_comes_in_order():
    """Nothing is lost, nothing comes twice."""
    entries = [begun(1), called(1, 1), ended(1), IdMade(t=1, component="a", value="x")]
    tape = Timeline(iter(entries))

    assert tape.new_id("a") == "x"
    assert tape.new_id("a") is None
    assert [tape.next() for _ in range(5)] == [*entries, None]


def test_seeds_and_ids_come_in_their_order_by_component():
    """Each component has its own."""
    tape = Timeline(
        iter(
            [Seeded(t=0, component="a", seed="ff"), Seeded(t=0, component="b", seed="1"),
             Seeded(t=0, component="a", seed="2"), IdMade(t=0, component="a", value="x")]
        )
    )  # fmt: skip

    assert [tape.seed("a"), tape.seed("b"), tape.seed("a"), tape.seed("a")] == [255, 1, 2, None]
    assert tape.new_id("b") is None


def test_it_is_looked_ahead_a_bounded_way(monkeypatch):
    """However long the tape is."""
    monkeypatch.setattr(timeline, "AHEAD", 10)
    taken: list[Entry] = []
    tape = Timeline(counted([begun(number) for number in range(1, 100)], taken))

    assert tape.new_id("a") is None
    assert len(taken) == 10


def test_a_call_is_given_once():
    """The first that is wanted; the search ends where the exchange does."""
    taken: list[Entry] = []
    tape = Timeline(counted([begun(1), called(1, 1), called(1, 2, "other"), ended(1), begun(2)], taken))

    def other(_open: Any, call: Called) -> bool:
        return call.sink == "other"

    first, again = tape.call(1, other), tape.call(1, other)

    assert first is not None
    assert (first.call, again, len(taken)) == (2, None, 4)
    assert [call.call for _, call in tape.unclaimed([1, 7])] == [1]


def test_calls_of_other_exchanges_can_be_taken():
    """If those were read already."""
    tape = Timeline(iter([begun(1), called(1, 1), ended(1), begun(2)]))
    tape.caller(1, "auth")

    assert tape.call_of([2], any_call) is None
    taken = tape.call_of([2, 1], any_call)
    assert taken is not None
    assert taken.call == 1


def test_who_an_exchange_is_of_is_known_from_its_first_call_or_its_end():
    """Whichever comes first."""
    ana = CallerData(subject="ana")
    tape = Timeline(iter([begun(1), called(1, 1, caller=ana), begun(2), ended(2, caller=ana), ended(3)]))
    found = [tape.caller(number, "auth") for number in (1, 2, 3)]

    assert [getattr(each, "subject", None) for each in found] == ["ana", "ana", ANONYMOUS.subject]


@pytest.mark.parametrize(("reason", "refused"), [("unauthenticated", True), ("rate_limited", False)])
def test_a_refusal_of_who_nobody_knows_is_that_of_its_identity(reason, refused):
    """Only if that is what it was refused for."""
    error = ReplyData(error=ErrorData(40100, "who?", {"origin": "gateway", "reason": reason}, 401))
    found = Timeline(iter([begun(1), ended(1, reply=error)])).caller(1, "auth")

    assert isinstance(found, GatewayError) is refused


@pytest.mark.parametrize("data", [None, "unauthenticated"])
def test_an_error_that_says_no_reason_is_nobodys_refusal(data):
    """It is an upstream's, whatever it looks like."""
    error = ReplyData(error=ErrorData(40100, "who?", data, 401))
    found = Timeline(iter([begun(1), ended(1, reply=error)])).caller(1, "auth")

    assert found is ANONYMOUS


def test_a_stage_that_says_it_refused_refuses_again():
    """As it did, and those before it do not: who was known by then is known again."""
    error = ReplyData(error=ErrorData(40300, "no tenant", {"origin": "gateway", "reason": "forbidden"}, 403))
    refused = (DecisionData("auth", "allow"), DecisionData("tenant", "refuse", "x"))
    end = ended(1, reply=error, caller=CallerData(subject="ana"), decisions=refused)
    tape = Timeline(iter([begun(1), end]))
    before, there = tape.caller(1, "auth"), tape.caller(1, "tenant")

    assert isinstance(before, Caller)
    assert before.subject == "ana"
    assert isinstance(there, Forbidden)
    assert there.message == "no tenant"


def test_a_notification_that_was_turned_away_is_turned_away():
    """Nobody was told why."""
    end = ended(1, decisions=(DecisionData("auth", "refuse", "x"),))
    tape = Timeline(iter([begun(1), end]))

    assert isinstance(tape.caller(1, "auth"), Unauthenticated)


def test_all_of_a_call_can_be_looked_up_ahead():
    """Without taking it from its place; nothing, if its end is too far."""
    told = CallRelayed(t=1, exchange=1, call=1, message=MessageData("x"))
    other = CallRelayed(t=1, exchange=1, call=2, message=MessageData("x"))
    end = CallEnded(t=2, exchange=1, call=1)
    tape = Timeline(iter([begun(1), told, other, end]))

    assert tape.rest_of(1) == [told, end]
    assert tape.rest_of(1) == [told, end]
    assert tape.rest_of(2) is None
    assert tape.next() == begun(1)


def test_what_is_over_is_forgotten():
    """Also what is read of it later."""
    tape = Timeline(iter([begun(1), called(1, 1), ended(1), begun(2)]))
    assert tape.next() == begun(1)
    tape.end(1)
    while tape.next() is not None:
        pass

    assert tape.unclaimed([1, 2]) == []


def test_exchanges_that_nobody_ends_have_a_bound(monkeypatch):
    """The oldest go."""
    monkeypatch.setattr(timeline, "MAX_OPEN", 5)
    tape = Timeline(iter([each for number in range(1, 20) for each in (begun(number), called(number, number))]))
    while tape.next() is not None:
        pass

    assert [call.call for _, call in tape.unclaimed(range(20))] == [15, 16, 17, 18, 19]


def test_reloads_are_told_with_their_time():
    """Not the first configuration."""
    tape = Timeline(iter([Configured(t=0, generation=1, digest="a"), Configured(t=1, generation=2, digest="b")]))
    while tape.next() is not None:
        pass

    assert tape.reloads == [1]
