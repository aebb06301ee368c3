"""Who looks into a result has it whole: in pieces it would be neither masked, kept, checked nor shared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from msgspec.structs import replace

from sluiceway.pipeline.model.component import ComponentKind, Context, Middleware
from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.registry import Registry
from sluiceway.pipeline.model.session import Caller
from sluiceway.pipeline.protocol.mcp import MetaKey
from sluiceway.pipeline.protocol.messages import Json, Reply, Result
from sluiceway.pipeline.runtime.chain import Stage, compile_chain
from sluiceway.pipeline.stores.memory import MemoryStore
from sluiceway.pipeline.testing import MODERN_CLIENT, memory_exchange
from sluiceway.pipeline.testing.configs import make_config

READ: tuple[str, Mapping[str, Json]] = ("resources/read", {"uri": "file:///a"})
CALL: tuple[str, Mapping[str, Json]] = ("tools/call", {"name": "echo", "arguments": {}})
KEYED: tuple[str, Mapping[str, Json]] = ("tools/call", {"name": "echo", "_meta": {MetaKey.IDEMPOTENCY_KEY: "k"}})
TASKS = replace(MODERN_CLIENT, capabilities={"extensions": {"io.modelcontextprotocol/tasks": {}}})
ECHO = {"name": "echo", "inputSchema": {"type": "object"}, "outputSchema": {"type": "object"}}
ALL = {"rules": [{"allow": "*"}]}
KEEP = {"keep": "1h", "store": "state"}


@pytest.mark.parametrize(
    ("name", "options", "request_", "whole"),
    [
        ("redact", {"keys": ["password"]}, CALL, True),
        ("redact", {"paths": ["result.content.*.text"]}, CALL, True),
        ("redact", {"keys": ["password"], "replies": False}, CALL, False),
        ("redact", {"paths": ["params.arguments.card"]}, CALL, False),
        ("fallback", KEEP, READ, True),
        ("fallback", KEEP, CALL, False),
        ("fallback", {"empty_lists": True}, READ, False),
        ("cache", {"rules": [{"method": ["resources/read"], "ttl": "1m"}]}, READ, True),
        ("cache", {}, CALL, False),
        ("dedup", {}, READ, True),
        ("dedup", {}, CALL, False),
        ("dedup", {"store": "state"}, KEYED, True),
        ("access", ALL, CALL, True),
        ("access", ALL, READ, True),
        ("validate", {"results": "refuse"}, CALL, True),
        ("validate", {"results": "off"}, CALL, False),
        ("validate", {}, READ, False),
        ("audit", {"to": "log", "result": "digest"}, CALL, True),
        ("audit", {"to": "log"}, CALL, False),
        ("retry", {}, READ, False),
        ("rate_limit", {}, CALL, False),
    ],
)
async def test_a_stage_that_looks_into_results_has_them_whole_and_no_other(
    name: str, options: Any, request_: tuple[str, Mapping[str, Json]], whole: bool, autojump_clock: Any
) -> None:
    """As the sink sees it, which asks `takes_pieces`."""
    store = MemoryStore(MemoryStore.Config(), Context(id="stores.state"))
    cls = Registry().find(ComponentKind.MIDDLEWARE, name)
    assert issubclass(cls, Middleware)
    stage = cls(make_config(cls, options), Context(id=name, stores=lambda _: store))
    taken: list[bool] = []

    async def sink(exchange: Exchange) -> Reply:
        if exchange.method == "tools/list":
            return Result({"tools": [ECHO]})
        taken.append(exchange.takes_pieces)
        return Result({"content": [], "structuredContent": {}})

    async def pieces(_: bytes) -> None:
        """The source's end."""

    method, params = request_
    exchange = memory_exchange(method, dict(params), caller=Caller("ana", "acme", how="bearer"), client=TASKS)
    exchange.link.pieces = pieces
    async with store.open(), stage.open():
        await compile_chain([Stage(name, stage)], sink).service(exchange)

    assert taken == [not whole]
