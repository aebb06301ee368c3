"""
The client that the suite's client scenarios watch: the Python SDK's, alone or behind a gateway.

    python tests/conformance/driver.py http://localhost:3001
    python tests/conformance/driver.py "suite, alone, driver, plain" http://localhost:3001

The suite plays the server, and says in the environment which scenario it is. The title of a leg (`CLIENT_LEGS`) puts
a gateway between the two, in this process. Scenarios about authorization are not run: a gateway has credentials of its
own towards its upstreams, and never passes its client's on.
"""

from __future__ import annotations

import os
import sys
from typing import Final

SCENARIO: Final = os.environ.get("MCP_CONFORMANCE_SCENARIO", "")
if SCENARIO.startswith("auth/"):
    sys.exit(0)

import json  # noqa: E402  # what takes long to import is not needed above
import logging  # noqa: E402
import tempfile  # noqa: E402
import warnings  # noqa: E402
from collections.abc import Awaitable, Callable, Mapping  # noqa: E402
from contextlib import AsyncExitStack, suppress  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import mcp_types as types  # noqa: E402
import trio  # noqa: E402
from attrs import frozen  # noqa: E402
from legs import CLIENT_LEGS, PREFIX, free_port  # noqa: E402
from mcp import Client  # noqa: E402
from mcp.shared.exceptions import MCPDeprecationWarning, MCPError  # noqa: E402
from mcp_types.version import MODERN_PROTOCOL_VERSIONS  # noqa: E402
from report import DONE  # noqa: E402

from sluiceway.pipeline.config import from_data  # noqa: E402
from sluiceway.pipeline.runtime.engine import Engine  # noqa: E402

REVISION: Final = os.environ.get("MCP_CONFORMANCE_PROTOCOL_VERSION", "")
MODE: Final = "auto" if REVISION in MODERN_PROTOCOL_VERSIONS else "legacy"
CONTEXT: Final = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT", "{}"))
SAMPLES: Final = {"string": "x", "integer": 0, "number": 0, "boolean": False, "object": {}, "array": []}


async def sampled(_context: object, _params: types.CreateMessageRequestParams) -> types.CreateMessageResult:
    """Answer as a model would."""
    said = types.TextContent(type="text", text="sampled")
    return types.CreateMessageResult(role="assistant", content=said, model="none")


async def no_roots(_context: object) -> types.ListRootsResult:
    """Have no roots."""
    return types.ListRootsResult(roots=[])


async def filled_in(_context: object, params: types.ElicitRequestParams) -> types.ElicitResult:
    """Accept a form as it is filled in already (SEP-1034); one that is empty with a yes."""
    schema = params.requested_schema if isinstance(params, types.ElicitRequestFormParams) else {}
    content = {key: each["default"] for key, each in schema.get("properties", {}).items() if "default" in each}
    return types.ElicitResult(action="accept", content=content or {"confirmed": True})


@frozen
class Visitor:
    """A client that has listed the tools."""

    client: Client
    prefix: str
    """What the gateway puts before names of tools and prompts."""
    tools: Mapping[str, types.Tool]
    """Tools by the names that the suite's server gave them."""

    async def call(self, name: str, arguments: Mapping[str, Any] | None = None) -> None:
        """Call a tool by the name that the suite's server gave it."""
        await self.client.call_tool(self.prefix + name, dict(arguments or {}))


async def look(_visitor: Visitor) -> None:
    """The tools are listed already."""


async def add(visitor: Visitor) -> None:
    """Call the one tool there is."""
    await visitor.call("add_numbers", {"a": 5, "b": 3})


async def reconnect(visitor: Visitor) -> None:
    """Call the tool whose stream is closed early."""
    await visitor.call("test_reconnection")


async def fill_in(visitor: Visitor) -> None:
    """Call the tool that shows a form."""
    await visitor.call("test_client_elicitation_defaults")


