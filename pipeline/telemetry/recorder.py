"""
Spans of an exchange and of its parts, with the names of OpenTelemetry's conventions for MCP.

The conventions are in development (`opentelemetry.semconv._incubating`), so their names are copied here, and a test
compares. Older names of ours stand beside them: `mcp.method`, `mcp.tool`, `mcp.principal`, `request_id`.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, final
from urllib.parse import urlsplit, urlunsplit

from opentelemetry import trace as api
from opentelemetry.context import attach, detach
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.util.types import AttributeValue

from ..model.exchange import Exchange, Service
from ..model.session import ANONYMOUS
from ..protocol.messages import ErrorReply, Reply, Request
from ..protocol.trace_context import TraceContext
from .outcomes import Outcome, end_of
from .redaction import clip
from .spans import Span, span_context
from .tracer import Tracer, current_context

METHOD: Final = "mcp.method.name"
VERSION: Final = "mcp.protocol.version"
SESSION: Final = "mcp.session.id"
RESOURCE: Final = "mcp.resource.uri"
REQUEST_ID: Final = "jsonrpc.request.id"
OPERATION: Final = "gen_ai.operation.name"
TOOL: Final = "gen_ai.tool.name"
PROMPT: Final = "gen_ai.prompt.name"
ERROR_TYPE: Final = "error.type"
STATUS_CODE: Final = "rpc.response.status_code"
TRANSPORT: Final = "network.transport"
CLIENT_ADDRESS: Final = "client.address"

_TRANSPORTS: Final = {"http": "tcp", "sse": "tcp", "websocket": "tcp", "stdio": "pipe"}


@final
class Recorder:
    """
    Runs things in spans.

    Args:
        tracer: Makes them.
        carrying: Gives an exchange the context that its upstream shall see.
        stages: Whether stages have spans.
    """

    def __init__(self, tracer: Tracer, carrying: Callable[[Exchange, TraceContext], Exchange], *, stages: bool) -> None:
        self._tracer = tracer
        self._carrying = carrying
        self._stages = stages

    async def exchange(
        self, exchange: Exchange, call_next: Service, parent: TraceContext | None, linked: TraceContext | None
    ) -> Reply:
        """
        Run a chain in the span of the exchange, or in one below it if it has a span already.

        Args:
            exchange: Everything that is done for it further in becomes part of the trace.
            call_next: The chain.
            parent: Whose child the span is; None begins a trace.
            linked: Another trace that it comes from, without being part of it.
        """
        link, nested = exchange.link, exchange.link.trace is not None
        span = self._begin(exchange, parent, nested=nested)
        if linked is not None:
            span.add_link(span_context(linked, is_remote=True))
        around = exchange.around_sink, exchange.around_stage
        if not nested:
            link.trace = span.context
        if exchange.around_sink is None:
            exchange.around_sink = self.attempt
        if self._stages:
            exchange.around_stage = self.stage
        reply: Reply | None = None
        try:
            with current(span):
                reply = await call_next(exchange)
            return reply
        finally:
            exchange.around_sink, exchange.around_stage = around
            if not nested:
                _identify(span, exchange)
            _finish(span, exchange, reply, sys.exception(), exchange.relayed)

    async def attempt(self, sink_id: str, exchange: Exchange, sink: Service) -> Reply:
        """Call a sink in a span that its upstream gets as parent; an `Around`."""
        attributes = _subject(exchange)
        attributes["sluiceway.sink"] = sink_id
        attributes["sluiceway.attempt"] = exchange.attempt
        span = self._tracer.open_span(_title(exchange), current_context(), SpanKind.CLIENT, attributes)
        before = exchange.relayed
        reply: Reply | None = None
        try:
            with current(span):
                reply = await sink(self._carrying(exchange, span.context))
            return reply
        finally:
            _finish(span, exchange, reply, sys.exception(), exchange.relayed - before)

    async def stage(self, stage_id: str, exchange: Exchange, stage: Service) -> Reply:
        """Run a stage in a span; an `Around`."""
        span = self._tracer.open_span(stage_id, current_context(), SpanKind.INTERNAL, {"sluiceway.stage": stage_id})
        reply: Reply | None = None
        try:
            with current(span):
                reply = await stage(exchange)
            return reply
        finally:
            decided = [f"{d.outcome} {d.cause}".rstrip() for d in exchange.link.decisions if d.stage == stage_id]
            if decided:
                span.attributes["sluiceway.decisions"] = decided
            _finish(span, exchange, reply, sys.exception(), None)

    def _begin(self, exchange: Exchange, parent: TraceContext | None, *, nested: bool) -> Span:
        attributes = _subject(exchange)
        if nested:
            return self._tracer.open_span(_title(exchange), current_context() or parent, SpanKind.INTERNAL, attributes)
        client, request = exchange.client, exchange.request
        attributes["mcp.method"] = attributes[METHOD]
        attributes["sluiceway.source"] = exchange.source
        attributes["sluiceway.kind"] = exchange.kind.value
        if client.version is not None:
            attributes[VERSION] = clip(client.version)
        if isinstance(request, Request):
            attributes[REQUEST_ID] = clip(str(request.id))
        if client.session is not None:  # its id is a credential
            attributes[SESSION] = hashlib.sha256(client.session.id.encode()).hexdigest()[:16]
        if client.transport in _TRANSPORTS:
            attributes[TRANSPORT] = _TRANSPORTS[client.transport]
        if client.address is not None:
            attributes[CLIENT_ADDRESS] = client.address
        return self._tracer.open_span(_title(exchange), parent, SpanKind.SERVER, attributes)


@contextmanager
def current(span: Span) -> Iterator[None]:
    """Have a span be the current one of the OpenTelemetry API inside the block, and in tasks started there."""
    token = attach(api.set_span_in_context(span))
    try:
        yield
    finally:
        detach(token)


def _title(exchange: Exchange) -> str:
    """`tools/call read`: the method, and what it is about unless clients can make that up freely (a uri, an id)."""
    method = clip(exchange.request.method)
    target = exchange.target if method in ("tools/call", "prompts/get") else None
    return method if target is None else f"{method} {clip(target)}"


def _subject(exchange: Exchange) -> dict[str, AttributeValue]:
    method, target = exchange.request.method, exchange.target
    attributes: dict[str, AttributeValue] = {METHOD: clip(method)}
    if target is None:
        return attributes
    if method == "tools/call":
        attributes[OPERATION] = "execute_tool"
        attributes[TOOL] = attributes["mcp.tool"] = clip(target)
    elif method == "prompts/get":
        attributes[PROMPT] = clip(target)
    elif method.startswith("resources/"):
        attributes[RESOURCE] = clip(_without_secrets(target))
    return attributes


def _without_secrets(uri: str) -> str:
    """A uri without user, password, query and fragment."""
    try:
        parts = urlsplit(uri)
    except ValueError:
        return uri.partition("?")[0].partition("#")[0]
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _identify(span: Span, exchange: Exchange) -> None:
    """What stages further in have found out."""
    caller = exchange.link.caller if exchange.caller == ANONYMOUS else exchange.caller
    span.attributes["mcp.principal"] = clip(caller.subject)
    if caller.tenant is not None:
        span.attributes["sluiceway.tenant"] = clip(caller.tenant)
    span.attributes["request_id"] = clip(exchange.correlation_id or exchange.link.correlation_id) or "unknown"
    decisions = exchange.link.decisions
    if decisions:
        span.attributes["sluiceway.decisions"] = [
            f"{each.stage}: {each.outcome} {each.cause}".rstrip() for each in decisions
        ]
    span.attributes["sluiceway.attempts"] = exchange.link.attempts


def _finish(
    span: Span, exchange: Exchange, reply: Reply | None, error: BaseException | None, relayed: int | None
) -> None:
    end = end_of(exchange, reply, error)
    attributes = span.attributes
    attributes["sluiceway.outcome"] = end.outcome.value
    if relayed is not None:
        attributes["sluiceway.relayed"] = relayed
    if isinstance(reply, ErrorReply):
        attributes[STATUS_CODE] = str(reply.code)
    if end.error:
        attributes[ERROR_TYPE] = end.error
    if end.outcome is Outcome.SUCCESS:
        span.set_status(StatusCode.OK)
    elif end.outcome is not Outcome.CANCELLED:
        span.set_status(StatusCode.ERROR, end.text or end.error)
        if reply is None and error is not None:
            span.record_exception(error)
    span.end()
