"""The gateway as an application of a plain hypercorn: life cycle, dispatch, and what that server does not do for us."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import pytest
import trio
from attrs import frozen
from hypercorn.config import Config as HypercornConfig
from hypercorn.trio import serve
from hypercorn.utils import LifespanFailureError

from sluiceway.pipeline.config import load_text
from sluiceway.pipeline.model.component import Sink, State
from sluiceway.pipeline.model.document import Document, PipelineSpec, Run, SinkSpec, SourceSpec
from sluiceway.pipeline.protocol.mcp import LATEST, MetaKey
from sluiceway.pipeline.protocol.messages import Notification, Result
from sluiceway.pipeline.replay.entries import event_of
from sluiceway.pipeline.replay.reading import Tape
from sluiceway.transports import asgi
from sluiceway.transports.asgi import Gateway, load_configured
from sluiceway.transports.http_source.config import HttpConfig
from sluiceway.transports.http_source.source import HttpSource


@frozen
class NoOptions:
    """Nothing to choose."""


class ScriptedSink(Sink):
    """Echoes; can fail to open, crash, talk, or wait to be cancelled."""

    Config = NoOptions
    fails = False
    crash: trio.Event
    cancelled: list[str]
    here: ScriptedSink

    @asynccontextmanager
    async def open(self):
        if type(self).fails:
            raise OSError("no such upstream")
        type(self).crash, type(self).cancelled, type(self).here = trio.Event(), [], self
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._crash)
            yield
            nursery.cancel_scope.cancel()

    async def _crash(self):
        await type(self).crash.wait()
        raise RuntimeError("the upstream broke")

    async def __call__(self, exchange):
        if exchange.method == "initialize":
            return Result({"protocolVersion": "2025-11-25"})
        if exchange.target in ("talk", "wait"):
            await exchange.relay(Notification("notifications/progress", {"progress": 1}))
        if exchange.target == "wait":
            try:
                await trio.sleep_forever()
            finally:
                type(self).cancelled.append(exchange.source)
        return Result({"source": exchange.source})


@pytest.fixture
def sink_class():
    return type("OneSink", (ScriptedSink,), {})


def document(sink_class: type[Sink], **paths: str) -> Document:
    """A configuration with one http source per path."""
    return Document(
        sources={
            name: SourceSpec(id=name, cls=HttpSource, config=HttpConfig(path=path, max_body=100_000), pipeline="main")
            for name, path in (paths or {"web": "/mcp"}).items()
        },
        pipelines={"main": PipelineSpec(id="main", sink="up")},
        sinks={"up": SinkSpec(id="up", cls=sink_class, config=NoOptions())},
        run=Run(drain_timeout=1.0),
    )


class Host:
    """As much of an ASGI server as a life cycle needs."""

    def __init__(self, app: Gateway) -> None:
        self.app = app
        self.sent: list[dict[str, Any]] = []
        self.started = trio.Event()
        self._to_app, self._from_host = trio.open_memory_channel[dict[str, Any]](2)

    async def send(self, event):
        self.sent.append(event)
        self.started.set()

    async def live(self):
        await self.app({"type": "lifespan"}, self._from_host.receive, self.send)

    def say(self, what: str) -> None:
        self._to_app.send_nowait({"type": f"lifespan.{what}"})

    @property
    def said(self) -> list[str]:
        return [event["type"] for event in self.sent]

    async def get(self, path: str, **scope: Any) -> tuple[int, bytes]:
        """Status and body of a GET."""
        sent: list[Any] = []

        async def send(event):
            sent.append(event)

        request = {"type": "http", "method": "GET", "path": path, "headers": [(b"host", b"localhost")], "client": None}
        await self.app(request | {"http_version": "1.1"} | scope, trio.sleep_forever, send)
        return sent[0]["status"], sent[1]["body"]


@asynccontextmanager
async def hosted(configure):
    host = Host(Gateway(configure))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(host.live)
        host.say("startup")
        await host.started.wait()
        yield host
        if not host.said[-1].endswith(("failed", "shutdown.complete")):
            host.say("shutdown")


async def test_the_life_cycle_runs_the_engine(sink_class, autojump_clock):
    """Ready when startup completes, drained when shutdown does; requests before and after are answered 503."""
    early = Host(Gateway(lambda: document(sink_class)))
    assert 503 == (await early.get("/healthz"))[0]
    async with hosted(lambda: document(sink_class)) as host:
        assert ["lifespan.startup.complete"] == host.said
        await trio.testing.wait_all_tasks_blocked()
        assert (200, b'{"status":"ready"}') == await host.get("/readyz")
        assert 405 == (await host.get("/mcp"))[0]
        assert 404 == (await host.get("/other"))[0]
        assert 505 == (await host.get("/mcp", http_version="2"))[0]

    assert ["lifespan.startup.complete", "lifespan.shutdown.complete"] == host.said
    assert 503 == (await host.get("/healthz"))[0]


async def test_readiness_is_the_engines(sink_class, autojump_clock):
    """A required component that is not there makes the whole not ready; the process is alive all the same."""
    async with hosted(lambda: document(sink_class)) as host:
        await trio.testing.wait_all_tasks_blocked()
        assert 200 == (await host.get("/readyz"))[0]
        sink_class.here.context.report(State.FAILED, "gone")

        assert (503, b'{"status":"not ready"}') == await host.get("/readyz")
        assert 200 == (await host.get("/healthz"))[0]


async def test_a_failed_start_is_told(sink_class, autojump_clock):
    """An exception would leave hypercorn serving 200s; the message names the component."""
    sink_class.fails = True
    async with hosted(lambda: document(sink_class)) as host:
        assert "lifespan.startup.failed" == host.said[-1]
        assert "no such upstream" in host.sent[-1]["message"]


@pytest.mark.parametrize(
    ("configure", "message"),
    [
        (lambda _: load_text("version: 2"), "version"),
        (lambda _: 1 / 0, "ZeroDivisionError"),
        (lambda sink: document(sink, a="/mcp", b="/mcp"), "sources a and b have the same path /mcp"),
        (lambda sink: Document(), "no source of kind http"),
    ],
)
async def test_a_configuration_that_cannot_be_served_is_told(sink_class, autojump_clock, configure, message):
    """What `check` finds, what only shared ports forbid, and what nobody foresaw."""
    async with hosted(lambda: configure(sink_class)) as host:
        assert "lifespan.startup.failed" == host.said[-1]
        assert message in host.sent[-1]["message"]


async def test_after_a_crash_every_request_is_answered_503(sink_class, autojump_clock):
    """Health too: whoever watches the process shall end it. The server's shutdown is still answered."""
    async with hosted(lambda: document(sink_class)) as host:
        await trio.testing.wait_all_tasks_blocked()
        assert 200 == (await host.get("/healthz"))[0]
        sink_class.crash.set()
        await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(10)
        assert (503, b"the gateway is not running\n") == await host.get("/healthz")
        assert ["lifespan.startup.complete"] == host.said
        host.say("shutdown")
        await trio.testing.wait_all_tasks_blocked()
        assert "lifespan.shutdown.complete" == host.said[-1]


