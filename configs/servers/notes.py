"""
A server made with the official Python SDK (`pip install "mcp>=2.3"`), in both eras of the protocol.

    python configs/servers/notes.py
"""

from __future__ import annotations

import warnings
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import mcp_types as types
import trio
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.resolve import Elicit, Resolve, Sample
from mcp.shared.exceptions import MCPDeprecationWarning
from pydantic import BaseModel

PAGE = 3
"""Tools on a page."""

server = MCPServer("notes", instructions="Notes live as long as the server does.")
notes: list[str] = []
given_up: list[str] = []


class Consent(BaseModel):
    """What the user is asked before a note is thrown away."""

    sure: bool


@server.tool()
async def add_note(text: str, ctx: Context) -> str:
    """Keep a note."""
    notes.append(text)
    await ctx.notify_resource_updated("notes://all")
    return f"Note {len(notes)}"


@server.tool()
def echo(text: str) -> str:
    """Say it again."""
    return text


@server.tool()
async def export(steps: int, ctx: Context) -> str:
    """Do something slow, and report progress."""
    for step in range(1, steps + 1):
        await ctx.report_progress(step, steps)
        await trio.sleep(0.05)
    return f"{len(notes)} notes exported"


@server.tool()
async def wait(key: str, ctx: Context) -> str:
    """Say that it begins, and wait for ever."""
    try:
        await ctx.report_progress(0)
        await trio.sleep_forever()
    finally:
        given_up.append(key)


@server.tool()
def list_given_up() -> list[str]:
    """The keys of calls of `wait` whose callers gave up."""
    return given_up


def summary_of(topic: str) -> Sample:
    """What the client's model is asked."""
    message = types.SamplingMessage(role="user", content=types.TextContent(type="text", text=f"Sum up: {topic}"))
    return Sample([message], max_tokens=50)


@server.tool()
def summarize(topic: str, said: Annotated[types.CreateMessageResult, Resolve(summary_of)]) -> str:
    """Have the client's model sum something up."""
    return f"The model said: {said.content.text if isinstance(said.content, types.TextContent) else said.content.type}"


def consent(text: str) -> Elicit[Consent]:
    """What the user is asked."""
    return Elicit(f"Throw {text!r} away?", Consent)


@server.tool()
def forget(text: str, answer: Annotated[Consent, Resolve(consent)]) -> str:
    """Throw a note away, if the user is sure."""
    if answer.sure and text in notes:
        notes.remove(text)
    return "Forgotten" if answer.sure else "Kept"


@server.tool()
async def grumble(ctx: Context) -> str:
    """Log a warning, to those who want to hear it."""
    await ctx.warning("so many notes")
    return "Grumbled"


@server.resource("notes://all")
def every_note() -> str:
    """All notes, a line each."""
    return "\n".join(notes)


@server.resource("notes://by/{author}")
def notes_by(author: str) -> str:
    """The notes of somebody."""
    return f"Nothing by {author} yet"


@server.prompt()
def review(style: str) -> str:
    """Ask for a review of the notes."""
    return f"Review my notes, and be {style}."


@server.completion()
async def complete(_ref: object, argument: types.CompletionArgument, _context: object) -> types.Completion:
    """Suggest styles."""
    return types.Completion(values=[style for style in ("friendly", "frank") if style.startswith(argument.value)])


async def in_pages(ctx: Any, call_next: Callable[[Any], Awaitable[Any]]) -> Any:
    """Give tools out page by page."""
    result = await call_next(ctx)
    if ctx.method != "tools/list":
        return result
    start = int((ctx.params or {}).get("cursor") or 0)
    page = {**result, "tools": result["tools"][start : start + PAGE]}
    return page if start + PAGE >= len(result["tools"]) else {**page, "nextCursor": str(start + PAGE)}


server.middleware.append(in_pages)

if __name__ == "__main__":
    warnings.simplefilter("ignore", MCPDeprecationWarning)  # of logging, which still works
    trio.run(server.run_stdio_async)
