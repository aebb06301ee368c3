"""Legacy clients that have no session yet, or none any more (MCP 2025-11-25, basic/lifecycle)."""

from __future__ import annotations

import trio

from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.protocol.errors import InvalidMessage
from sluiceway.pipeline.protocol.mcp import Kind
from sluiceway.pipeline.protocol.messages import Reply, Result


async def answer_stranger(exchange: Exchange) -> Reply:
    """
    The answer to a client without a session: it has none at the upstream either, and all it may do is ping.

    Raises:
        InvalidMessage: It asks for something else.
    """
    await trio.lowlevel.checkpoint()
    if exchange.method == "ping" or exchange.kind is Kind.NOTIFY:
        return Result()
    raise InvalidMessage(f"{exchange.method} needs a session; send initialize first")
