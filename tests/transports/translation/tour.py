"""A server that does everything which differs between the eras; `tour:server` for a sink in another process."""

from __future__ import annotations

import trio
from attrs import frozen

from sluiceway.transports.embedded import Context, Server
from sluiceway.transports.embedded.errors import ToolError
from sluiceway.transports.embedded.questions import Roots, Sample


@frozen
class Name:
    """A form."""

    name: str


def build() -> Server:
    """The server."""
    server = Server("tour", version="1", instructions="Go on.")
    state = {"given_up": 0}

    @server.tool()
    async def interview(ctx: Context) -> str:
        """Ask the user, the model and the client, the last two at once."""
        user = await ctx.elicit("Who?", Name, key="user")
        model, roots = await ctx.ask(Sample(["Hello"], 10, key="model"), Roots(key="roots"))
        return f"{user.content.name} {model.text} {roots[0].uri}"

    @server.tool()
    async def count(ctx: Context, to: int) -> str:
        """Report progress, and log."""
        for step in range(1, to + 1):
            await ctx.log("info", f"step {step}")
            await ctx.progress(step, to)
        return "done"

    @server.tool()
    async def hang(ctx: Context) -> str:
        """Never end; count who gives up."""
        await ctx.progress(1)
        try:
            await trio.sleep_forever()
        finally:
            state["given_up"] += 1
        return "never"

    @server.tool()
    def given_up() -> int:
        """How many calls of `hang` have ended."""
        return state["given_up"]

    @server.tool()
    def touch(ctx: Context) -> str:
        """Change the thing."""
        ctx.server.resource_updated("thing://1")
        return "touched"

    @server.tool()
    def fail() -> str:
        """Fail."""
        raise ToolError("no")

    @server.tool()
    def large() -> str:
        """A text of a million letters."""
        return "x" * 1_000_000

    @server.resource("thing://1")
    def thing() -> str:
        """A thing."""
        return "1"

    return server


server = build()
