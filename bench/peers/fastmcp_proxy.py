"""
FastMCP's proxy, as its documentation shows it, or with one client for everybody.

    python fastmcp_proxy.py PORT UPSTREAM default|shared
"""

from __future__ import annotations

import asyncio
import sys

from fastmcp import Client
from fastmcp.server import create_proxy

PORT, UPSTREAM, FORM = int(sys.argv[1]), sys.argv[2], sys.argv[3]
HOW = {
    "transport": "http", "host": "127.0.0.1", "port": PORT, "log_level": "ERROR", "json_response": True,
    "uvicorn_config": {"access_log": False}, "show_banner": False,
}  # fmt: skip


async def _shared() -> None:
    async with Client(UPSTREAM) as client:
        await create_proxy(client, name="proxy").run_async(**HOW, stateless_http=True)


if FORM == "shared":
    asyncio.run(_shared())
else:
    create_proxy(UPSTREAM, name="proxy").run(**HOW)
