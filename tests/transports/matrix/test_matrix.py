"""Every kind of client at every kind of upstream, in every pair of eras: real gateways, real sockets and pipes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from crossing.behaviours import CHECKS, Crossing
from crossing.book import Book
from crossing.clients import Door, open_client, pipes
from crossing.crossings import BEHAVIOURS, CLIENTS, UPSTREAMS, End, lost, table
from crossing.kit import make_server
from crossing.upstreams import open_upstream

from sluiceway.pipeline.config import from_data
from sluiceway.pipeline.model.component import Component, ComponentKind, Context
from sluiceway.pipeline.runtime.engine import Engine
from sluiceway.transports.embedded.sink import EmbeddedSink
from sluiceway.transports.stdio_source import StdioSource, StdioSourceConfig

PAGE = Path(__file__).resolve().parents[3] / "docs" / "matrix.md"
STEP_S = 10


def source(kind: str, authority: Any) -> dict[str, Any]:
    """The source for a kind of client, as it stands in YAML."""
    if kind in ("stdio", "websocket"):
        return {kind: {} if kind == "stdio" else {"bind": "127.0.0.1:0"}}
    options: dict[str, Any] = {"bind": "127.0.0.1:0"}
    if kind == "sse":
        options["sse"] = {}
    if kind == "http2":
        cert, key = authority.issue()
        options["tls"] = {"cert": str(cert), "key": str(key)}
    return {"http": options}


@asynccontextmanager
async def gateway(client: End, sink: dict[str, Any] | EmbeddedSink, authority: Any) -> AsyncIterator[Door]:
    """A gateway between them; yields where its clients come in."""
    door = Door()
    overrides: dict[tuple[ComponentKind, str], Component] = {}
    if client.transport == "stdio":
        (reads, writes), (door.standard_input, door.standard_output) = pipes()
        streams = {"reader": trio.lowlevel.FdStream(reads), "writer": trio.lowlevel.FdStream(writes)}
        overrides[ComponentKind.SOURCE, "front"] = StdioSource(StdioSourceConfig(), Context(id="front"), **streams)
    if isinstance(sink, EmbeddedSink):
        overrides[ComponentKind.SINK, "up"] = sink
    document = {
        "version": 1,
        "sources": {"front": source(client.transport, authority)},
        "pipelines": {"main": {"sink": "up"}},
        "sinks": {"up": {"embedded": {}} if isinstance(sink, EmbeddedSink) else sink},
        "run": {"log_level": "error"},
    }
    engine = Engine(from_data(document), overrides=overrides)
    async with engine.running():
        front: Any = engine.sources["front"]
        if client.transport == "http2":
            door.tls = authority.trusted()
            door.tls.set_alpn_protocols(["h2"])
        if client.transport != "stdio":
            door.port = int(str(front.addresses[0]).rpartition(":")[2])
        yield door
    if client.transport == "stdio":
        for stream in streams.values():
            await stream.aclose()


@asynccontextmanager
async def crossing(client: End, upstream: End, authority: Any) -> AsyncIterator[Crossing]:
    """A client that has shaken hands with an upstream through a gateway."""
    seen = Book()
    if upstream.transport == "embedded":
        embedded = EmbeddedSink.serving(make_server(seen.add))
        async with (
            gateway(client, embedded, authority) as door,
            open_client(client.transport, client.modern, door) as c,
        ):
            await c.start()
            yield Crossing(c, seen, upstream)
        return
    async with (
        open_upstream(upstream.transport, upstream.modern, seen) as sink,
        gateway(client, sink, authority) as door,
        open_client(client.transport, client.modern, door) as c,
    ):
        await c.start()
        yield Crossing(c, seen, upstream)


@pytest.mark.matrix
@pytest.mark.real
@pytest.mark.parametrize("upstream", UPSTREAMS, ids=str)
@pytest.mark.parametrize("client", CLIENTS, ids=str)
async def test_whatever_can_cross_does(client: End, upstream: End, authority: Any) -> None:
    """Each behaviour holds, or is listed with the reason for which it cannot."""
    known = lost(client, upstream)
    with trio.fail_after(50):
        async with crossing(client, upstream, authority) as between:
            for behaviour, check in CHECKS.items():
                if behaviour in known:
                    continue
                with trio.move_on_after(STEP_S) as scope:
                    try:
                        await check(between)
                    except Exception as error:
                        error.add_note(f"{behaviour}: from {client} to {upstream}")
                        raise
                assert not scope.cancelled_caught, (behaviour, between.client.book.entries[-6:], between.seen.entries)


def test_each_behaviour_is_tried() -> None:
    """Those of the table are those of the suite, and whoever dies does so last."""
    assert tuple(CHECKS) == BEHAVIOURS


def test_the_table_is_the_latest() -> None:
    """`make matrix` writes it."""
    assert PAGE.read_text(encoding="utf-8") == table()
