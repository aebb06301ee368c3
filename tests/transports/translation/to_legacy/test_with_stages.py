"""Stages in front of a translation: what belongs to one conversation is neither kept, nor shared, nor repeated."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import pytest
import trio

from sluiceway.middlewares.cache.stage import Cache
from sluiceway.middlewares.dedup import Dedup
from sluiceway.middlewares.retry import Retry
from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.protocol.errors import ConnectFailed, UpstreamClosed
from sluiceway.pipeline.protocol.messages import Reply, Result

YES = {"action": "accept"}


async def test_questions_and_answers_pass_each_on_its_own(autojump_clock, server, serving):
    """Two callers of the same resource at the same time get a state each, and each answer counts once."""

    async def handle(exchange: Exchange) -> Reply:
        await exchange.ask("elicitation/create", {"message": "m"})
        return Result({"contents": []})

    server.handlers["resources/read"] = handle
    states: list[str] = []
    async with serving(server, addressed=True) as peer, AsyncExitStack() as stack:
        service: Any = peer.service
        kinds: list[Any] = [Retry, Cache, Dedup]
        for kind in kinds:
            stage = kind(kind.Config(), Context(id=kind.name))
            await stack.enter_async_context(stage.open())
            service = _around(stage, service)

        async def read(**more: Any) -> Any:
            reply = await service(peer.exchange("resources/read", {"uri": "x:1", **more}))
            assert isinstance(reply, Result)
            return reply.value

        async def visit() -> None:
            asked = await read()
            states.append(asked["requestState"])
            done = await read(requestState=asked["requestState"], inputResponses={"q1": YES})
            assert done["resultType"] == "complete"

        async with trio.open_nursery() as nursery:
            nursery.start_soon(visit)
            nursery.start_soon(visit)
        await visit()

    assert len(set(states)) == 3
    assert len(server.of("resources/read")) >= 3


@pytest.mark.parametrize("kind", [UpstreamClosed, ConnectFailed])
async def test_an_answer_is_not_sent_twice_when_the_upstream_dies_of_it(autojump_clock, server, serving, kind):
    """The call may have run, even if the latest try was not sent."""

    async def handle(exchange: Exchange) -> Reply:
        await exchange.ask("elicitation/create", {"message": "m"})
        raise kind("gone")

    server.handlers["prompts/get"] = handle
    failures: list[str] = []
    async with serving(server) as peer:
        stage = Retry(Retry.Config(), Context(id="retry"))
        async with stage.open():
            service = _around(stage, peer.service)
            asked = await service(peer.exchange("prompts/get", {"name": "p"}))
            params = {"name": "p", "requestState": asked.value["requestState"], "inputResponses": {"q1": YES}}
            try:
                await service(peer.exchange("prompts/get", params))
            except kind as error:
                failures.append(error.message)

    assert failures == ["gone"]
    assert len(server.of("prompts/get")) == 1


def _around(stage: Any, service: Any) -> Any:
    async def call(exchange: Exchange) -> Reply:
        reply: Reply = await stage(exchange, service)
        return reply

    return call
