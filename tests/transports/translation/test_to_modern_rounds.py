"""What a modern upstream asks, and how a legacy client is asked it: on the stream of its own request."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import trio

from sluiceway.pipeline.protocol.errors import CapacityExceeded, UpstreamClosed, UpstreamProtocolError
from sluiceway.pipeline.protocol.messages import ErrorReply, Notification, Result
from sluiceway.transports.translation.to_modern_rounds import MAX_QUESTIONS, MAX_ROUNDS, PAUSES_S

ROOTS = {"method": "roots/list", "params": {}}
FORM = {"method": "elicitation/create", "params": {"message": "Sure?", "requestedSchema": {"type": "object"}}}
MODEL = {"method": "sampling/createMessage", "params": {"messages": [], "maxTokens": 5}}
DONE = Result({"content": [], "resultType": "complete"})


def asking(**questions: Any) -> Result:
    return Result({"resultType": "input_required", "inputRequests": questions, "requestState": "sealed"})


def script(upstream: Any, *replies: Any) -> None:
    """The upstream answers calls of tools one after the other; the last reply is given for ever."""
    left = list(replies)

    async def answer(exchange: Any) -> Any:
        reply = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(reply, Exception):
            raise reply
        return reply

    upstream.answers["tools/call"] = answer


async def call(kit: Any, upstream: Any, peer: Any, **params: Any) -> Any:
    async with kit.translating(upstream) as translator:
        await peer.start(translator)
        return await translator(peer.exchange("tools/call", {"name": "n", **params}))


async def test_questions_are_put_and_the_answers_go_back_in_a_new_request(autojump_clock, kit, upstream, peer):
    """With another id, the state as it was, and everything the first request said."""

    async def answer(method: str, params: Any) -> Any:
        return {
            "roots/list": Result({"roots": [{"uri": "file:///a"}]}),
            "elicitation/create": Result({"action": "accept", "content": {"sure": True}}),
            "sampling/createMessage": Result({"role": "assistant", "content": {}, "model": "m"}),
        }[method]

    peer.answer = answer
    script(upstream, asking(r=ROOTS, f=FORM, m=MODEL), DONE)
    assert await call(kit, upstream, peer, arguments={"a": 1}, task={"ttl": 1}) == Result({"content": []})

    first, second = upstream.of("tools/call")
    assert sorted(peer.asked, key=str) == sorted(
        ((each["method"], each["params"]) for each in (ROOTS, FORM, MODEL)), key=str
    )
    assert "inputResponses" not in first.params
    assert second.params == {
        **first.params,
        "inputResponses": {
            "r": {"roots": [{"uri": "file:///a"}]},
            "f": {"action": "accept", "content": {"sure": True}},
            "m": {"role": "assistant", "content": {}, "model": "m"},
        },
        "requestState": "sealed",
    }
    assert "task" not in first.params
    assert first.id != second.id


async def test_each_round_has_its_own_state(autojump_clock, kit, upstream, peer):
    """Only what the latest round said is echoed; a round that names no state has none."""

    async def answer(method: str, params: Any) -> Any:
        return Result({"roots": []})

    peer.answer = answer
    without = Result({"resultType": "input_required", "inputRequests": {"again": ROOTS}})
    script(upstream, asking(r=ROOTS), without, DONE)
    await call(kit, upstream, peer)

    _, second, third = upstream.of("tools/call")
    assert (second.params["inputResponses"], second.params["requestState"]) == ({"r": {"roots": []}}, "sealed")
    assert third.params["inputResponses"] == {"again": {"roots": []}}
    assert "requestState" not in third.params


async def test_a_state_without_questions_is_sent_again_after_a_pause(autojump_clock, kit, upstream, peer):
    """The upstream wants to be asked later; the pauses grow."""
    times: list[float] = []
    script(upstream, Result({"resultType": "input_required", "requestState": "later"}))
    answer = upstream.answers["tools/call"]

    async def timed(exchange: Any) -> Any:
        times.append(trio.current_time())
        return DONE if len(times) == 6 else await answer(exchange)

    upstream.answers["tools/call"] = timed
    assert await call(kit, upstream, peer) == Result({"content": []})

    pauses = [round(after - before, 3) for before, after in pairwise(times)]
    assert pauses == [PAUSES_S[0], 0.2, 0.4, 0.8, PAUSES_S[1]]
    assert upstream.of("tools/call")[-1].params["requestState"] == "later"
    assert peer.asked == []


async def test_an_error_of_the_client_is_the_answer(autojump_clock, kit, upstream, peer):
    """There is no other way to tell an upstream; questions that are still open are taken back."""
    taken_back: list[str] = []

    async def answer(method: str, params: Any) -> Any:
        if method == "roots/list":
            await trio.sleep(1)
            return ErrorReply(-1, "the user said no")
        try:
            await trio.sleep_forever()
        finally:
            taken_back.append(method)

    peer.answer = answer
    script(upstream, asking(f=FORM, r=ROOTS, m=MODEL), DONE)
    assert await call(kit, upstream, peer) == ErrorReply(-1, "the user said no")

    assert sorted(taken_back) == ["elicitation/create", "sampling/createMessage"]
    assert len(upstream.of("tools/call")) == 1


async def test_a_client_that_cannot_be_asked_now_is_told_so(autojump_clock, kit, upstream, peer):
    """What the source raises comes out, whatever else was asked."""

    async def answer(method: str, params: Any) -> Any:
        raise CapacityExceeded("too many questions are open")

    peer.answer = answer
    script(upstream, asking(f=FORM, r=ROOTS), DONE)
    with pytest.raises(CapacityExceeded):
        await call(kit, upstream, peer)


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (asking(x={"method": "ping", "params": {}}), "no question"),
        (asking(x={"method": "tools/call", "params": {}}), "no question"),
        (asking(x={"method": ["roots/list"]}), "no question"),
        (asking(x={"method": "roots/list", "params": []}), "no question"),
        (asking(x="roots/list"), "no question"),
        (Result({"resultType": "input_required", "inputRequests": [ROOTS]}), "not an object"),
        (Result({"resultType": "input_required"}), "does not say for which"),
        (Result({"resultType": "input_required", "inputRequests": {}}), "does not say for which"),
        (asking(**{str(number): ROOTS for number in range(MAX_QUESTIONS + 1)}), "more than"),
        (Result({"resultType": "task", "task": {}}), "resultType"),
    ],
)
async def test_rubbish_of_the_upstream_fails_the_call(autojump_clock, kit, upstream, peer, reply, why):
    """The client is asked nothing."""
    script(upstream, reply, DONE)
    with pytest.raises(UpstreamProtocolError, match=why):
        await call(kit, upstream, peer)

    assert peer.asked == []


async def test_a_client_is_asked_only_what_it_said_it_can_do(autojump_clock, kit, upstream):
    """An upstream must not ask for anything else (2026-07-28, basic/patterns/mrtr)."""
    peer = kit.Peer(elicitation={})
    script(upstream, asking(f=FORM, m=MODEL), DONE)
    with pytest.raises(UpstreamProtocolError, match="sampling/createMessage"):
        await call(kit, upstream, peer)

    assert peer.asked == []


async def test_an_upstream_that_asks_on_and_on_is_stopped(autojump_clock, kit, upstream, peer):
    """After as many rounds as clients of the modern era allow."""

    async def answer(method: str, params: Any) -> Any:
        return Result({"roots": []})

    peer.answer = answer
    script(upstream, asking(r=ROOTS))
    async with kit.translating(upstream) as translator:
        await peer.start(translator)
        with pytest.raises(UpstreamProtocolError, match=f"{MAX_ROUNDS} times"):
            await translator(peer.exchange("tools/call", {"name": "n"}))
        figures = {figure.name: figure.value for figure in translator.figures()}
        assert figures["translated_rounds_total"] == MAX_ROUNDS + 1

    assert len(peer.asked) == MAX_ROUNDS


async def test_a_flood_of_questions_over_many_rounds_is_bounded_in_all(autojump_clock, kit, upstream, peer):
    """The bound is one of the request, not of a round."""

    async def answer(method: str, params: Any) -> Any:
        return Result({"roots": []})

    peer.answer = answer
    script(upstream, asking(**{str(number): ROOTS for number in range(30)}))
    with pytest.raises(UpstreamProtocolError, match=f"more than {MAX_QUESTIONS}"):
        await call(kit, upstream, peer)

    assert len(peer.asked) == 60


async def test_an_upstream_that_dies_while_a_question_is_open_fails_the_call_and_nothing_else(
    autojump_clock, kit, upstream, peer
):
    """Nothing of it is held meanwhile: the question is answered, and the next round finds nobody."""

    async def answer(method: str, params: Any) -> Any:
        await trio.sleep(60)
        return Result({"roots": []})

    peer.answer = answer
    script(upstream, asking(r=ROOTS), UpstreamClosed("died"))
    async with kit.translating(upstream) as translator:
        await peer.start(translator)
        with pytest.raises(UpstreamClosed):
            await translator(peer.exchange("tools/call", {"name": "n"}))
        script(upstream, DONE)
        assert await translator(peer.exchange("tools/call", {"name": "n"})) == Result({"content": []})


async def test_a_page_to_visit_has_the_id_that_the_older_revision_requires(autojump_clock, kit, upstream):
    """2025-11-25, client/elicitation; one that the upstream gives is kept."""
    peer = kit.Peer(elicitation={"url": {}})

    async def answer(method: str, params: Any) -> Any:
        return Result({"action": "accept"})

    peer.answer = answer
    page = {"method": "elicitation/create", "params": {"mode": "url", "message": "Go", "url": "https://a.example"}}
    named = {"method": "elicitation/create", "params": {**page["params"], "elicitationId": "theirs"}}  # type: ignore[dict-item]  # a literal
    script(upstream, asking(a=page), asking(b=named), DONE)
    await call(kit, upstream, peer)

    assert [bool(params["elicitationId"]) for _, params in peer.asked] == [True, True]
    assert peer.asked[1][1]["elicitationId"] == "theirs"


async def test_a_result_that_may_be_a_question_is_not_passed_on_in_pieces(autojump_clock, kit, upstream, peer):
    """What it is stands in the result itself."""
    script(upstream, DONE)
    exchange = peer.exchange("tools/call", {"name": "n"})

    async def pieces(piece: bytes) -> None:
        raise AssertionError(piece)

    exchange.link.pieces = pieces
    async with kit.translating(upstream) as translator:
        await peer.start(translator)
        await translator(exchange)

    assert upstream.exchanges[-1].takes_pieces is False


async def test_progress_never_goes_back(autojump_clock, kit, upstream, peer):
    """Each round counts anew, and the client knows one request only."""

    async def answers(method: str, params: Any) -> Any:
        return Result({"roots": []})

    async def answer(exchange: Any) -> Any:
        for step in (0, 1, 2, "?"):
            note = {"progressToken": "p", "progress": step + ("inputResponses" in exchange.request.params) * 0.5
                    if isinstance(step, int) else step}  # fmt: skip
            await exchange.relay(Notification("notifications/progress", note))
        return DONE if "inputResponses" in exchange.request.params else asking(r=ROOTS)

    peer.answer = answers
    upstream.answers["tools/call"] = answer
    await call(kit, upstream, peer, _meta={"progressToken": "p"})

    assert [n.params["progress"] for n in peer.interim] == [0, 1, 2, "?", 2.5, "?"]
