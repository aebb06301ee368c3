"""The tools of the SDK's fixture that answer in one go; what each must do is written in the suite's scenarios."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Awaitable, Callable
from typing import Any, Final

import mcp_types as types
import trio
from attrs import frozen
from mcp.server.subscriptions import InMemorySubscriptionBus, PromptsListChanged, ToolsListChanged
from mcp.shared.exceptions import MCPError
from media import PIXEL, SILENCE
from schemas import JSON_SCHEMA

STEP_S: Final = 0.05
"""The suite asks for about 50 ms between two messages of a tool."""
NOTHING: Final[dict[str, Any]] = {"type": "object", "properties": {}}
BUS: Final = InMemorySubscriptionBus()
"""Where changes of the lists are told to `subscriptions/listen`."""

Answer = str | list[dict[str, Any]] | types.InputRequiredResult


@frozen
class Call:
    """One call of a tool."""

    context: Any
    """The SDK's context of the request."""
    arguments: dict[str, Any]
    answers: dict[str, dict[str, Any]]
    """What the client answered to the questions of the last round, by the questions' keys."""
    state: str | None
    """What the last round gave to the client to keep; the SDK has checked it."""


@frozen
class Tool:
    """A tool as it is listed and called."""

    run: Callable[[Call], Awaitable[Answer]]
    schema: dict[str, Any] = NOTHING
    fails: bool = False
    """Its result is an error (`isError`)."""


async def simple_text(_call: Call) -> Answer:
    """Return one text block."""
    return "This is a simple text response for testing."


async def image_content(_call: Call) -> Answer:
    """Return one image."""
    return [{"type": "image", "mimeType": "image/png", "data": b64encode(PIXEL).decode()}]


async def audio_content(_call: Call) -> Answer:
    """Return one sound."""
    return [{"type": "audio", "mimeType": "audio/wav", "data": b64encode(SILENCE).decode()}]


async def embedded_resource(_call: Call) -> Answer:
    """Return a resource inside the result."""
    return [_resource("test://embedded-resource", "text/plain", "This is an embedded resource content.")]


async def multiple_content_types(call: Call) -> Answer:
    """Return text, an image and a resource."""
    image = await image_content(call)
    resource = _resource("test://mixed-content-resource", "application/json", '{"test":"data","value":123}')
    return [{"type": "text", "text": "Multiple content types test:"}, *image, resource]


def _resource(uri: str, mime_type: str, text: str) -> dict[str, Any]:
    return {"type": "resource", "resource": {"uri": uri, "mimeType": mime_type, "text": text}}


async def tool_with_logging(call: Call) -> Answer:
    """Send three log messages on the way."""
    await _log(call, "Tool execution started")
    await trio.sleep(STEP_S)
    await _log(call, "Tool processing data")
    await trio.sleep(STEP_S)
    await _log(call, "Tool execution completed")
    return "Tool with logging executed successfully"


async def logging_tool(call: Call) -> Answer:
    """Log, which nobody hears who did not ask."""
    await _log(call, "Nobody asked for this unless the request says so")
    return "Logged"


async def _log(call: Call, text: str) -> None:
    context = call.context
    await context.session.send_log_message("info", text, related_request_id=context.request_id)


async def tool_with_progress(call: Call) -> Answer:
    """Report progress in three steps."""
    session = call.context.session
    await session.report_progress(0, 100)
    await trio.sleep(STEP_S)
    await session.report_progress(50, 100)
    await trio.sleep(STEP_S)
    await session.report_progress(100, 100)
    return "Tool with progress executed successfully"


async def error_handling(_call: Call) -> Answer:
    """Always fail."""
    return "This tool intentionally returns an error for testing"


async def sampling(call: Call) -> Answer:
    """Ask the client's model."""
    message = {"role": "user", "content": {"type": "text", "text": call.arguments["prompt"]}}
    said = await call.context.session.create_message(
        [types.SamplingMessage.model_validate(message)], max_tokens=100, related_request_id=call.context.request_id
    )
    return f"LLM response: {said.content.text}"


async def _elicit(call: Call, message: str, properties: dict[str, Any], *required: str) -> types.ElicitResult:
    schema = {"type": "object", "properties": properties, "required": list(required)}
    answer: types.ElicitResult = await call.context.session.elicit_form(message, schema, call.context.request_id)
    return answer


async def elicitation(call: Call) -> Answer:
    """Ask the user for a name and an address."""
    properties = {
        "username": {"type": "string", "description": "User's response"},
        "email": {"type": "string", "description": "User's email address"},
    }
    answer = await _elicit(call, call.arguments["message"], properties, "username", "email")
    return f"User response: action={answer.action}, content={answer.content}"


