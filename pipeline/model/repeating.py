"""
Which requests may be sent twice: what retry, hedge and fallback ask before they do.

Reads by the method table; a tool only if the configuration lists it, or if its upstream is trusted and says that
repeating it changes nothing (MCP 2025-11-25, tools, annotations: hints of an upstream nobody trusts mean nothing).
What takes up an earlier request (`inputResponses`) never: its answer was given to one conversation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, final

import trio

from ..protocol.errors import GatewayError
from ..protocol.mcp import METHODS, Kind, method_of
from ..protocol.messages import Reply
from .changes import Changes
from .exchange import Exchange, Service
from .keys import continues
from .tools import CALL, LIST, ToolBook
from .when import matcher

LOOKUP_PAUSE_S: Final = 10.0
"""A list of tools is fetched at most once in this time: an upstream that fails must not get twice the requests."""


def may_repeat_any(methods: Sequence[str]) -> bool:
    """Whether the method table lets any of the methods be sent twice that these globs match; no globs match all."""
    if not methods:
        return True
    matches = matcher(methods)
    return any(row.repeatable and matches(name) for name, row in METHODS.items())


def is_bound(exchange: Exchange) -> bool:
    """
    Whether it takes up what one upstream has given out (a `requestState`, a cursor, a task): no other one can serve it.
    """
    return continues(exchange) or "cursor" in exchange.request.params or method_of(exchange.method).target == "taskId"


@final
class Repeatables:
    """
    Tells which requests may be sent twice.

    Args:
        repeat: Globs of tool names, or of other methods, that the operator vouches for.
        trust_hints: Whether the upstream's `readOnlyHint` and `idempotentHint` are believed.
    """

    def __init__(self, repeat: Sequence[str], *, trust_hints: bool) -> None:
        self._listed: Callable[[str], bool] | None = matcher(repeat) if repeat else None
        self.book: ToolBook | None = ToolBook() if trust_hints else None
        """What is known of tools; None where hints are not believed."""
        self.knows = bool(repeat) or trust_hints
        """Whether any tool could be one of them: a call need not be asked about else."""
        self._next_lookup = float("-inf")

    def listen(self, changes: Changes) -> Callable[[], None]:
        """Forget tools when an upstream says that they have changed; returns what ends this."""
        return (lambda: None) if self.book is None else changes.listen(self.book.forget)

    def covers(self, exchange: Exchange) -> bool:
        """Whether this request may be sent twice, as far as is known now. Not a checkpoint."""
        if exchange.kind is not Kind.CALL:
            return False
        method = exchange.method
        if not method_of(method).repeatable and not self._vouched(exchange, method):
            return False
        return not continues(exchange)

    def reads(self, exchange: Exchange) -> bool:
        """Whether it is a call of a tool that only reads: listed, or trusted and marked `readOnlyHint`."""
        if exchange.method != CALL or continues(exchange):
            return False
        if self._listed is not None and self._listed(exchange.target or ""):
            return True
        tool = self.book.get(exchange) if self.book is not None else None
        return tool is not None and tool.read_only

    def _vouched(self, exchange: Exchange, method: str) -> bool:
        name = (exchange.target or "") if method == CALL else method
        if self._listed is not None and self._listed(name):
            return True
        if self.book is None or method != CALL:
            return False
        tool = self.book.get(exchange)
        return tool is not None and tool.repeatable

    def needs_lookup(self, exchange: Exchange) -> bool:
        """Whether `look_up` would help: a trusted upstream's tool of which nothing is known. Not a checkpoint."""
        book = self.book
        return (
            book is not None
            and exchange.method == CALL
            and not book.knows(exchange)
            and not self._vouched(exchange, CALL)
            and trio.current_time() >= self._next_lookup
        )

    async def look_up(self, exchange: Exchange, call_next: Service) -> None:
        """Ask the upstream for its tools; what fails here says nothing, the call itself will show it."""
        assert self.book is not None
        self._next_lookup = trio.current_time() + LOOKUP_PAUSE_S
        try:
            await self.book.find(exchange, call_next)
        except GatewayError:
            return

    def learn(self, exchange: Exchange, reply: Reply) -> None:
        """Take in a list of tools that passes; costs nothing for anything else."""
        if self.book is None or exchange.method != LIST:
            return
        try:
            self.book.learn(exchange, reply)
        except GatewayError:  # what cannot be read is the client's to see; nothing is learned of it
            return
