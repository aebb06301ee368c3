"""
The SDK's fixture of the conformance suite without its legacy half, as servers of the modern era alone will be.

    python tests/integration/modern_only.py stdio
    python tests/integration/modern_only.py http 3001
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "conformance"))

import mcp_types as types
import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from mcp.server.stdio import stdio_server
from mcp.shared.exceptions import MCPDeprecationWarning
from mcp.shared.message import SessionMessage
from sdk_fixture import Events, build

REFUSAL = types.ErrorData(
    code=-32022, message="no handshakes here", data={"supported": ["2026-07-28"], "requested": "2025-11-25"}
)


async def serve_stdio() -> None:
    """Answer `initialize` with an error, and leave everything else to the fixture."""
    server = build()
    async with stdio_server() as (reader, writer), trio.open_nursery() as nursery:
        send, receive = trio.open_memory_channel[Any](0)

        async def sift() -> None:
            async with send:
                async for item in reader:
                    message = getattr(item, "message", None)
                    if message is not None and getattr(message, "method", None) == "initialize":
                        refusal = types.JSONRPCError(jsonrpc="2.0", id=message.id, error=REFUSAL)
                        await writer.send(SessionMessage(refusal))
                    else:
                        await send.send(item)

        nursery.start_soon(sift)
        await server.run(receive, writer, server.create_initialization_options())
        nursery.cancel_scope.cancel()


async def serve_http(port: int) -> None:
    """Answer whatever does not claim the modern revision in its header with an error."""
    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    inner: Any = build().streamable_http_app(event_store=Events())

    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = dict(scope.get("headers", ()))
        if scope["type"] == "lifespan" or headers.get(b"mcp-protocol-version") == b"2026-07-28":
            await inner(scope, receive, send)
            return
        refusal = types.JSONRPCError(jsonrpc="2.0", id=0, error=REFUSAL)
        head = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 400, "headers": head})
        await send({"type": "http.response.body", "body": refusal.model_dump_json().encode()})

    await serve(app, config)


if __name__ == "__main__":
    warnings.simplefilter("ignore", MCPDeprecationWarning)
    if sys.argv[1] == "stdio":
        trio.run(serve_stdio)
    else:
        trio.run(serve_http, int(sys.argv[2]))
