"""What two tapes of the same clients have different."""

from __future__ import annotations

from typing import Any

import pytest

from sluiceway.pipeline.replay.comparing import Comparison
from sluiceway.pipeline.replay.entries import (
    Asked,
    Begun,
    Called,
    CallEnded,
    CallerData,
    DecisionData,
    Ended,
    Entry,
    ErrorData,
    MessageData,
    Relayed,
    ReplyData,
)
from sluiceway.pipeline.replay.matching import MISSING, Ignoring, Place, differences, distance
from sluiceway.pipeline.replay.nearest import describe_lack, describe_place, render
from sluiceway.pipeline.replay.values import message_of

CALL = MessageData("tools/call", {"name": "find", "arguments": {"q": "a"}}, 1)
STAGE = "pipelines.main.rate_limit"


def exchange(number: int = 1, *between: Entry, **ended: Any) -> list[Entry]:
    """The entries of an exchange with one call of a sink."""
    reply = ReplyData(result={"content": []})
    return [
        Begun(t=1.0, exchange=number, source="in", message=CALL),
        Called(t=1.0, exchange=number, call=number, sink="up"),
        *between,
        CallEnded(t=2.0, exchange=number, call=number, reply=reply),
        Ended(t=2.0, exchange=number, **{"reply": reply, **ended}),
    ]


def compared(then: list[Entry], now: list[Entry], **options: Any) -> Comparison:
    """A comparison of two tapes."""
    comparison = Comparison(**options)
    for entry in then:
        comparison.hear(entry)
    for entry in now:
        comparison.see(entry)
    comparison.finish()
    return comparison


def places(then: list[Entry], now: list[Entry], **options: Any) -> list[Place]:
    """Where they differ."""
    return [place for each in compared(then, now, **options).changed for place in each.places]


def test_the_same_is_no_difference():
    """Numbers of lines and calls, and times, do not count."""
    then = [*exchange(1), *exchange(2)]
    now = [*exchange(2), *exchange(1)]

    assert places(then, now) == []
    assert compared(then, now).compared == 2


def test_one_decision_more_is_one_difference():
    """Rows are aligned; what comes behind is the same."""
    allow, miss = DecisionData(STAGE, "allow"), DecisionData("pipelines.main.cache", "miss", "first")
    found = compared(exchange(decisions=(miss,)), exchange(decisions=(allow, miss)))

    assert found.changed[0].places == (Place("decisions", MISSING, f"{STAGE}: allow"),)
    assert dict(found.kinds) == {(MISSING, f"{STAGE}: allow"): 1}


def test_another_decision_is_told_with_what_it_was():
    """With its cause."""
    found = places(
        exchange(decisions=(DecisionData(STAGE, "allow"),)), exchange(decisions=(DecisionData(STAGE, "refuse", "2/s"),))
    )

    assert found == [Place("decisions", f"{STAGE}: allow", f"{STAGE}: refuse (2/s)")]


def test_decisions_of_stages_that_are_stood_in_for_do_not_count():
    """Nobody reads credentials that are on no tape."""
    assert places(exchange(decisions=(DecisionData(STAGE, "allow"),)), exchange(), apart=[STAGE]) == []


def test_a_reply_differs_where_it_differs():
    """Not as a whole."""
    found = places(exchange(reply=ReplyData(result={"a": [1, 2]})), exchange(reply=ReplyData(result={"a": [1, 3]})))

    assert found == [Place("reply.result.a.1", 2, 3)]


def test_what_was_cancelled_is_told():
    """And that there is no reply any more."""
    found = places(exchange(), exchange(reply=None, cancelled="client"))

    assert found == [Place("cancelled", "", "client"), Place("reply", {"result": {"content": []}}, None)]


def test_a_sink_that_is_not_called_any_more_is_told():
    """What reached which sink counts."""
    now = [entry for entry in exchange() if not isinstance(entry, Called | CallEnded)]

    assert places(exchange(), now) == [
        Place("calls.0", {"sink": "up", "request": {"method": "tools/call", "params": CALL.params, "id": 1}}, MISSING)
    ]


def test_another_request_to_a_sink_is_told():
    """Where it differs."""
    other = MessageData("tools/call", {"name": "find", "arguments": {"q": "b"}}, 1)
    now = [
        Called(t=entry.t, exchange=1, call=1, sink="up", message=other) if isinstance(entry, Called) else entry
        for entry in exchange()
    ]

    assert places(exchange(), now) == [Place("calls.0.request.params.arguments.q", "a", "b")]


def test_relays_and_questions_count():
    """Each by itself."""
    told = Relayed(t=1.5, exchange=1, message=MessageData("notifications/progress", {"progress": 1}))
    more = Relayed(t=1.5, exchange=1, message=MessageData("notifications/progress", {"progress": 2}))
    asked = Asked(t=1.5, exchange=1, question=1, message=MessageData("roots/list"))

    assert places(exchange(1, told), exchange(1, more)) == [Place("relayed.0.params.progress", 1, 2)]
    assert [place.path for place in places(exchange(1, asked), exchange())] == ["asked"]


def test_an_exchange_that_is_only_on_one_side_is_told():
    """Whichever side that is."""
    assert places(exchange(), []) == [Place("exchange", "there", MISSING)]
    assert places([], exchange()) == [Place("exchange", MISSING, "there")]


def test_one_that_did_not_end_is_compared_as_it_is():
    """Its reply is missing."""
    assert [each.path for each in places(exchange(), exchange()[:-1])] == ["reply"]


