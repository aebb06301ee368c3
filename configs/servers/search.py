"""
A server made with the official Python SDK (`pip install "mcp>=2.3"`): texts that can be searched.

    python configs/servers/search.py
"""

from __future__ import annotations

from typing import Any, Final

import trio
from mcp.server.mcpserver import Context, MCPServer
from mcp_types import ToolAnnotations

READS: Final = ToolAnnotations(read_only_hint=True)

server = MCPServer("search", instructions="Texts live as long as the server does.")
texts: list[str] = []
asked: list[str] = []


@server.tool(annotations=READS)
async def query(text: str, ctx: Context, takes_s: float = 0.0) -> dict[str, Any]:
    """Find texts; `takes_s` is for how long."""
    asked.append(text)
    await trio.sleep(takes_s)
    trace = (ctx.request_context.meta or {}).get("traceparent")
    return {"found": [each for each in texts if text in each], "number": len(asked), "trace": trace}


@server.tool()
def add(text: str) -> int:
    """Keep a text; its number."""
    texts.append(text)
    return len(texts)


@server.tool()
async def rebuild(takes_s: float = 0.0) -> str:
    """Build the index anew, which takes a while."""
    asked.append("rebuild")
    await trio.sleep(takes_s)
    return "rebuilt"


@server.tool(annotations=READS)
def questions() -> list[str]:
    """What was asked so far."""
    return asked


if __name__ == "__main__":
    trio.run(server.run_stdio_async)
