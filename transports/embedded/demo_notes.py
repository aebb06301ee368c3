"""The demo's notes: kept in the sink's named store, one resource each, private to their caller."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from sluiceway.pipeline.model.keys import digest

from .content import Link, Message
from .context import Context
from .errors import NotFound, ToolError
from .server import Server

Title = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="Letters, digits, - and _")]


def add_notes(server: Server) -> None:
    """Register notes: tools, a template, a prompt, and suggestions of titles."""

    @server.tool(title="Write a note", annotations={"idempotentHint": True})
    async def add_note(title: Title, text: Annotated[str, Meta(max_length=10_000)], ctx: Context) -> list[Link]:
        """Write a note, or write it anew. It can be read as the resource note://{title}."""
        await ctx.store.put(_key(ctx, title), text.encode())
        ctx.server.resource_updated(f"note://{title}")
        return [Link(f"note://{title}", title, mime_type="text/plain")]

    @server.tool(title="List notes", annotations={"readOnlyHint": True})
    async def list_notes(ctx: Context) -> list[str]:
        """The titles of your notes."""
        return await _titles(ctx)

    @server.tool(title="Delete a note", annotations={"destructiveHint": True, "idempotentHint": True})
    async def delete_note(title: Title, ctx: Context) -> str:
        """Throw a note away."""
        if not await ctx.store.delete(_key(ctx, title)):
            raise ToolError(f"There is no note {title}")
        ctx.server.resource_updated(f"note://{title}")
        return f"Deleted {title}"

    @server.tool(title="Summarize notes", annotations={"readOnlyHint": True})
    async def summarize_notes(ctx: Context) -> str:
        """Have the client's own model summarize your notes."""
        titles = await _titles(ctx)
        if not titles:
            return "There are no notes yet; write one with add_note."
        notes = [f"{title}: {await _read(ctx, title)}" for title in titles]
        return (await ctx.sample("Summarize in one sentence:\n" + "\n".join(notes), 200, key="summary")).text

    @server.resource("note://{title}", mime_type="text/plain")
    async def note(title: Title, ctx: Context) -> str:
        """One of your notes."""
        return await _read(ctx, title)

    @server.prompt(title="Improve a note")
    async def improve_note(title: Title, ctx: Context) -> list[Message]:
        """Improve the wording of a note."""
        return [Message(f"Improve the wording of this note, and keep it short:\n\n{await _read(ctx, title)}")]

    @server.completion("improve_note", "title")
    @server.completion("note://{title}", "title")
    async def titles(value: str, ctx: Context) -> list[str]:
        """The titles that start with what was typed."""
        return [title for title in await _titles(ctx) if title.startswith(value)]


def _key(ctx: Context, title: str) -> str:
    return f"notes/{digest(ctx.caller.tenant, ctx.caller.subject)}/{title}"


async def _titles(ctx: Context) -> list[str]:
    prefix = _key(ctx, "")
    return [key.removeprefix(prefix) for key in await ctx.store.keys(prefix)]


async def _read(ctx: Context, title: str) -> str:
    text = await ctx.store.get(_key(ctx, title))
    if text is None:
        raise NotFound(f"there is no note {title}", data={"uri": f"note://{title}"})
    return text.decode()
