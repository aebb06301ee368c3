"""`trace: {otlp: ...}`: spans on their way to a collector."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import trio
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from sluiceway.middlewares.trace import Trace
from sluiceway.middlewares.trace_export import MAX_BATCH, MISSING, Exporter, Otlp, open_exporter
from sluiceway.pipeline.model.options import Secret
from sluiceway.pipeline.protocol.messages import ErrorReply, Result
from sluiceway.pipeline.runtime.chain import Stage, compile_chain, count_attempts
from sluiceway.pipeline.testing import leak_check


class Collector:
    """An OTLP/HTTP collector on a loopback port."""

    def __init__(self) -> None:
        self.headers: list[Any] = []
        self.spans: list[Any] = []
        self.services: set[str] = set()
        self.status = 200
        self.hold = threading.Event()
        self.hold.set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                collector.hold.wait(10)
                request = ExportTraceServiceRequest.FromString(body)
                collector.headers.append(self.headers)
                for resource in request.resource_spans:
                    collector.services |= {
                        a.value.string_value for a in resource.resource.attributes if a.key == "service.name"
                    }
                    for scope in resource.scope_spans:
                        collector.spans += scope.spans
                self.send_response(collector.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1/traces"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self.hold.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    """Closed after the test."""
    collector = Collector()
    yield collector
    collector.close()


async def _trace(bench: Any, otlp: Otlp, *replies: Any) -> Trace:
    stage = Trace(Trace.Config(otlp=otlp), bench.context("trace"))
    waiting = list(replies)

    async def sink(_exchange):
        return waiting.pop(0)

    service = compile_chain([Stage("trace", stage)], count_attempts("up", sink)).service
    async with stage.open():
        for _ in replies:
            await service(bench.exchange())
    return stage


async def test_spans_arrive_at_the_collector(bench, collector, monkeypatch):
    """All of them when the stage closes, as what they were; with the operator's headers and service name."""
    monkeypatch.setenv("COLLECTOR_KEY", "s3cret")
    headers = {"x-api-key": Secret(from_env="COLLECTOR_KEY")}
    otlp = Otlp(endpoint=collector.url, headers=headers, service="edge")

    stage = await _trace(bench, otlp, Result(), ErrorReply(-32602, "bad"))

    assert [h["x-api-key"] for h in collector.headers] == ["s3cret"]
    assert collector.services == {"edge"}
    kept = list(stage.recent_spans())
    assert [span.span_id.hex() for span in collector.spans] == [span.context.span_id for span in kept]
    assert [span.parent_span_id.hex() for span in collector.spans] == [kept[1].context.span_id, "", *[
        kept[3].context.span_id, ""
    ]]  # fmt: skip
    last = collector.spans[-1]
    assert (last.name, last.status.message) == ("tools/call echo", "bad")
    assert last.end_time_unix_nano >= last.start_time_unix_nano > 1_700_000_000 * 10**9
    assert {a.key for a in last.attributes} >= {"mcp.method.name", "gen_ai.tool.name", "error.type"}


async def test_nothing_is_left_of_an_exporter(bench, collector):
    """No thread of the SDK, no connection."""
    await _trace(bench, Otlp(endpoint=collector.url), Result())  # imports, and Trio's own threads

    with leak_check():
        await _trace(bench, Otlp(endpoint=collector.url), Result())


async def test_a_collector_that_refuses_costs_spans_and_nothing_else(bench, collector):
    """They are counted, and the log says so once a batch."""
    collector.status = 400

    await _trace(bench, Otlp(endpoint=collector.url), Result())

    (line,) = [line for line in bench.lines() if line["event"] == "spans lost"]
    assert line["count"] == 2


async def test_a_collector_that_hangs_holds_up_the_end_for_timeout(bench, collector):
    """And not longer, whatever it does: half a second here, though it would answer after ten."""
    collector.hold.clear()
    with trio.fail_after(5):
        await _trace(bench, Otlp(endpoint=collector.url, timeout=0.5), Result())
    collector.hold.set()

    assert "spans lost" in bench.events()


async def test_nobody_there_is_no_failure(bench):
    """The gateway goes on."""
    with trio.fail_after(5):
        await _trace(bench, Otlp(endpoint="http://127.0.0.1:9/v1/traces", timeout=0.5), Result())

    assert "spans lost" in bench.events()


async def test_without_the_extra_it_says_how_to_get_it(bench, monkeypatch):
    """When the stage opens: `check` needs no SDK."""
    for name in list(sys.modules):
        if name.startswith("opentelemetry.sdk") or name.endswith("otlp_sdk"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk", None)
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)

    with pytest.raises(ModuleNotFoundError) as caught:
        await _trace(bench, Otlp(endpoint="http://127.0.0.1:9"))

    assert str(caught.value) == MISSING


async def test_a_secret_that_cannot_be_read_keeps_the_stage_closed(bench):
    """As with any other secret."""
    headers = {"x": Secret(from_env="NOT_SET_ANYWHERE")}

    with pytest.raises(LookupError, match="NOT_SET_ANYWHERE"):
        await _trace(bench, Otlp(endpoint="http://127.0.0.1:9", headers=headers))


class Sent:
    """Takes batches; `arrived` says whether they do."""

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []
        self.arrived = True

    def send(self, spans: Any) -> bool:
        self.batches.append(list(spans))
        return self.arrived


async def _serve(exporter: Exporter, seconds: float) -> None:
    with trio.move_on_after(seconds):
        await exporter.serve()


async def test_spans_wait_for_as_long_as_every_says(bench):
    """Or until there are enough for a batch."""
    sent: Any = Sent()
    exporter = Exporter(Otlp(endpoint="x", every=0.2), sent.send, bench.context().log)
    exporter.put("a")  # type: ignore[arg-type]  # any object does
    await _serve(exporter, 0.05)
    before = list(sent.batches)
    for n in range(MAX_BATCH):
        exporter.put(n)  # type: ignore[arg-type]  # likewise
    await _serve(exporter, 0.15)
    after = list(sent.batches)

    assert before == []
    assert after == [["a", *range(MAX_BATCH - 1)], [MAX_BATCH - 1]]


async def test_when_too_many_wait_the_oldest_go(bench):
    """They are counted as lost, like those that nobody took."""
    sent: Any = Sent()
    exporter = Exporter(Otlp(endpoint="x", max_waiting=2), sent.send, bench.context().log)
    for name in "abc":
        exporter.put(name)  # type: ignore[arg-type]  # any object does
    await exporter.flush()
    sent.arrived = False
    exporter.put("d")  # type: ignore[arg-type]  # likewise
    await exporter.flush()

    assert sent.batches == [["b", "c"], ["d"]]
    assert {figure.name: figure.value for figure in exporter.figures()} == {
        "trace_exported_spans_total": 2,
        "trace_lost_spans_total": 2,
    }


async def test_figures_of_the_exporter_are_those_of_the_stage(bench, collector):
    """While it is open."""
    stage = Trace(Trace.Config(otlp=Otlp(endpoint=collector.url)), bench.context("trace"))
    async with stage.open():
        names = [figure.name for figure in stage.figures()]

    assert "trace_exported_spans_total" in names


async def test_it_opens_and_closes_around_an_error(collector, bench):
    """What waits still goes out."""
    with pytest.raises(RuntimeError, match="planted"):
        async with open_exporter(Otlp(endpoint=collector.url), bench.context().log):
            raise RuntimeError("planted")