def test_the_configuration_is_the_file_that_the_environment_names(monkeypatch, tmp_path):
    """The quickstart when it names none."""
    applied = []
    monkeypatch.setattr(asgi, "configure_logging", lambda *settings: applied.append(settings))
    path = tmp_path / "gateway.yaml"
    path.write_text(
        "version: 1\nsources: {mine: {http: {}, pipeline: p}}\npipelines: {p: {sink: s}}\nsinks: {s: {embedded: {}}}\n"
        "run: {log_level: error}\n"
    )
    monkeypatch.setenv(asgi.CONFIG_VARIABLE, str(path))
    assert ["mine"] == list(load_configured().sources)
    monkeypatch.delenv(asgi.CONFIG_VARIABLE)
    assert ["local"] == list(load_configured().sources)
    assert "error" == applied[0][0]


async def test_a_cancelled_application_cancels_its_modern_call(sink_class, autojump_clock):
    """What a server's graceful time-out does to a request is what leaving does."""
    async with hosted(lambda: document(sink_class)) as host:
        await trio.testing.wait_all_tasks_blocked()
        head, _, body = call("wait").partition(b"\r\n\r\n")
        headers = [tuple(line.lower().split(b": ", 1)) for line in head.split(b"\r\n")[1:]]
        events = [{"type": "http.request", "body": body}]

        async def receive():
            return events.pop() if events else await trio.sleep_forever()

        async def send(event):
            await trio.lowlevel.checkpoint()

        scope = {"type": "http", "method": "POST", "path": "/mcp", "headers": headers, "http_version": "1.1"}
        with trio.move_on_after(1):
            await host.app(scope, receive, send)
        await trio.testing.wait_all_tasks_blocked()

        assert ["web"] == sink_class.cancelled


