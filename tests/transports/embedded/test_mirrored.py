"""Arguments mirrored into `Mcp-Param-*` headers, compared by an embedded server."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from msgspec import Meta

from sluiceway.pipeline.protocol.errors import HeaderMismatch
from sluiceway.transports.embedded import Server


async def test_only_modern_http_requests_are_compared(connect: Any) -> None:
    """Over HTTP of 2026-07-28 the header is required; elsewhere there is none."""
    server = Server("s")

    @server.tool()
    def where(region: Annotated[str, Meta(extra_json_schema={"x-mcp-header": "Region"})]) -> str:
        return region

    async with connect(server, version="2026-07-28", transport="http", headers={"mcp-param-region": "us"}) as peer:
        assert "us" == await peer.call("where", region="us")
        with pytest.raises(HeaderMismatch):
            await peer.call("where", region="eu")
    async with connect(server, version="2026-07-28", transport="stdio") as peer:
        assert "us" == await peer.call("where", region="us")
    async with connect(server, transport="http") as peer:
        assert "us" == await peer.call("where", region="us")
