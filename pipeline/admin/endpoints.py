"""
What an operator sees and does of a running gateway, one component at a time or all at once.

    GET  /-/metrics, /metrics           Prometheus' text format, or OpenMetrics for who accepts it
    GET  /-/traces                      the spans that ended lately, latest first; ?trace=<id>, ?limit=<n>
    GET  /-/alerts                      alerts that fire or are about to, and the rules
    GET  /-/audit                       entries of the audit trails; filters as of `sluiceway audit query`
    GET  /-/components/{id}             one component: its state, details, actions and figures
    POST /-/components/{id}/{action}    have it do one of its actions, with a JSON object of arguments

All need the token.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from typing import Any, Final, Protocol

import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from ..model.component import Component
from ..model.figures import Figure
from ..protocol.errors import ComponentError, GatewayError
from ..protocol.gate import Limits, check
from ..protocol.messages import EMPTY, Json
from ..telemetry.metrics import Snapshot
from .app import PlainJson

MAX_ARGUMENTS: Final = 64 * 1024
"""Bytes of an action's arguments."""
MAX_SPANS: Final = 1000
"""Spans of one answer."""


class Gateway(Protocol):
    """What the endpoints need of an engine."""

    def status(self) -> Mapping[str, Any]:
        """See `Engine`, as for the others."""
        ...

    def snapshot(self) -> Snapshot:
        """Everything that is counted."""
        ...

    def alerts(self) -> Mapping[str, Json]:
        """Alerts and their rules."""
        ...

    def component(self, component_id: str) -> Component:
        """An open component; raises LookupError or ComponentError."""
        ...

    def components(self) -> list[Component]:
        """The open ones."""
        ...


def endpoints_of(gateway: Gateway) -> list[BaseRoute]:
    """Routes for `admin_app`."""

    async def metrics(request: Request) -> Response:  # Starlette would run a plain function in a thread
        from ..telemetry.exposition import exposition  # prometheus-client, for those who scrape

        content_type, body = exposition(gateway.snapshot(), request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type, "cache-control": "no-store"})

    async def traces(request: Request) -> Response:  # Starlette would run a plain function in a thread
        return PlainJson({"spans": _spans(gateway, request.query_params)})

    async def alerts(_request: Request) -> Response:  # Starlette would run a plain function in a thread
        return PlainJson(dict(gateway.alerts()))

    async def audit(request: Request) -> Response:
        trails = [each for each in gateway.components() if each.name == "audit" and "query" in each.actions]
        found: list[Json] = []
        try:
            for trail in trails:
                entries = await trail.act("query", dict(request.query_params))
                found += entries if isinstance(entries, list) else []
        except (ValueError, ComponentError) as error:
            return _error(_status_of(error), str(error))
        return PlainJson({"entries": found})

    async def show(request: Request) -> Response:  # Starlette would run a plain function in a thread
        component_id = request.path_params["id"]
        shown = next((dict(row) for row in gateway.status()["components"] if row["id"] == component_id), None)
        if shown is None:
            return _error(404, f"no component {component_id!r}")
        shown["actions"], shown["figures"] = {}, []
        try:
            component = gateway.component(component_id)
        except (LookupError, ComponentError):  # it is not open: its state is all there is to say
            return PlainJson(shown)
        shown["actions"] = dict(component.actions)
        shown["figures"] = [_plain(each) for each in component.figures() if isinstance(each, Figure)]
        return PlainJson(shown)

    async def act(request: Request) -> Response:
        component_id, action = request.path_params["id"], request.path_params["action"]
        try:
            arguments = await _arguments(request)
            component = gateway.component(component_id)
            result = await component.act(action, arguments)
        except (LookupError, ValueError, ComponentError, GatewayError) as error:
            return _error(_status_of(error), str(error))
        log: Any = structlog.get_logger()
        log.info("operator acted", component=component_id, action=action)
        return PlainJson({"result": result})

    return [
        Route("/-/metrics", metrics),
        Route("/metrics", metrics),
        Route("/-/traces", traces),
        Route("/-/alerts", alerts),
        Route("/-/audit", audit),
        Route("/-/components/{id}", show),
        Route("/-/components/{id}/{action}", act, methods=["POST"]),
    ]


def _spans(gateway: Gateway, query: Mapping[str, str]) -> list[Json]:
    from ..telemetry.tracer import KeepsSpans  # OpenTelemetry, for those who look

    wanted, limit = query.get("trace"), query.get("limit", "")
    count = min(int(limit), MAX_SPANS) if limit.isascii() and limit.isdigit() else MAX_SPANS
    keepers = [each for each in gateway.components() if isinstance(each, KeepsSpans)]
    spans = [span for keeper in keepers for span in keeper.recent_spans()]
    spans = [span for span in spans if wanted is None or span.context.trace_id == wanted]
    spans.sort(key=lambda span: span.start_ns, reverse=True)
    return [span.as_json() for span in spans[:count]]


async def _arguments(request: Request) -> Mapping[str, Json]:
    """
    The body as an object; none is an empty one.

    Raises:
        ValueError: It is no JSON object, or too large.
    """
    body = b""
    async with aclosing(request.stream()) as chunks:
        async for chunk in chunks:
            body += chunk
            if len(body) > MAX_ARGUMENTS:
                raise ValueError(f"arguments must not be larger than {MAX_ARGUMENTS} bytes")
    if not body.strip():
        return EMPTY
    try:
        arguments = check(body, Limits(max_message_size=MAX_ARGUMENTS))
    except GatewayError as error:
        raise ValueError(f"arguments must be a JSON object: {error}") from error
    if not isinstance(arguments, dict):
        raise ValueError("arguments must be a JSON object")
    return arguments


def _status_of(error: Exception) -> int:
    if isinstance(error, GatewayError):
        return error.http_status
    if isinstance(error, ComponentError):
        return 409
    return 404 if isinstance(error, LookupError) else 400


def _error(status: int, text: str) -> Response:
    return PlainJson({"error": text}, status_code=status)


def _plain(figure: Figure) -> Json:
    return {"name": figure.name, "value": figure.value, "labels": dict(figure.labels)}
