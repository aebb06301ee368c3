"""The SDK fixture's tools and prompt that ask the client and are called again with the answers (SEP-2322)."""

from __future__ import annotations

from typing import Any, Final

import mcp_types as types
from sdk_tools import Answer, Call, Tool

PROMPT: Final = "test_input_required_result_prompt"
CHECKED: Final = "round-1"
"""What is kept by the client between rounds; the SDK seals it, so that a changed one never comes here."""

Questions = dict[str, dict[str, Any]]


def _form(message: str, **properties: str) -> dict[str, Any]:
    members = {name: {"type": kind} for name, kind in properties.items()}
    schema = {"type": "object", "properties": members, "required": list(members)}
    return {"method": "elicitation/create", "params": {"message": message, "requestedSchema": schema}}


def _sample(text: str) -> dict[str, Any]:
    message = {"role": "user", "content": {"type": "text", "text": text}}
    return {"method": "sampling/createMessage", "params": {"messages": [message], "maxTokens": 100}}


NAME: Final[Questions] = {"user_name": _form("What is your name?", name="string")}
GREETING: Final[Questions] = {"greeting": _sample("Generate a greeting")}
ROOTS: Final[Questions] = {"client_roots": {"method": "roots/list"}}
CAPITAL: Final[Questions] = {"capital_question": _sample("What is the capital of France?")}
CONFIRM: Final[Questions] = {"confirm": _form("Please confirm", ok="boolean")}
FIRST: Final[Questions] = {"step1": _form("Step 1: What is your name?", name="string")}
SECOND: Final[Questions] = {"step2": _form("Step 2: What is your favorite color?", color="string")}
CONTEXT: Final[Questions] = {"user_context": _form("What context should the prompt use?", context="string")}


def _ask(questions: Questions, state: str | None = None) -> types.InputRequiredResult:
    return types.InputRequiredResult.model_validate({"inputRequests": questions, "requestState": state})


def _answered(questions: Questions, answers: dict[str, dict[str, Any]]) -> bool:
    """Whether each question has an answer of its kind: a form's accepted content has what it requires."""
    return all(_fits(question, answers.get(key)) for key, question in questions.items())


def _fits(question: dict[str, Any], answer: dict[str, Any] | None) -> bool:
    if answer is None:
        return False
    if question["method"] == "roots/list":
        return "roots" in answer
    if question["method"] == "sampling/createMessage":
        return "content" in answer and "model" in answer
    if answer.get("action") != "accept":
        return "action" in answer
    content = answer.get("content") or {}
    kinds = {"string": str, "boolean": bool}
    properties = question["params"]["requestedSchema"]["properties"]
    return all(isinstance(content.get(name), kinds[each["type"]]) for name, each in properties.items())


async def elicitation(call: Call) -> Answer:
    """Ask for a name."""
    if not _answered(NAME, call.answers):
        return _ask(NAME)
    content = call.answers["user_name"].get("content") or {}
    return f"Hello, {content.get('name', 'stranger')}!"


async def streaming_elicitation(call: Call) -> Answer:
    """Report progress, which makes the response a stream, and ask."""
    await call.context.session.report_progress(1, 2)
    return await elicitation(call)


async def sampling(call: Call) -> Answer:
    """Ask the model for a capital."""
    if not _answered(CAPITAL, call.answers):
        return _ask(CAPITAL)
    return f"The model says: {call.answers['capital_question']['content']}"


async def list_roots(call: Call) -> Answer:
    """Ask for the roots."""
    if not _answered(ROOTS, call.answers):
        return _ask(ROOTS)
    return "Roots: " + ", ".join(str(root["uri"]) for root in call.answers["client_roots"]["roots"])


async def request_state(call: Call) -> Answer:
    """Ask for a confirmation; the state must come back."""
    if call.state != CHECKED or not _answered(CONFIRM, call.answers):
        return _ask(CONFIRM, CHECKED)
    return "state-ok"


async def multiple_inputs(call: Call) -> Answer:
    """Ask three things at once."""
    questions = {**NAME, **GREETING, **ROOTS}
    if call.state != CHECKED or not _answered(questions, call.answers):
        return _ask(questions, CHECKED)
    return f"{len(call.answers)} answers"


async def multi_round(call: Call) -> Answer:
    """Ask one thing after the other."""
    if call.state is None or (call.state == CHECKED and not _answered(FIRST, call.answers)):
        return _ask(FIRST, CHECKED)
    if call.state == CHECKED:
        return _ask(SECOND, f"round-2 of {call.answers['step1']['content']['name']}")
    if not _answered(SECOND, call.answers):
        return _ask(SECOND, call.state)
    return f"{call.state} likes {call.answers['step2']['content']['color']}"


async def capabilities(call: Call) -> Answer:
    """Ask only what the client can answer."""
    declared = call.context.session.client_capabilities or types.ClientCapabilities()
    questions = {
        **(NAME if declared.elicitation is not None else {}),
        **(GREETING if declared.sampling is not None else {}),
        **(ROOTS if declared.roots is not None else {}),
    }
    if questions and not _answered(questions, call.answers):
        return _ask(questions)
    return f"{len(call.answers)} answers"


def need_context(answers: dict[str, dict[str, Any]]) -> str | types.InputRequiredResult:
    """The prompt: ask for context, then use it."""
    if not _answered(CONTEXT, answers):
        return _ask(CONTEXT)
    return f"Use this context: {answers['user_context'].get('content')}"


_ROUNDS: Final = {
    "elicitation": elicitation,
    "sampling": sampling,
    "list_roots": list_roots,
    "request_state": request_state,
    "multiple_inputs": multiple_inputs,
    "multi_round": multi_round,
    "tampered_state": request_state,
    "capabilities": capabilities,
}
TOOLS: Final = {
    "test_streaming_elicitation": Tool(streaming_elicitation),
    **{f"test_input_required_result_{name}": Tool(run) for name, run in _ROUNDS.items()},
}
"""By name."""