async def elicitation_defaults(call: Call) -> Answer:
    """Ask with a default for every primitive type."""
    properties = {
        "name": {"type": "string", "description": "User name", "default": "John Doe"},
        "age": {"type": "integer", "description": "User age", "default": 30},
        "score": {"type": "number", "description": "User score", "default": 95.5},
        "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
        "verified": {"type": "boolean", "description": "Verification status", "default": True},
    }
    answer = await _elicit(call, "Please review and update the form fields with defaults", properties)
    return f"Elicitation completed: action={answer.action}, content={answer.content}"


async def elicitation_enums(call: Call) -> Answer:
    """Ask with every kind of choice."""
    options = ["option1", "option2", "option3"]
    titled = [{"const": f"value{number}", "title": f"Choice {number}"} for number in (1, 2, 3)]
    names = ["Option One", "Option Two", "Option Three"]
    properties = {
        "untitledSingle": {"type": "string", "enum": options},
        "titledSingle": {"type": "string", "oneOf": titled},
        "legacyEnum": {"type": "string", "enum": ["opt1", "opt2", "opt3"], "enumNames": names},
        "untitledMulti": {"type": "array", "items": {"type": "string", "enum": options}},
        "titledMulti": {"type": "array", "items": {"anyOf": titled}},
    }
    answer = await _elicit(call, "Please select options from the enum fields", properties)
    return f"Elicitation completed: action={answer.action}, content={answer.content}"


async def reconnection(call: Call) -> Answer:
    """Close the stream in the middle; the client comes back for the rest (SEP-1699)."""
    await _log(call, "Reconnection test started")
    if call.context.close_sse_stream is not None:
        await call.context.close_sse_stream()
    await trio.sleep(4 * STEP_S)
    return "Reconnection test completed successfully"


async def missing_capability(call: Call) -> Answer:
    """Need sampling, whether the client has it or not."""
    needed = types.ClientCapabilities.model_validate({"sampling": {}})
    if not call.context.session.check_client_capability(needed):
        raise MCPError(
            types.MISSING_REQUIRED_CLIENT_CAPABILITY,
            "This tool needs a client that samples",
            {"requiredCapabilities": {"sampling": {}}},
        )
    return "This client samples"


async def x_mcp_header(call: Call) -> Answer:
    """Take an argument that clients mirror into `Mcp-Param-Region`."""
    return f"Region: {call.arguments.get('region')}"


async def trigger_tool_change(call: Call) -> Answer:
    """Say that the list of tools has changed."""
    await BUS.publish(ToolsListChanged())
    await call.context.session.send_tool_list_changed()
    return "The list of tools has changed"


async def trigger_prompt_change(call: Call) -> Answer:
    """Say that the list of prompts has changed."""
    await BUS.publish(PromptsListChanged())
    await call.context.session.send_prompt_list_changed()
    return "The list of prompts has changed"


async def json_schema(call: Call) -> Answer:
    """Have a schema that must be listed exactly as it is (SEP-1613, SEP-2106)."""
    return f"JSON Schema 2020-12 tool called with: {call.arguments}"


def _strings(*names: str, **extra: Any) -> dict[str, Any]:
    properties = {name: {"type": "string", **extra} for name in names}
    return {"type": "object", "properties": properties, "required": list(names)}


TOOLS: Final = {
    "test_simple_text": Tool(simple_text),
    "test_image_content": Tool(image_content),
    "test_audio_content": Tool(audio_content),
    "test_embedded_resource": Tool(embedded_resource),
    "test_multiple_content_types": Tool(multiple_content_types),
    "test_tool_with_logging": Tool(tool_with_logging),
    "test_logging_tool": Tool(logging_tool),
    "test_tool_with_progress": Tool(tool_with_progress),
    "test_error_handling": Tool(error_handling, fails=True),
    "test_sampling": Tool(sampling, _strings("prompt")),
    "test_elicitation": Tool(elicitation, _strings("message")),
    "test_elicitation_sep1034_defaults": Tool(elicitation_defaults),
    "test_elicitation_sep1330_enums": Tool(elicitation_enums),
    "test_reconnection": Tool(reconnection),
    "test_missing_capability": Tool(missing_capability),
    "test_x_mcp_header": Tool(x_mcp_header, _strings("region", **{"x-mcp-header": "Region"})),
    "test_trigger_tool_change": Tool(trigger_tool_change),
    "test_trigger_prompt_change": Tool(trigger_prompt_change),
    "json_schema_2020_12_tool": Tool(json_schema, JSON_SCHEMA),
}
"""By name."""
