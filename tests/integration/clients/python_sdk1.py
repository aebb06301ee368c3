"""
A client of the 1.x line of the Python SDK, over WebSocket, HTTP+SSE, or the standard streams of a command.

    python python_sdk1.py ws://localhost:8080/mcp
    python python_sdk1.py http://localhost:8080/sse
    python python_sdk1.py COMMAND ARGUMENT...

With --unasked before that, it cannot be asked anything.

Says as JSON what it saw. Runs in an environment of its own, for the gateway's tests have the 2.x line; and on asyncio,
for its WebSockets know nothing else.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from mcp import ClientSession, StdioServerParameters, types
from mcp.client.sse import sse_client
from mcp.client.stdio import stdio_client


def connect(target: list[str]) -> Any:
    """A transport to an address, or to a command."""
    if target[0].startswith("ws:"):
        from mcp.client.websocket import websocket_client  # an extra that not everybody has

        return websocket_client(target[0])
    if target[0].startswith("http:"):
        return sse_client(target[0])
    return stdio_client(StdioServerParameters(command=target[0], args=target[1:]))


async def main(target: list[str], askable: bool) -> None:
    """Use what the demo server offers."""
    asked = 0
    progress: list[float] = []

    async def elicit(*_: Any) -> types.ElicitResult:
        nonlocal asked
        asked += 1
        return types.ElicitResult(action="accept", content={"name": "Ana", "guests": 2, "seating": "inside"})

    async def advance(done: float, _total: float | None, _message: str | None) -> None:
        progress.append(done)

    async with (
        connect(target) as (read, write),
        ClientSession(read, write, elicitation_callback=elicit if askable else None) as session,
    ):
        hello = await session.initialize()
        tools = await session.list_tools()
        echoed = await asyncio.gather(*(session.call_tool("echo", {"text": text}) for text in ("a", "b", "c")))
        booked = await session.call_tool("book_table", {"restaurant": "Nero"})
        await session.call_tool("countdown", {"seconds": 3}, progress_callback=advance)
        after = await session.call_tool("echo", {"text": "after"})
    texts = [each.content[0].text for each in (*echoed, booked, after)]  # type: ignore[union-attr]  # all are texts
    report = {
        "server": hello.serverInfo.name,
        "tools": [tool.name for tool in tools.tools],
        "echoed": [json.loads(text)["text"] for text in texts[:3]],
        "asked": asked,
        "booked": texts[3],
        "progress": progress,
        "after": json.loads(texts[4])["text"],
    }
    print(json.dumps(report))


arguments = [each for each in sys.argv[1:] if each != "--unasked"]
asyncio.run(main(arguments, askable=arguments == sys.argv[1:]))
