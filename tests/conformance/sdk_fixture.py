"""
The server the official conformance suite expects, made with the official Python SDK: a stranger behind the gateway.

    python tests/conformance/sdk_fixture.py stdio
    python tests/conformance/sdk_fixture.py http 3001

Nothing here comes from the gateway: what fails through it and not directly is the gateway's. The tools are in
`sdk_tools.py`, those that ask in rounds in `sdk_rounds.py`.
"""

from __future__ import annotations

import sys
import warnings
from base64 import b64encode
from typing import Any, Final

import mcp_types as types
import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from hypercorn.typing import ASGIFramework
from mcp.server import Server
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.server.stdio import stdio_server
from mcp.server.streamable_http import EventCallback, EventMessage, EventStore
from mcp.server.subscriptions import ListenHandler
from mcp.shared.exceptions import MCPDeprecationWarning, MCPError
from media import PIXEL
from sdk_rounds import PROMPT, need_context
from sdk_rounds import TOOLS as ROUND_TOOLS
from sdk_tools import BUS, Call
from sdk_tools import TOOLS as PLAIN_TOOLS

NAME: Final = "sdk-conformance"
RETRY_MS: Final = 100
"""How soon a client whose stream was closed shall come back."""
EVENTS: Final = 1000
"""How many events the store keeps for clients that come back."""
TOOLS: Final = {**PLAIN_TOOLS, **ROUND_TOOLS}
PLACES: Final = ("paris", "park", "party")

Context = Any
"""The SDK's context of a request; its type has two parameters that do not matter here."""


class Events(EventStore):
    """The last events of all streams, for clients that come back with `Last-Event-ID`."""

    def __init__(self) -> None:
        self._events: dict[str, tuple[str, types.JSONRPCMessage | None]] = {}
        self._count = 0

    async def store_event(self, stream_id: str, message: types.JSONRPCMessage | None) -> str:
        """Keep one event; the oldest makes room."""
        self._count += 1
        self._events[str(self._count)] = (stream_id, message)
        if len(self._events) > EVENTS:
            del self._events[next(iter(self._events))]
        return str(self._count)

    async def replay_events_after(self, last_event_id: str, send_callback: EventCallback) -> str | None:
        """Send what came later on the stream of `last_event_id`."""
        if last_event_id not in self._events:
            return None
        stream = self._events[last_event_id][0]
        for number, (where, message) in list(self._events.items()):
            if where == stream and int(number) > int(last_event_id) and message is not None:
                await send_callback(EventMessage(message, number))
        return stream


async def list_tools(_context: Context, _params: Any) -> types.ListToolsResult:
    """All tools on one page."""
    tools = [
        {"name": name, "description": (tool.run.__doc__ or "").strip(), "inputSchema": tool.schema}
        for name, tool in TOOLS.items()
    ]
    return types.ListToolsResult.model_validate({"tools": tools})


async def call_tool(
    context: Context, params: types.CallToolRequestParams
) -> types.CallToolResult | types.InputRequiredResult:
    """Run the tool; a name nobody has is invalid params."""
    tool = TOOLS.get(params.name)
    if tool is None:
        raise MCPError(types.INVALID_PARAMS, f"Unknown tool: {params.name}")
    answers = {key: answer.model_dump(by_alias=True) for key, answer in (params.input_responses or {}).items()}
    result = await tool.run(Call(context, params.arguments or {}, answers, params.request_state))
    if isinstance(result, types.InputRequiredResult):
        return result
    content = [{"type": "text", "text": result}] if isinstance(result, str) else result
    return types.CallToolResult.model_validate({"content": content, "isError": tool.fails})


async def list_resources(_context: Context, _params: Any) -> types.ListResourcesResult:
    """The resources with fixed addresses."""
    listed = {"static-text": "text/plain", "static-binary": "image/png", "watched-resource": "text/plain"}
    resources = [{"uri": f"test://{name}", "name": name, "mimeType": kind} for name, kind in listed.items()]
    return types.ListResourcesResult.model_validate({"resources": resources})


async def list_templates(_context: Context, _params: Any) -> types.ListResourceTemplatesResult:
    """The one template."""
    template = {"uriTemplate": "test://template/{id}/data", "name": "template", "mimeType": "application/json"}
    return types.ListResourceTemplatesResult.model_validate({"resourceTemplates": [template]})


async def read_resource(_context: Context, params: types.ReadResourceRequestParams) -> types.ReadResourceResult:
    """Read one; an address nobody has is invalid params, with the address in the data (SEP-2164)."""
    uri = str(params.uri)
    contents: dict[str, str]
    if uri == "test://static-text":
        contents = {"mimeType": "text/plain", "text": "This is the content of the static text resource."}
    elif uri == "test://static-binary":
        contents = {"mimeType": "image/png", "blob": b64encode(PIXEL).decode()}
    elif uri == "test://watched-resource":
        contents = {"mimeType": "text/plain", "text": "Watched resource content"}
    elif uri.startswith("test://template/") and uri.endswith("/data"):
        name = uri.removeprefix("test://template/").removesuffix("/data")
        text = f'{{"id": "{name}", "templateTest": true, "data": "Data for ID: {name}"}}'
        contents = {"mimeType": "application/json", "text": text}
    else:
        raise MCPError(types.INVALID_PARAMS, f"Resource not found: {uri}", {"uri": uri})
    return types.ReadResourceResult.model_validate({"contents": [{"uri": uri, **contents}]})


