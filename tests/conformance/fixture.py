"""
The server the official conformance suite expects, made with the kit: it is our own first user.

What each tool, prompt and resource must do is written in the suite's scenario descriptions
(`@modelcontextprotocol/conformance`, version pinned in `run.py`). Tools that ask in rounds are in `rounds.py`.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
import trio
from media import PIXEL, SILENCE
from rounds import add_rounds
from schemas import JSON_SCHEMA

from sluiceway.pipeline.protocol.messages import Json
from sluiceway.transports.embedded import (
    Audio,
    Context,
    Embedded,
    Image,
    Message,
    Server,
    Text,
    Tool,
    ToolError,
    ToolResult,
)

STEP_S: Final = 0.05
"""The suite asks for about 50 ms between two messages of a tool."""

server = Server("sluiceway-conformance", version="1.0.0", description="The fixture of the official conformance suite")


@server.tool()
def test_simple_text() -> str:
    """Return one text block."""
    return "This is a simple text response for testing."


@server.tool()
def test_image_content() -> Image:
    """Return one image."""
    return Image(PIXEL)


@server.tool()
def test_audio_content() -> Audio:
    """Return one sound."""
    return Audio(SILENCE)


@server.tool()
def test_embedded_resource() -> Embedded:
    """Return a resource inside the result."""
    return Embedded("test://embedded-resource", "This is an embedded resource content.", "text/plain")


@server.tool()
def test_multiple_content_types() -> ToolResult:
    """Return text, an image and a resource."""
    resource = Embedded("test://mixed-content-resource", '{"test":"data","value":123}', "application/json")
    return ToolResult(content=(Text("Multiple content types test:"), Image(PIXEL), resource))


@server.tool()
async def test_tool_with_logging(ctx: Context) -> str:
    """Send three log messages on the way."""
    await ctx.log("info", "Tool execution started")
    await trio.sleep(STEP_S)
    await ctx.log("info", "Tool processing data")
    await trio.sleep(STEP_S)
    await ctx.log("info", "Tool execution completed")
    return "Tool with logging executed successfully"


@server.tool()
async def test_logging_tool(ctx: Context) -> str:
    """Log at every level, which nobody hears who did not ask."""
    await ctx.log("emergency", "Nobody asked for this unless the request says so")
    return "Logged"


@server.tool()
async def test_tool_with_progress(ctx: Context) -> str:
    """Report progress in three steps."""
    await ctx.progress(0, 100)
    await trio.sleep(STEP_S)
    await ctx.progress(50, 100)
    await trio.sleep(STEP_S)
    await ctx.progress(100, 100)
    return "Tool with progress executed successfully"


@server.tool()
def test_error_handling() -> str:
    """Always fail."""
    raise ToolError("This tool intentionally returns an error for testing")


@server.tool()
async def test_sampling(prompt: Annotated[str, msgspec.Meta(description="What to ask the model")], ctx: Context) -> str:
    """Ask the client's model."""
    said = await ctx.sample(prompt, 100)
    return f"LLM response: {said.text}"


@server.tool()
async def test_elicitation(
    message: Annotated[str, msgspec.Meta(description="What to show to the user")], ctx: Context
) -> str:
    """Ask the user for a name and an address."""
    text = {"type": "string"}
    answer = await ctx.elicit(
        message,
        {
            "type": "object",
            "properties": {
                "username": {**text, "description": "User's response"},
                "email": {**text, "description": "User's email address"},
            },
            "required": ["username", "email"],
        },
    )
    return f"User response: action={answer.action}, content={answer.content}"


@server.tool()
async def test_elicitation_sep1034_defaults(ctx: Context) -> str:
    """Ask with a default for every primitive type."""
    answer = await ctx.elicit(
        "Please review and update the form fields with defaults",
        {
            "type": "object",
            "properties": {
                "name": {"type": "string", "description": "User name", "default": "John Doe"},
                "age": {"type": "integer", "description": "User age", "default": 30},
                "score": {"type": "number", "description": "User score", "default": 95.5},
                "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
                "verified": {"type": "boolean", "description": "Verification status", "default": True},
            },
            "required": [],
        },
    )
    return f"Elicitation completed: action={answer.action}, content={answer.content}"


