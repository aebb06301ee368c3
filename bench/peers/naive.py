"""
The usual design, as an ASGI application: decode, encode, pass on with httpx. It runs under stock hypercorn.

    UPSTREAM=http://127.0.0.1:PORT/mcp hypercorn -k trio naive:app
"""

from __future__ import annotations

import json
import os

import httpx

UPSTREAM = os.environ["UPSTREAM"]
_KEPT = ("content-type", "accept", "mcp-session-id", "mcp-protocol-version", "mcp-method", "mcp-name")
_client: httpx.AsyncClient | None = None


async def _body(receive) -> bytes:
    body, more = b"", True
    while more:
        event = await receive()
        body += event.get("body", b"")
        more = event.get("more_body", False)
    return body


async def _lifespan(receive, send) -> None:
    while True:
        event = await receive()
        await send({"type": event["type"] + ".complete"})
        if event["type"] == "lifespan.shutdown":
            return


async def app(scope, receive, send) -> None:
    """Answer one request."""
    global _client
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
        return
    if _client is None:
        limits = httpx.Limits(max_connections=100, max_keepalive_connections=100)
        _client = httpx.AsyncClient(limits=limits, timeout=30)
    message = json.loads(await _body(receive))
    headers = {name.decode(): value.decode() for name, value in scope["headers"] if name.decode() in _KEPT}
    response = await _client.post(UPSTREAM, content=json.dumps(message), headers=headers)
    lines = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(response.content))]
    await send({"type": "http.response.start", "status": response.status_code, "headers": lines})
    await send({"type": "http.response.body", "body": response.content})