# Under a real hypercorn.


@asynccontextmanager
async def under_hypercorn(configure):
    config = HypercornConfig()
    config.bind = ["127.0.0.1:0"]
    config.accesslog = config.errorlog = None
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        app: Any = Gateway(configure)
        [url] = await nursery.start(partial(serve, app, config, shutdown_trigger=stop.wait, mode="asgi"))
        yield int(url.rpartition(":")[2])
        stop.set()


def call(name: str, path: str = "/mcp") -> bytes:
    """A modern `tools/call` as bytes."""
    meta = {MetaKey.VERSION: LATEST, MetaKey.CLIENT_CAPABILITIES: {}}
    body = json.dumps(
        {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name, "_meta": meta}}
    ).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nAccept: */*\r\n"
        f"Mcp-Protocol-Version: {LATEST}\r\nMcp-Method: tools/call\r\nMcp-Name: {name}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


async def talk(port: int, data: bytes) -> bytes:
    """Send, and read to the end."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        await stream.send_all(data)
        answer = b""
        while piece := await stream.receive_some():
            answer += piece
        return answer


async def test_plain_hypercorn_serves_the_same_application(sink_class):
    """JSON and event streams, and several sources by their paths."""
    async with under_hypercorn(lambda: document(sink_class, a="/a", b="/b")) as port:
        plain = await talk(port, call("x", "/a"))
        stream = await talk(port, call("talk", "/b"))

        assert plain.startswith(b"HTTP/1.1 200 ")
        assert b'"result":{"source":"a"}' in plain
        assert b"text/event-stream" in stream
        assert stream.index(b"notifications/progress") < stream.index(b'"source":"b"')


async def test_under_plain_hypercorn_leaving_cancels_too(sink_class):
    """A task waits in `receive` for it, for that server tells nobody else."""
    async with under_hypercorn(lambda: document(sink_class)) as port:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        await stream.send_all(call("wait"))
        while b"progress" not in await stream.receive_some():
            pass
        await stream.aclose()
        while not sink_class.cancelled:
            await trio.lowlevel.checkpoint()

        assert ["web"] == sink_class.cancelled


async def test_under_plain_hypercorn_a_refused_body_blocks_nothing(sink_class):
    """Its queue is full of a body that nobody reads; the refusal gets out all the same, and the connection ends."""
    async with under_hypercorn(lambda: document(sink_class)) as port:
        data = (
            call("x").replace(b"application/json", b"text/plain").replace(b"Content-Length: ", b"Content-Length: 9999")
        )
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        async with stream, trio.open_nursery() as nursery:

            async def flood():
                with suppress(trio.BrokenResourceError):
                    await stream.send_all(data + b" " * 5_000_000)

            nursery.start_soon(flood)
            answer = b""
            with suppress(trio.BrokenResourceError):
                while piece := await stream.receive_some():
                    answer += piece
            nursery.cancel_scope.cancel()

        assert answer.startswith(b"HTTP/1.1 415 ")
        assert (await talk(port, call("x"))).startswith(b"HTTP/1.1 200 ")


async def test_a_failed_start_ends_a_plain_hypercorn(sink_class):
    """The process does not stay."""
    sink_class.fails = True
    with pytest.RaisesGroup(LifespanFailureError, flatten_subgroups=True):
        async with under_hypercorn(lambda: document(sink_class)):
            await trio.sleep_forever()  # it may listen for a moment


async def test_a_configuration_that_asks_for_a_recording_gets_one(tmp_path):
    """Whoever owns the sockets: `run.record` belongs to the gateway."""
    text = f"""
version: 1
sources:
  web:
    http: {{path: /mcp}}
pipelines:
  main: {{chain: [], sink: demo}}
sinks:
  demo:
    embedded: {{server: demo}}
run:
  record: {{folder: '{tmp_path}/tapes', min_free: 0B}}
"""
    async with hosted(lambda: load_text(text, base=tmp_path)) as host:
        assert host.said == ["lifespan.startup.complete"]
    (tape,) = (each for each in (tmp_path / "tapes").iterdir() if each.suffix == ".jsonl")

    assert event_of(list(Tape(tape).entries())[-1]) == "end"
