"""
How the fixture asks where it has one era alone: questions go the way of that era, however a tool was written.

A tool that asks its session is called again with the answers; one that returns its questions has them asked first.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import mcp_types as types
import trio
from attrs import frozen
from mcp.shared.message import ServerMessageMetadata
from sdk_fixture import call_tool, get_prompt

KEY = "question"
RESULTS: dict[str, type[Any]] = {
    "elicitation/create": types.ElicitResult,
    "sampling/createMessage": types.CreateMessageResult,
    "roots/list": types.ListRootsResult,
}


class Asked(Exception):  # no error
    """A tool asks its session, and there is no answer yet."""

    def __init__(self, method: str, params: dict[str, Any]) -> None:
        self.questions = {KEY: {"method": method, "params": params}}


@frozen
class Session:
    """The SDK's session, but for its questions, which are answered from the round before."""

    inner: Any
    answers: dict[str, Any]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def elicit_form(self, message: str, schema: dict[str, Any], _related: Any) -> Any:
        """Show a form."""
        return self._answer("elicitation/create", {"message": message, "requestedSchema": schema})

    async def create_message(self, messages: list[Any], *, max_tokens: int, related_request_id: Any) -> Any:
        """Ask the model."""
        said = [each.model_dump(by_alias=True, mode="json", exclude_none=True) for each in messages]
        return self._answer("sampling/createMessage", {"messages": said, "maxTokens": max_tokens})

    def _answer(self, method: str, params: dict[str, Any]) -> Any:
        if KEY not in self.answers:
            raise Asked(method, params)
        return self.answers[KEY]


async def call_modern(context: Any, params: types.CallToolRequestParams) -> Any:
    """A tool's questions become its result."""
    session = Session(context.session, dict(params.input_responses or {}))
    try:
        return await call_tool(dataclasses.replace(context, session=session), params)
    except Asked as asked:
        return types.InputRequiredResult.model_validate({"inputRequests": asked.questions})


async def _ask_first(handler: Any, context: Any, params: Any) -> Any:
    while isinstance(result := await handler(context, params), types.InputRequiredResult):
        answers: dict[str, Any] = {}
        async with trio.open_nursery() as nursery:
            for key, question in (result.input_requests or {}).items():
                nursery.start_soon(_ask, context, key, question, answers)
        params = params.model_copy(update={"input_responses": answers, "request_state": result.request_state})
    return result


async def _ask(context: Any, key: str, question: Any, answers: dict[str, Any]) -> None:
    about = ServerMessageMetadata(related_request_id=context.request_id)
    answers[key] = await context.session.send_request(question, RESULTS[question.method], metadata=about)


call_legacy = partial(_ask_first, call_tool)
"""What a tool returns as questions is asked on the stream of the call."""
prompt_legacy = partial(_ask_first, get_prompt)
"""What a prompt returns as questions likewise."""
