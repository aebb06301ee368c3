"""The admin endpoints without a listener: for a worker, whose supervisor has been asked and has checked who asks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.applications import Starlette

from ..protocol.messages import Json
from .app import routes_of
from .endpoints import Gateway, endpoints_of


async def ask_inside(gateway: Gateway, method: str, path: str, query: str, body: bytes) -> tuple[int, str, bytes]:
    """
    One request.

    Returns:
        HTTP status, content type and body.
    """
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": query.encode(), "root_path": "", "client": None,
        "headers": [(b"content-length", str(len(body)).encode())], "server": None,
    }  # fmt: skip
    sent: list[Mapping[str, Any]] = []

    async def receive() -> dict[str, Json]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(event: Mapping[str, Any]) -> None:
        sent.append(event)

    routes = routes_of(gateway.status, endpoints_of(gateway))  # asked seldom, so nothing is kept
    await Starlette(routes=routes)(scope, receive, send)
    start, *rest = sent
    headers = {name: value.decode("latin-1") for name, value in start["headers"]}
    return start["status"], headers.get(b"content-type", ""), b"".join(event.get("body", b"") for event in rest)