@pytest.mark.parametrize("part", [slice(1, None), slice(None, -1)])
def test_what_the_tape_has_only_in_part_is_not_compared(part):
    """Its recorder was killed, or old parts were removed; that is told."""
    found = compared(exchange()[part], exchange())

    assert (found.count, found.partial) == (0, 1)


def test_what_a_component_began_by_itself_is_compared_without_an_end():
    """It has none."""
    then = [Begun(t=1.0, exchange=1, message=CALL), *exchange()[1:-1]]
    other = [CallEnded(t=2.0, exchange=1, call=1) if isinstance(each, CallEnded) else each for each in then]

    assert (compared(then, other).count, compared(then, then).compared) == (0, 1)


def test_ids_count_only_under_the_same_configuration():
    """Another one makes others."""
    then, now = exchange(correlation="a"), exchange(correlation="b")

    assert places(then, now) == [Place("correlation", "a", "b")]
    assert places(then, now, ids=False) == []


def test_what_is_ignored_does_not_count():
    """Globs of paths, and everything below them."""
    then = exchange(reply=ReplyData(result={"content": [{"text": "1"}], "more": 1}))
    now = exchange(reply=ReplyData(result={"content": [{"text": "2"}], "more": 1}))

    assert places(then, now, ignored=["reply.result.content"]) == []
    assert places(then, now, ignored=["*.text"]) == []


def test_masked_values_are_equal():
    """Nobody knows what they were."""
    then = exchange(reply=ReplyData(result={"token": "***:0123456789ab"}))
    now = exchange(reply=ReplyData(result={"token": "***:ba9876543210"}))

    assert places(then, now) == []


def test_who_called_stands_in_the_title():
    """As far as anybody found out."""
    ana = CallerData(subject="ana", tenant="acme")
    found = compared(exchange(caller=ana), exchange(caller=ana, reply=ReplyData(error=ErrorData(1, "no"))))

    assert (found.changed[0].title, found.changed[0].caller) == ("tools/call find", "ana of acme")


def test_many_differences_are_counted(monkeypatch):
    """The first ones are kept."""
    monkeypatch.setattr("sluiceway.pipeline.replay.comparing.MAX_KEPT", 3)
    then = [entry for number in range(1, 6) for entry in exchange(number)]
    now = [entry for number in range(1, 6) for entry in exchange(number, cancelled="client")]
    found = compared(then, now)

    assert (found.count, len(found.changed)) == (5, 3)


def test_long_lists_are_compared_by_position(monkeypatch):
    """To align them would take too long."""
    monkeypatch.setattr("sluiceway.pipeline.replay.comparing._LONG", 1)
    one, other = DecisionData(STAGE, "allow"), DecisionData(STAGE, "refuse")

    assert places(exchange(decisions=(one, one)), exchange(decisions=(one, other))) == [
        Place("decisions.1", f"{STAGE}: allow", f"{STAGE}: refuse")
    ]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (1, 1.0, []),
        (1, True, [("p", 1, True)]),
        ({"a": 1}, {"b": 1}, [("p.a", 1, MISSING), ("p.b", MISSING, 1)]),
        ([1], [1, 2], [("p.1", MISSING, 2)]),
        ({"a": 1}, [1], [("p", {"a": 1}, [1])]),
        (None, {}, [("p", None, {})]),
    ],
)
def test_differences_are_told_deepest_first(before, after, expected):
    """Where two JSON values differ."""
    found = [(each.path, each.before, each.after) for each in differences(before, after, "p", Ignoring())]

    assert found == expected


def test_distance_has_a_bound():
    """However much differs."""
    assert distance(list(range(5000)), list(range(1, 5001)), Ignoring()) == 1000


def test_places_are_told_in_a_line():
    """Long values are cut."""
    assert describe_place(Place("a", "x", None)) == 'a: "x" -> null'
    assert len(render("x" * 500)) == 80


def test_a_lack_names_the_nearest_request():
    """Of those with the same method; at most five places."""
    request = MessageData("tools/call", {"name": "find", "arguments": {str(n): n for n in range(9)}}, 1)
    near = MessageData("tools/call", {"name": "find", "arguments": {}}, 1)
    said = describe_lack(message_of(request), "up", [MessageData("ping"), near], Ignoring())

    assert said.startswith("up: an answer to tools/call find; the nearest recorded request differs: params.arguments.0")
    assert said.endswith("; and 4 more")
    assert describe_lack(message_of(request), "up", [], Ignoring()) == "up: an answer to tools/call find"
    assert describe_lack(message_of(near), "up", [near], Ignoring()) == "up: an answer to tools/call find"


@pytest.mark.parametrize(
    ("before", "after", "differs"),
    [
        ("x: 2/s; try again in 488ms", "x: 2/s; try again in 1.5s", False),
        ("2/s; try again in 1s", "1/s; try again in 1s", True),
    ],
)
def test_how_long_to_wait_is_not_compared(before, after, differs):
    """A real gateway takes its time until it says so, a virtual one none; what the limit is, is compared."""

    def refused(message: str, wait_ms: int) -> list[Entry]:
        data = {"origin": "gateway", "reason": "rate_limited", "retry_after_ms": wait_ms}
        headers = {"ratelimit": f"r=1;t={wait_ms}", "retry-after": str(wait_ms)}
        return exchange(reply=ReplyData(error=ErrorData(42900, message, data, 429)), headers=headers)

    found = places(refused(before, 488), refused(after, 1500))

    assert [place.path for place in found] == ["reply.error.message"] * differs
