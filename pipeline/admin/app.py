"""
The admin endpoints, as an ASGI application.

    GET /-/live      200 while the process serves; needs no token, tells nothing
    GET /-/ready     200 or 503; likewise
    GET /-/status    the engine's status as JSON; needs the token

Everything further (`endpoints.py`, the console) is a route of its own behind the same guard: `endpoints` takes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ..protocol.messages import Json, encode_json
from .guard import Guard

Status = Callable[[], Mapping[str, Json]]
"""Returns the engine's status; JSON."""

OPEN: Final = frozenset({"/-/live", "/-/ready"})
"""Paths that need no token: a probe cannot keep a secret, and they say a single word."""


class PlainJson(JSONResponse):
    """JSON that nobody may keep."""

    def __init__(self, content: Json, status_code: int = 200, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(content, status_code, {"cache-control": "no-store", **(headers or {})})

    def render(self, content: Json) -> bytes:
        """As the rest of the gateway encodes."""
        return encode_json(content)


def admin_app(guard: Guard, status: Status, endpoints: Iterable[BaseRoute] = ()) -> ASGIApp:
    """
    The application of one listener.

    Args:
        guard: Checked before any route.
        status: Asked anew for each request.
        endpoints: Further routes.
    """
    return guarded(Starlette(routes=routes_of(status, endpoints)), guard)


def routes_of(status: Status, endpoints: Iterable[BaseRoute] = ()) -> list[BaseRoute]:
    """The routes of `admin_app`, for whoever guards them otherwise."""

    async def live(_request: Request) -> Response:  # Starlette would run a plain function in a thread
        return PlainJson({"live": True})

    async def ready(_request: Request) -> Response:  # Starlette would run a plain function in a thread
        is_ready = bool(status()["ready"])
        return PlainJson({"ready": is_ready}, status_code=200 if is_ready else 503)

    async def show_status(_request: Request) -> Response:  # Starlette would run a plain function in a thread
        return PlainJson(dict(status()))

    return [Route("/-/live", live), Route("/-/ready", ready), Route("/-/status", show_status), *endpoints]


def guarded(app: ASGIApp, guard: Guard) -> ASGIApp:
    """Let only what the guard allows through to an application."""

    async def checked(scope: Scope, receive: Receive, send: Send) -> None:
        refusal = _refusal(HTTPConnection(scope), guard)
        await (refusal or app)(scope, receive, send)

    return checked


def _refusal(request: HTTPConnection, guard: Guard) -> Response | None:
    host = request.headers.get("host")
    if not guard.host_allowed(host):
        return PlainJson({"error": f"this listener is {guard.address}, not {host}"}, status_code=421)
    if request.url.path not in OPEN and not guard.token_allowed(request.headers.get("authorization")):
        challenge = {"www-authenticate": 'Bearer realm="sluiceway admin"'}
        return PlainJson({"error": "send the token of run.admin"}, status_code=401, headers=challenge)
    return None