async def subscribe(_context: Context, _params: types.SubscribeRequestParams) -> types.EmptyResult:
    """Accept; nothing is ever updated."""
    return types.EmptyResult()


async def unsubscribe(_context: Context, _params: types.UnsubscribeRequestParams) -> types.EmptyResult:
    """Accept."""
    return types.EmptyResult()


async def set_level(_context: Context, _params: types.SetLevelRequestParams) -> types.EmptyResult:
    """Accept."""
    return types.EmptyResult()


async def list_prompts(_context: Context, _params: Any) -> types.ListPromptsResult:
    """All prompts on one page."""

    def arguments(*names: str) -> list[dict[str, Any]]:
        return [{"name": name, "description": f"The argument {name}", "required": True} for name in names]

    prompts = [
        {"name": "test_simple_prompt", "description": "A prompt without arguments"},
        {"name": "test_prompt_with_arguments", "description": "Two arguments", "arguments": arguments("arg1", "arg2")},
        {
            "name": "test_prompt_with_embedded_resource",
            "description": "A resource in it",
            "arguments": arguments("resourceUri"),
        },
        {"name": "test_prompt_with_image", "description": "An image in it"},
        {"name": PROMPT, "description": "Asks for context first"},
    ]
    return types.ListPromptsResult.model_validate({"prompts": prompts})


async def get_prompt(
    _context: Context, params: types.GetPromptRequestParams
) -> types.GetPromptResult | types.InputRequiredResult:
    """Get one; a name nobody has is invalid params."""
    given = params.arguments or {}
    parts: list[dict[str, Any]]
    if params.name == "test_simple_prompt":
        parts = [_text("This is a simple prompt for testing.")]
    elif params.name == "test_prompt_with_arguments":
        parts = [_text(f"Prompt with arguments: arg1='{given['arg1']}', arg2='{given['arg2']}'")]
    elif params.name == "test_prompt_with_embedded_resource":
        text = "Embedded resource content for testing."
        resource = {"uri": given["resourceUri"], "mimeType": "text/plain", "text": text}
        parts = [{"type": "resource", "resource": resource}, _text("Please process the embedded resource above.")]
    elif params.name == "test_prompt_with_image":
        image = {"type": "image", "mimeType": "image/png", "data": b64encode(PIXEL).decode()}
        parts = [image, _text("Please analyze the image above.")]
    elif params.name == PROMPT:
        answers = {key: answer.model_dump(by_alias=True) for key, answer in (params.input_responses or {}).items()}
        asked = need_context(answers)
        if isinstance(asked, types.InputRequiredResult):
            return asked
        parts = [_text(asked)]
    else:
        raise MCPError(types.INVALID_PARAMS, f"Unknown prompt: {params.name}")
    messages = [{"role": "user", "content": part} for part in parts]
    return types.GetPromptResult.model_validate({"messages": messages})


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


async def complete(_context: Context, params: types.CompleteRequestParams) -> types.CompleteResult:
    """Suggest places that start with what was typed."""
    values = [place for place in PLACES if place.startswith(params.argument.value)]
    return types.CompleteResult.model_validate({"completion": {"values": values, "total": len(values)}})


def build(call: Any = call_tool, prompt: Any = get_prompt) -> Server[Any]:
    """The server, ready for either transport; tools and prompts may be served in another way."""
    server: Server[Any] = Server(
        NAME,
        version="1.0.0",
        get_tool_input_schema=lambda name: TOOLS[name].schema if name in TOOLS else None,
        on_list_tools=list_tools,
        on_call_tool=call,
        on_list_resources=list_resources,
        on_list_resource_templates=list_templates,
        on_read_resource=read_resource,
        on_subscribe_resource=subscribe,
        on_unsubscribe_resource=unsubscribe,
        on_subscriptions_listen=ListenHandler(BUS),
        on_list_prompts=list_prompts,
        on_get_prompt=prompt,
        on_completion=complete,
        on_set_logging_level=set_level,
    )
    server.middleware.append(RequestStateBoundary(RequestStateSecurity.ephemeral(), default_audience=NAME))
    return server


async def serve_stdio() -> None:
    """Serve on the standard streams until the input ends."""
    server = build()
    async with stdio_server() as (reader, writer):
        await server.run(reader, writer, server.create_initialization_options())


async def serve_http(port: int) -> None:
    """Serve Streamable HTTP on `/mcp` of this machine, on Hypercorn under Trio."""
    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    app: Any = build().streamable_http_app(event_store=Events(), retry_interval=RETRY_MS)
    framework: ASGIFramework = app
    await serve(framework, config)


if __name__ == "__main__":
    warnings.simplefilter("ignore", MCPDeprecationWarning)
    if sys.argv[1] == "stdio":
        trio.run(serve_stdio)
    else:
        trio.run(serve_http, int(sys.argv[2]))
