"""
The quickstart's server: a tour of what a server can do, in the order somebody new would try it.

Text in and out, numbers, a slow tool with progress that can be cancelled, counters, notes in a named store,
preferences that last as long as a session, a form for the user, resources, templates, and prompts with suggestions.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Final, Literal

import trio
from attrs import frozen
from msgspec import Meta

from .content import Message
from .context import Context
from .demo_notes import add_notes
from .demo_state import add_state
from .server import Server

WELCOME: Final = """\
# Welcome to Sluiceway

You are talking to its demo server, which runs inside the gateway.

* `echo` and `add` answer at once; `countdown` takes its time, reports progress, and stops when you cancel it.
* `increment`, `get_counter` and `reset_counter` share numbers between all clients.
* `add_note`, `list_notes` and `delete_note` keep notes in a store; each note is a resource, `note://{title}`.
* `set_preference` and `get_preference` remember things for your session.
* `book_table` asks *you* something before it answers.

Next: put your own server behind the gateway. The README shows how, in one line of YAML.
"""

_STYLES: Final = ("formal", "friendly", "pirate")
_READ_ONLY: Final = {"readOnlyHint": True, "openWorldHint": False}


@frozen
class Echo:
    """What `echo` answers."""

    processed: bool
    method: str
    """The method the gateway was called with."""
    timestamp: str
    """RFC 3339, UTC."""
    text: str


@frozen
class Booking:
    """What `book_table` asks for."""

    name: str
    guests: Annotated[int, Meta(ge=1, le=12, description="How many people come")]
    seating: Literal["inside", "outside"] = "inside"


def build() -> Server:
    """The demo server."""
    server = Server(
        "sluiceway-demo",
        version="1.0.0",
        title="Sluiceway demo",
        instructions="A harmless playground. Read demo://welcome for a tour of the tools.",
    )
    _add_basics(server)
    _add_questions(server)
    add_state(server)
    add_notes(server)
    _add_reading(server)
    return server


def _add_basics(server: Server) -> None:
    @server.tool(title="Echo", annotations=_READ_ONLY)
    def echo(text: Annotated[str, Meta(description="What to say back", max_length=10_000)], ctx: Context) -> Echo:
        """Say back what was said."""
        return Echo(True, ctx.method, datetime.now(UTC).isoformat(), text)

    @server.tool(title="Add", annotations=_READ_ONLY)
    def add(a: float, b: float) -> float:
        """Add two numbers."""
        return a + b

    @server.tool(title="Countdown", annotations=_READ_ONLY)
    async def countdown(
        ctx: Context, seconds: Annotated[int, Meta(ge=1, le=60, description="Where to start")] = 5
    ) -> str:
        """Count down to zero, one number a second. Shows progress, and stops at once when it is cancelled."""
        await ctx.log("info", f"counting down from {seconds}", logger="countdown")
        for done in range(1, seconds + 1):
            await trio.sleep(1)
            await ctx.progress(done, seconds, f"{seconds - done}")
        return "Lift-off!"


def _add_questions(server: Server) -> None:
    @server.tool(title="Book a table")
    async def book_table(ctx: Context, restaurant: Annotated[str, Meta(min_length=1, max_length=100)]) -> str:
        """Book a table (not really): asks the user who comes, with a form."""
        answer = await ctx.elicit(f"A table at {restaurant}: who is coming?", Booking, key="booking")
        if not answer.accepted:
            return f"No table was booked: you chose to {answer.action}."
        booking: Booking = answer.content
        people = "person" if booking.guests == 1 else "people"
        return f"A table {booking.seating} at {restaurant} for {booking.guests} {people}, {booking.name}. Enjoy!"


def _add_reading(server: Server) -> None:
    @server.resource("demo://welcome", title="Welcome", mime_type="text/markdown", ttl_ms=60_000, cache_scope="public")
    def welcome() -> str:
        """A tour of this server."""
        return WELCOME

    @server.resource("demo://you", title="You", mime_type="application/json")
    def you(ctx: Context) -> dict[str, object]:
        """What the gateway knows about you."""
        client = ctx.client
        return {
            "caller": ctx.caller.subject,
            "era": client.era,
            "version": ctx.version,
            "transport": client.transport,
            "capabilities": sorted(client.capabilities),
            "session": client.session is not None,
        }

    @server.prompt(title="Greet somebody")
    def greet(
        name: Annotated[str, Meta(description="Who to greet")],
        style: Annotated[Literal["formal", "friendly", "pirate"], Meta(description="How")] = "friendly",
    ) -> list[Message]:
        """Greet somebody in a style."""
        return [Message(f"Greet {name} in one short sentence. Style: {style}.")]

    @server.completion("greet", "style")
    def styles(value: str) -> list[str]:
        """The styles that start with what was typed."""
        return [style for style in _STYLES if style.startswith(value)]
