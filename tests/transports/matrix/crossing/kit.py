"""The scripted server as one of the gateway's own kit, which speaks to each client in its own era."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio

from sluiceway.transports.embedded import Context, Server, ToolError

from .server import LARGE, QUESTION, WATCHED


def make_server(report: Callable[[dict[str, Any]], None]) -> Server:
    """One that does what `server.Server` does; it cannot die without the gateway."""
    server = Server("scripted", version="1")

    @server.tool()
    def echo(text: str) -> str:
        return text

    @server.tool()
    def fail() -> str:
        raise ToolError("it failed")

    @server.tool()
    async def count(ctx: Context) -> str:
        await ctx.progress(1, 2)
        await ctx.progress(2, 2)
        return "counted"

    @server.tool()
    async def wait(ctx: Context) -> str:
        report({"what": "request", "method": ctx.method, "name": "wait", "id": None})
        await ctx.progress(1, 2)
        try:
            await trio.sleep_forever()
        finally:
            report({"what": "gone", "id": None, "how": "cancelled"})

    @server.tool()
    async def ask(ctx: Context) -> str:
        answer = await ctx.elicit(QUESTION["message"], QUESTION["requestedSchema"], key="who")
        return str(answer.content["name"])

    @server.resource(WATCHED)
    def watched() -> str:
        return "watched"

    @server.tool()
    def change(ctx: Context) -> str:
        ctx.server.tool(name="another", replace=True)(echo)
        ctx.server.resource_updated(WATCHED)
        return "changed"

    @server.tool()
    def large() -> str:
        return "x" * LARGE

    return server
