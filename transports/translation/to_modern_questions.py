"""What a modern upstream wants to know (2026-07-28, basic/patterns/mrtr), put to a client that is asked directly."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import trio

from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.protocol.errors import GatewayError, UpstreamProtocolError
from sluiceway.pipeline.protocol.messages import ErrorReply, Json, Request, Result
from sluiceway.pipeline.runtime.nursery import unwrap_single

_NEEDS: Final = {"sampling/createMessage": "sampling", "elicitation/create": "elicitation", "roots/list": "roots"}
"""What may be asked, and the capability with which a client says that it can answer."""


def requests_of(name: str, value: Mapping[str, Json]) -> dict[str, Json]:
    """
    The questions of a result or a task, by the upstream's keys.

    Args:
        name: What the upstream is called in errors.
        value: What it said.

    Raises:
        UpstreamProtocolError: They are none.
    """
    asked = value.get("inputRequests", {})
    if not isinstance(asked, dict):
        raise UpstreamProtocolError(f"{name}: the upstream's inputRequests are not an object")
    return asked


def question_of(
    name: str, capabilities: Mapping[str, Json], key: str, asked: Json, new_id: Callable[[], str]
) -> Request:
    """
    One question as a legacy client knows it.

    Args:
        name: What the upstream is called in errors.
        capabilities: The client's.
        key: The upstream's.
        asked: What it wants to know.
        new_id: Makes ids.

    Raises:
        UpstreamProtocolError: It is none, or not for this client.
    """
    method = asked.get("method") if isinstance(asked, dict) else None
    params = asked.get("params") if isinstance(asked, dict) else None
    params = {} if params is None else params
    if not isinstance(method, str) or method not in _NEEDS or not isinstance(params, dict):
        raise UpstreamProtocolError(f"{name}: the upstream asks for {str(method)[:60]!r}, which is no question")
    if _NEEDS[method] not in capabilities:
        raise UpstreamProtocolError(
            f"{name}: the upstream asks for {method}, and the client has not said that it can do that"
        )
    if params.get("mode") == "url" and "elicitationId" not in params:  # only the older revision has it
        params = {**params, "elicitationId": new_id()}
    return Request(key, method, params)


async def ask_all(exchange: Exchange, questions: Mapping[str, Request]) -> dict[str, Json] | ErrorReply:
    """
    Put questions to the client, all at once; the first error makes the others superfluous, and is the answer.

    Raises:
        GatewayError: As asking does.
    """
    answers: dict[str, Json] = {}
    failures: list[ErrorReply | GatewayError] = []

    async def ask(key: str, question: Request) -> None:
        try:
            reply = await exchange.ask(question.method, question.params)
        except GatewayError as error:
            failures.append(error)
        else:
            if isinstance(reply, Result):
                answers[key] = reply.value
                return
            failures.append(reply)
        nursery.cancel_scope.cancel()

    with unwrap_single():
        async with trio.open_nursery() as nursery:
            for key, question in questions.items():
                nursery.start_soon(ask, key, question)
    if not failures:
        return {key: answers[key] for key in questions}
    if isinstance(failures[0], GatewayError):
        raise failures[0]
    return failures[0]
