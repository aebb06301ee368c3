"""Questions of a legacy upstream: who is asked, and who not."""

from __future__ import annotations

from typing import Any

import trio
import trio.testing

from sluiceway.pipeline.protocol.errors import CapacityExceeded
from sluiceway.pipeline.protocol.messages import ErrorReply, Reply, Request, Response, Result
from sluiceway.pipeline.testing import memory_exchange
from sluiceway.transports.questions import MAX_QUESTIONS, Questions, answer_at_once, nobody


def questions_of(ask: Any) -> tuple[Questions, list[Response]]:
    """Questions to a client, and the answers that went upstream."""
    answers: list[Response] = []

    async def answer(response: Response) -> None:
        await trio.lowlevel.checkpoint()
        answers.append(response)

    return Questions(memory_exchange(ask=ask).ask, answer), answers


async def _never(method: str, params: Any) -> Reply:
    await trio.sleep_forever()
    return Result()


async def test_the_clients_answer_goes_back_under_the_upstreams_id():
    """With its exact type."""

    async def ask(method: str, params: Any) -> Reply:
        return Result({"asked": method, **params})

    questions, answers = questions_of(ask)
    await questions.ask(Request("1", "roots/list", {"x": 1}))

    assert answers == [Response("1", Result({"asked": "roots/list", "x": 1}))]
    assert len(questions) == 0


async def test_a_client_that_cannot_be_asked_is_an_error_for_the_upstream():
    """What the gateway refuses is said in JSON-RPC."""

    async def ask(method: str, params: Any) -> Reply:
        raise CapacityExceeded("full")

    questions, answers = questions_of(ask)
    await questions.ask(Request(1, "roots/list"))

    assert isinstance(answers[0].reply, ErrorReply)
    assert answers[0].reply.message == "full"


async def test_a_question_twice_or_one_too_many_is_refused():
    """The first ones stay open."""
    questions, answers = questions_of(_never)
    async with trio.open_nursery() as nursery:
        for number in range(MAX_QUESTIONS):
            nursery.start_soon(questions.ask, Request(number, "roots/list"))
        await trio.testing.wait_all_tasks_blocked()
        await questions.ask(Request(0, "roots/list"))
        await questions.ask(Request("more", "roots/list"))
        assert len(questions) == MAX_QUESTIONS
        questions.close()

    assert [(answer.id, answer.reply.code) for answer in answers if isinstance(answer.reply, ErrorReply)] == [
        (0, -32600),
        ("more", -32603),
    ]


async def test_after_the_exchange_nobody_is_asked():
    """The upstream is told, should it still care."""
    questions, answers = questions_of(_never)
    questions.close()
    await questions.ask(Request(1, "roots/list"))

    assert isinstance(answers[0].reply, ErrorReply)
    assert answers[0].reply.code == -32603


async def test_only_what_was_asked_can_be_taken_back():
    """Ids are compared with their type; what is no id is nobody's."""
    questions, answers = questions_of(_never)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(questions.ask, Request("1", "roots/list"))
        await trio.testing.wait_all_tasks_blocked()
        assert [questions.take_back(each) for each in (1, None, ["1"], True)] == [False] * 4
        assert questions.take_back("1")

    assert answers == []


def test_a_ping_needs_no_client():
    """Everything else does; who has none gets an error."""
    assert answer_at_once(Request(1, "ping")) == Response(1, Result())
    assert answer_at_once(Request(1, "roots/list")) is None
    refusal = nobody(Request(1, "roots/list")).reply
    assert isinstance(refusal, ErrorReply)
    assert refusal.code == -32601
