"""
The WebSocket client of the 1.x line of the Python SDK.

    python python_sdk1_websocket.py URL

Says as JSON what it saw. Runs in an environment of its own, for the gateway's tests have the 2.x line; and on asyncio,
for its WebSockets know nothing else.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from mcp import ClientSession, types
from mcp.client.websocket import websocket_client


async def main(url: str) -> None:
    """Use what a gateway offers."""
    asked = 0
    progress: list[float] = []

    async def elicit(*_: Any) -> types.ElicitResult:
        nonlocal asked
        asked += 1
        return types.ElicitResult(action="accept", content={"name": "Ana", "guests": 2, "seating": "inside"})

    async def advance(done: float, _total: float | None, _message: str | None) -> None:
        progress.append(done)

    async with (
        websocket_client(url) as (read, write),
        ClientSession(read, write, elicitation_callback=elicit) as session,
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


asyncio.run(main(sys.argv[1]))
