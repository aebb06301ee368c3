"""
What upstreams say of their tools: schemas, and hints about what a call does.

Hints are claims of the upstream (MCP 2025-11-25, tools, annotations): a stage uses them only where the configuration
says that this upstream is trusted.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Final, final

import trio
from attrs import frozen

from ..protocol.mcp import quiet_meta
from ..protocol.messages import Json, Notification, Reply, Request, Result
from .changes import LIST_CHANGES
from .exchange import Exchange, Service

LIST: Final = "tools/list"
CALL: Final = "tools/call"
MAX_PAGES: Final = 50
"""Pages of a list that are read to find a tool; one that is on none of them counts as missing."""


@final
@frozen
class Tool:
    """One tool, as its upstream describes it."""

    definition: Mapping[str, Json]
    """The whole entry of `tools/list`."""

    @property
    def name(self) -> str:
        """Its name, as this place of the chain sees it."""
        return str(self.definition.get("name"))

    @property
    def input_schema(self) -> Mapping[str, Json]:
        """JSON Schema of its arguments; empty if it has none."""
        return _mapping(self.definition.get("inputSchema"))

    @property
    def output_schema(self) -> Mapping[str, Json]:
        """JSON Schema of `structuredContent`; empty if it has none."""
        return _mapping(self.definition.get("outputSchema"))

    @property
    def read_only(self) -> bool:
        """It says that it changes nothing (`readOnlyHint`, false by default)."""
        return self._hint("readOnlyHint", default=False)

    @property
    def repeatable(self) -> bool:
        """It says that a second call with the same arguments changes nothing more (`idempotentHint`, or read-only)."""
        return self.read_only or self._hint("idempotentHint", default=False)

    def _hint(self, name: str, *, default: bool) -> bool:
        hint = _mapping(self.definition.get("annotations")).get(name)
        return hint if isinstance(hint, bool) else default


@frozen
class _Known:
    tool: Tool | None
    expires: float


@final
class ToolBook:
    """
    The tools that pass a place of the chain, by tenant and name. Bounded; the least recently used go first.

    Args:
        max_tools: Entries kept.
        max_age_s: Seconds after which an entry is asked for again; also how long a missing tool is known to be missing.
    """

    def __init__(self, *, max_tools: int = 10_000, max_age_s: float = 300.0) -> None:
        self._max_tools = max_tools
        self._max_age_s = max_age_s
        self._known: OrderedDict[tuple[str | None, str], _Known] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def learn(self, exchange: Exchange, reply: Reply) -> None:
        """Take in the answer to a `tools/list` exchange; call it with every answer that passes."""
        for tool in tools_in(reply):
            self._note(exchange.caller.tenant, tool.name, tool)

    def knows(self, exchange: Exchange) -> bool:
        """Whether the tool that a `tools/call` exchange is about is known, or known to be missing."""
        return self._entry(exchange) is not None

    def get(self, exchange: Exchange) -> Tool | None:
        """The tool that a `tools/call` exchange is about, if it is known. Not a checkpoint."""
        known = self._entry(exchange)
        return None if known is None else known.tool

    def _entry(self, exchange: Exchange) -> _Known | None:
        """What is known and not too old; asking for it is a use."""
        key = (exchange.caller.tenant, exchange.target or "")
        known = self._known.get(key)
        if known is None or known.expires <= trio.current_time():
            return None
        self._known.move_to_end(key)
        return known

    async def find(self, exchange: Exchange, call_next: Service) -> Tool | None:
        """
        The tool that a `tools/call` exchange is about; lists the tools behind this place if it is not known.

        A stage that calls this declares `replays`. Whatever the listing raises is raised here.
        """
        known = self._entry(exchange)
        if known is not None:
            return known.tool
        cursor: str | None = None
        for _ in range(MAX_PAGES):
            listing = exchange.with_request(_listing(exchange, cursor))
            listing.own_accord = True
            reply = await call_next(listing)
            if not isinstance(reply, Result):
                return None
            self.learn(listing, reply)
            following = reply.value.get("nextCursor")
            if not isinstance(following, str) or following == cursor:
                break
            cursor = following
        if not self.knows(exchange):
            self._note(exchange.caller.tenant, exchange.target or "", None)
        return self.get(exchange)

    def forget(self, _sink: str = "", notification: Notification | None = None) -> None:
        """Forget everything, or, as a listener of `Changes`, if the notification says that tools have changed."""
        if notification is None or LIST in LIST_CHANGES.get(notification.method, ()):
            self._known.clear()

    def _note(self, tenant: str | None, name: str, tool: Tool | None) -> None:
        self._known[tenant, name] = _Known(tool, trio.current_time() + self._max_age_s)
        self._known.move_to_end((tenant, name))
        while len(self._known) > self._max_tools:
            self._known.popitem(last=False)


def tools_in(reply: Reply) -> Iterable[Tool]:
    """The tools of an answer to `tools/list`; what is no tool is left out."""
    listed = reply.value.get("tools") if isinstance(reply, Result) else None
    for entry in listed if isinstance(listed, list) else ():
        if isinstance(entry, dict) and isinstance(entry.get("name"), str):
            yield Tool(entry)


def _listing(exchange: Exchange, cursor: str | None) -> Request:
    """A `tools/list` request as the same client would send it."""
    assert isinstance(exchange.request, Request)
    meta = quiet_meta(exchange.request.params)
    params: dict[str, Json] = {"_meta": meta} if meta else {}
    if cursor is not None:
        params["cursor"] = cursor
    return Request(exchange.request.id, LIST, params)


def _mapping(value: Json) -> Mapping[str, Json]:
    return value if isinstance(value, dict) else {}