async def go_round(visitor: Visitor) -> None:
    """Call tools that need several rounds, and one that needs none."""
    for name in ("echo_state", "unrelated", "no_state"):
        await visitor.call(f"test_mrtr_{name}")
    with suppress(ValueError):  # the SDK finds fault with a result that does not say of which type it is
        await visitor.call("test_mrtr_no_result_type")


async def echo_schema(visitor: Visitor) -> None:
    """Send back what has arrived of a schema."""
    await visitor.call("json_schema_echo", {"schema": visitor.tools["json_schema_2020_12_tool"].input_schema})


async def use_headers(visitor: Visitor) -> None:
    """Tools whose names and arguments are mirrored into headers; some calls are refused."""
    calls = CONTEXT.get("toolCalls") or [
        {"name": name, "arguments": {key: _sample(tool, key) for key in tool.input_schema.get("required", [])}}
        for name, tool in visitor.tools.items()
    ]
    for call in calls:
        if call["name"] in visitor.tools:
            with suppress(MCPError):
                await visitor.call(call["name"], call.get("arguments"))


async def use_names(visitor: Visitor) -> None:
    """Tools, resources and prompts, whose names are mirrored into headers."""
    await use_headers(visitor)
    for resource in (await visitor.client.list_resources()).resources:
        await visitor.client.read_resource(resource.uri)
    for prompt in (await visitor.client.list_prompts()).prompts:
        await visitor.client.get_prompt(prompt.name)


def _sample(tool: types.Tool, key: str) -> Any:
    return SAMPLES.get(tool.input_schema["properties"][key].get("type"), "x")


VISITS: Final[Mapping[str, Callable[[Visitor], Awaitable[None]]]] = {
    "initialize": look,
    "tools_call": add,
    "elicitation-sep1034-client-defaults": fill_in,
    "sse-retry": reconnect,
    "request-metadata": add,
    "sep-2322-client-request-state": go_round,
    "http-standard-headers": use_names,
    "http-custom-headers": use_headers,
    "http-invalid-tool-headers": use_headers,
    "json-schema-ref-no-deref": look,
    "json-schema-2020-12-preservation": echo_schema,
}
"""What the client does once it knows the tools, by scenario."""
ASKABLE: Final = {"sampling_callback": sampled, "list_roots_callback": no_roots, "elicitation_callback": filled_in}


def _answers() -> dict[str, Any]:
    """What the client can be asked in this scenario."""
    if SCENARIO == "request-metadata":
        return ASKABLE
    asks = SCENARIO in {"elicitation-sep1034-client-defaults", "sep-2322-client-request-state"}
    return {"elicitation_callback": filled_in} if asks else {}


async def visit(title: str, server: str) -> None:
    """
    Do what the scenario wants to see.

    Args:
        title: Of the leg; empty for none.
        server: The suite's URL.
    """
    async with AsyncExitStack() as stack:
        target, prefix = server, ""
        if title:
            setup = {each.title: each for each in CLIENT_LEGS}[title]
            folder, port = Path(stack.enter_context(tempfile.TemporaryDirectory())), free_port()
            document = setup.document({"http": {"url": server}}, port, folder)
            await stack.enter_async_context(Engine(from_data(document)).running())
            target, prefix = f"http://localhost:{port}/mcp", PREFIX if setup.way == "prefixed" else ""
        # the suite's server for this scenario knows handshakes only, whatever revision it is run for
        mode = "legacy" if SCENARIO == "json-schema-ref-no-deref" else MODE
        async with Client(target, mode=mode, **_answers()) as client:
            tools = {tool.name.removeprefix(prefix): tool for tool in (await client.list_tools()).tools}
            await VISITS[SCENARIO](Visitor(client, prefix, tools))
    print(DONE)


if __name__ == "__main__":
    warnings.simplefilter("ignore", MCPDeprecationWarning)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    trio.run(visit, "" if len(sys.argv) == 2 else sys.argv[1], sys.argv[-1])
