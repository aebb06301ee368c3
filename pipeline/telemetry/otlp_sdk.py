"""The part of exporting that needs OpenTelemetry's SDK and its OTLP exporter: the extra `sluiceway[otel]`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Status

from .spans import Span, span_context
from .tracer import TRACER


@final
class Sender:
    """
    Posts spans to a collector. Blocks: use it in a thread.

    Args:
        endpoint: Where to.
        headers: Secrets resolved.
        service: `service.name` of the resource; OTEL_RESOURCE_ATTRIBUTES adds to it.
        timeout_s: Of one request with all its retries.
    """

    def __init__(self, endpoint: str, headers: Mapping[str, str], *, service: str, timeout_s: float) -> None:
        self._exporter = OTLPSpanExporter(endpoint=endpoint, headers=dict(headers), timeout=timeout_s)
        self._resource = Resource.create({"service.name": service, "service.version": version("sluiceway")})
        self._scope = InstrumentationScope(TRACER, version("sluiceway"))

    def send(self, spans: Sequence[Span]) -> bool:
        """Post some spans; whether the collector took them."""
        return self._exporter.export([self._readable(span) for span in spans]) is SpanExportResult.SUCCESS

    def close(self) -> None:
        """Let go of connections; a request that is being retried ends."""
        self._exporter.shutdown()  # type: ignore[no-untyped-call]  # the SDK's is untyped

    def _readable(self, span: Span) -> ReadableSpan:
        return ReadableSpan(
            name=span.name,
            context=span.get_span_context(),
            parent=None if span.parent is None else span_context(span.parent, is_remote=False),
            resource=self._resource,
            attributes=span.attributes,
            events=[Event(each.name, each.attributes, each.at_ns) for each in span.events],
            links=span.links,
            kind=span.kind,
            status=Status(span.status, span.description),
            start_time=span.start_ns,
            end_time=span.end_ns,
            instrumentation_scope=self._scope,
        )
