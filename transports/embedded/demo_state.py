"""The demo's counters, shared by all clients, and its preferences, kept for one client's session or under a handle."""

from __future__ import annotations

from typing import Annotated, Any, Final

from attrs import define, field, frozen
from msgspec import Meta

from sluiceway.pipeline.model.keys import digest
from sluiceway.pipeline.protocol.messages import decode_json, encode_json

from .context import Context
from .errors import ToolError
from .server import Server

MAX_COUNTERS: Final = 1000
MAX_PREFERENCES: Final = 100
HANDLE_TTL_S: Final = 3600.0
"""How long preferences live that belong to a handle and not to a session."""

Name = Annotated[str, Meta(min_length=1, max_length=64, description="Any name")]


@define(eq=False)
class Counters:
    """Numbers by name. Changed without a checkpoint in between, so 100 increments at once make 100, without a lock."""

    _values: dict[str, int] = field(factory=dict, init=False)

    def increment(self, name: str, by: int) -> int:
        """
        Add to a counter.

        Raises:
            ToolError: There are `MAX_COUNTERS` already.
        """
        if name not in self._values and len(self._values) >= MAX_COUNTERS:
            raise ToolError(f"there are {MAX_COUNTERS} counters already; reset one first")
        self._values[name] = self._values.get(name, 0) + by
        return self._values[name]

    def get(self, name: str) -> int:
        """A counter's value; 0 if there is none."""
        return self._values.get(name, 0)

    def reset(self, name: str) -> None:
        """Forget a counter."""
        self._values.pop(name, None)


@frozen
class Preference:
    """What `set_preference` answers."""

    message: str
    handle: str | None = None
    """Pass this to `get_preference` if your client has no session."""


def add_state(server: Server) -> None:
    """Register counters and preferences."""
    server.provide(Counters, factory=Counters)

    @server.tool(title="Increment a counter")
    def increment(name: Name, counters: Counters, by: int = 1) -> int:
        """Increment a counter by name, and say what it is now."""
        return counters.increment(name, by)

    @server.tool(title="Read a counter", annotations={"readOnlyHint": True})
    def get_counter(name: Name, counters: Counters) -> int:
        """Say what a counter is; an unknown one is 0."""
        return counters.get(name)

    @server.tool(title="Reset a counter", annotations={"idempotentHint": True})
    def reset_counter(name: Name, counters: Counters) -> str:
        """Set a counter back to 0."""
        counters.reset(name)
        return f"Counter '{name}' reset"

    @server.tool(title="Remember a preference")
    async def set_preference(
        name: Name,
        value: Annotated[str, Meta(max_length=1000)],
        ctx: Context,
        handle: Annotated[str | None, Meta(description="From an earlier answer, if your client has no session")] = None,
    ) -> Preference:
        """Remember a preference: for the session, or under a handle where there is no session."""
        handle = await _remember(ctx, handle, name, value)
        return Preference(f"Set {name}: {value}", handle)

    @server.tool(title="Recall a preference", annotations={"readOnlyHint": True})
    async def get_preference(
        name: Name,
        ctx: Context,
        handle: Annotated[str | None, Meta(description="What set_preference answered, if anything")] = None,
    ) -> str:
        """Recall a preference."""
        known = await _recall(ctx, handle)
        if name not in known:
            raise ToolError("Preference not found")
        return str(known[name])


async def _remember(ctx: Context, handle: str | None, name: str, value: str) -> str | None:
    known = await _recall(ctx, handle)
    if name not in known and len(known) >= MAX_PREFERENCES:
        raise ToolError(f"there are {MAX_PREFERENCES} preferences already")
    known[name] = value
    if ctx.client.session is not None:
        return None
    handle = handle or ctx.runtime.new_id()
    await ctx.store.put(_key(ctx, handle), encode_json(known), ttl_s=HANDLE_TTL_S)
    return handle


async def _recall(ctx: Context, handle: str | None) -> dict[str, Any]:
    if ctx.client.session is not None:
        preferences: dict[str, Any] = ctx.session.setdefault("preferences", {})
        return preferences
    found = None if handle is None else await ctx.store.get(_key(ctx, handle))
    if found is None and handle is not None:
        raise ToolError("nothing is known under this handle, or it has expired")
    return decode_json(found) if found is not None else {}


def _key(ctx: Context, handle: str) -> str:
    return f"preferences/{digest(ctx.caller.tenant, ctx.caller.subject)}/{handle}"
