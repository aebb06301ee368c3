"""
The SDK's fixture without one of its two eras, as old servers are and new ones will be.

    python tests/conformance/one_era.py modern stdio
    python tests/conformance/one_era.py legacy http 3001
"""

from __future__ import annotations

import sys
import warnings
from functools import partial
from typing import Any, Final

import mcp_types as types
import trio
from era_questions import call_legacy, call_modern, prompt_legacy
from hypercorn.config import Config
from hypercorn.trio import serve
from mcp.server import NotificationOptions, Server
from mcp.server.stdio import stdio_server
from mcp.shared.exceptions import MCPDeprecationWarning
from mcp.shared.message import SessionMessage
from sdk_fixture import RETRY_MS, Events, build

MODERN: Final = "2026-07-28"
REFUSALS: Final = {
    "modern": types.ErrorData(
        code=-32022, message="no handshakes here", data={"supported": [MODERN], "requested": "2025-11-25"}
    ),
    "legacy": types.ErrorData(code=-32601, message="Method not found"),
}
"""What the other era is answered, by the one there is."""
FIRST: Final = {"modern": "initialize", "legacy": "server/discover"}
"""What a client of the other era begins with on standard streams."""


def make(era: str) -> Server[Any]:
    """The fixture, asking as its era does and saying that its lists change."""
    if era == "modern":
        return build(call_modern)
    server = build(call_legacy, prompt_legacy)
    told = partial(server.create_initialization_options, NotificationOptions(True, True, True))
    server.create_initialization_options = told  # type: ignore[method-assign]  # no transport takes these options
    return server


async def serve_stdio(era: str) -> None:
    """Answer how the other era begins with an error, and leave everything else to the fixture."""
    server = make(era)
    async with stdio_server() as (reader, writer), trio.open_nursery() as nursery:
        send, receive = trio.open_memory_channel[Any](0)

        async def sift() -> None:
            async with send:
                async for item in reader:
                    message = getattr(item, "message", None)
                    if message is not None and getattr(message, "method", None) == FIRST[era]:
                        refusal = types.JSONRPCError(jsonrpc="2.0", id=message.id, error=REFUSALS[era])
                        await writer.send(SessionMessage(refusal))
                    else:
                        await send.send(item)

        nursery.start_soon(sift)
        await server.run(receive, writer, server.create_initialization_options())
        nursery.cancel_scope.cancel()


async def serve_http(era: str, port: int) -> None:
    """Answer whatever claims the other era in its header with an error."""
    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    inner: Any = make(era).streamable_http_app(event_store=Events(), retry_interval=RETRY_MS)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        claimed = dict(scope.get("headers", ())).get(b"mcp-protocol-version", b"").decode()
        if scope["type"] == "lifespan" or (claimed == MODERN) == (era == "modern"):
            await inner(scope, receive, send)
            return
        refusal = types.JSONRPCError(jsonrpc="2.0", id=0, error=REFUSALS[era])
        head = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 400, "headers": head})
        await send({"type": "http.response.body", "body": refusal.model_dump_json().encode()})

    await serve(app, config)


if __name__ == "__main__":
    warnings.simplefilter("ignore", MCPDeprecationWarning)
    _, era, transport, *port = sys.argv
    trio.run(partial(serve_stdio, era) if transport == "stdio" else partial(serve_http, era, int(port[0])))