@server.tool()
async def test_elicitation_sep1330_enums(ctx: Context) -> str:
    """Ask with every kind of choice."""
    options = ["option1", "option2", "option3"]

    def titled(word: str) -> list[dict[str, str]]:
        names = ("First", "Second", "Third")
        return [{"const": f"value{number}", "title": f"{name} {word}"} for number, name in enumerate(names, 1)]

    answer = await ctx.elicit(
        "Please select options from the enum fields",
        {
            "type": "object",
            "properties": {
                "untitledSingle": {"type": "string", "enum": options},
                "titledSingle": {"type": "string", "oneOf": titled("Option")},
                "legacyEnum": {
                    "type": "string",
                    "enum": ["opt1", "opt2", "opt3"],
                    "enumNames": ["Option One", "Option Two", "Option Three"],
                },
                "untitledMulti": {"type": "array", "items": {"type": "string", "enum": options}},
                "titledMulti": {"type": "array", "items": {"anyOf": titled("Choice")}},
            },
            "required": [],
        },
    )
    return f"Elicitation completed: action={answer.action}, content={answer.content}"


@server.tool()
async def test_streaming_elicitation(ctx: Context) -> str:
    """Report progress, then ask."""
    await ctx.progress(1, 2)
    answer = await ctx.elicit("Go on?", {"type": "object", "properties": {"ok": {"type": "boolean"}}})
    return f"Elicitation completed: action={answer.action}"


@server.tool()
async def test_reconnection(ctx: Context) -> str:
    """Say something at once, which makes the response a stream, and finish later."""
    await ctx.log("info", "Reconnection test started")
    await trio.sleep(2 * STEP_S)
    return "Reconnection test completed successfully"


@server.tool()
async def test_missing_capability(ctx: Context) -> str:
    """Need sampling, whether the client has it or not."""
    return (await ctx.sample("Anything", 10)).text


@server.tool()
def test_x_mcp_header(
    region: Annotated[
        str, msgspec.Meta(description="Mirrored into a header", extra_json_schema={"x-mcp-header": "Region"})
    ],
) -> str:
    """Take an argument that clients mirror into `Mcp-Param-Region`."""
    return f"Region: {region}"


@server.tool()
def test_trigger_tool_change(ctx: Context) -> str:
    """Make the list of tools change, without anything new in it."""
    ctx.server.add_tool(ctx.server.tools["test_simple_text"], replace=True)
    return "The list of tools has changed"


@server.tool()
def test_trigger_prompt_change(ctx: Context) -> str:
    """Make the list of prompts change, without anything new in it."""
    ctx.server.prompts.add("test_simple_prompt", ctx.server.prompts["test_simple_prompt"], replace=True)
    return "The list of prompts has changed"


class SchemaTool(Tool):
    """A tool in command style, whose schema must be listed exactly as it is (SEP-1613, SEP-2106)."""

    name = "json_schema_2020_12_tool"
    description = "Tool with JSON Schema 2020-12 features"
    schema: dict[str, Json] = JSON_SCHEMA

    def execute(self, arguments: dict[str, Json], context: Context) -> str:
        """Say what came in."""
        return f"JSON Schema 2020-12 tool called with: {arguments}"


server.add_tool(SchemaTool())
add_rounds(server)


@server.resource("test://static-text", mime_type="text/plain")
def static_text() -> str:
    """A static text resource."""
    return "This is the content of the static text resource."


@server.resource("test://static-binary", mime_type="image/png")
def static_binary() -> bytes:
    """A static binary resource."""
    return PIXEL


@server.resource("test://watched-resource", mime_type="text/plain")
def watched_resource() -> str:
    """A resource clients may subscribe to."""
    return "Watched resource content"


@server.resource("test://template/{id}/data", mime_type="application/json")
def template_data(id: str) -> dict[str, Any]:  # noqa: A002  # the suite names the variable
    """A resource of a template."""
    return {"id": id, "templateTest": True, "data": f"Data for ID: {id}"}


@server.prompt()
def test_simple_prompt() -> str:
    """A prompt without arguments."""
    return "This is a simple prompt for testing."


@server.prompt()
def test_prompt_with_arguments(
    arg1: Annotated[str, msgspec.Meta(description="First test argument")],
    arg2: Annotated[str, msgspec.Meta(description="Second test argument")],
) -> str:
    """A prompt with two arguments."""
    return f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'"


@server.prompt()
def test_prompt_with_embedded_resource(
    resourceUri: Annotated[str, msgspec.Meta(description="URI of the resource to embed")],
) -> list[Message]:
    """A prompt with a resource in it."""
    resource = Embedded(resourceUri, "Embedded resource content for testing.", "text/plain")
    return [Message(resource), Message("Please process the embedded resource above.")]


@server.prompt()
def test_prompt_with_image() -> list[Message]:
    """A prompt with an image in it."""
    return [Message(Image(PIXEL)), Message("Please analyze the image above.")]


@server.completion("test_prompt_with_arguments", "arg1")
def complete_arg1(value: str) -> list[str]:
    """Suggest places that start with what was typed."""
    return [place for place in ("paris", "park", "party") if place.startswith(value)]
