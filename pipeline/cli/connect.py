"""
`sluiceway check --connect`: open every sink by itself and ask it what it offers.

Each sink is opened with the sinks and stores it needs, without sources and pipelines, so that one that fails does not
hide another.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import structlog
import trio
from attrs import evolve

from ..client.client import McpClient
from ..client.errors import HttpStatus, McpError
from ..client.memory import open_service_client
from ..config import Problem, Span
from ..config.problems import SourceText
from ..config.references import sink_targets
from ..model.document import Document, SinkSpec
from ..protocol.errors import ComponentError, GatewayError
from ..runtime.engine import Engine
from .output import printable, say

PATIENCE_S: Final = 30.0
"""Time one sink gets to open and answer, in seconds."""

LISTS: Final = {"tools": "tools/list", "resources": "resources/list", "prompts": "prompts/list"}
"""What is counted, by the capability that announces it."""


def connect_all(documents: Iterable[Document]) -> list[Problem]:
    """Try every sink of some documents, one after the other; what was found is said on stderr."""
    with structlog.testing.capture_logs():  # what goes wrong is in the problems; stdout is for them
        return [
            problem
            for document in documents
            for sink in document.sinks.values()
            if (problem := trio.run(_try, document, sink)) is not None
        ]


async def _try(document: Document, sink: SinkSpec) -> Problem | None:
    with trio.move_on_after(PATIENCE_S):
        try:
            say(f"  {sink.id}: {printable(await discover(document, sink.id))}")
            return None
        except (ComponentError, GatewayError, McpError, HttpStatus) as error:
            return _problem(sink, str(error))
    return _problem(sink, f"{sink.id}: no answer within {PATIENCE_S:g} s")


async def discover(document: Document, sink_id: str) -> str:
    """
    Open a sink and ask it what it offers, in one line.

    Raises:
        ComponentError: It cannot be opened.
        GatewayError: It cannot be reached, or does not speak MCP.
        McpError: It refuses.
    """
    async with (
        Engine(only(document, sink_id), listen=False).running() as engine,
        open_service_client(engine.sinks[sink_id]) as client,
    ):
        counts = [await _count(client, name, method) for name, method in LISTS.items()]
        name = " ".join(str(client.server.info.get(key, "")) for key in ("name", "version")).strip()
        offered = ", ".join(count for count in counts if count) or "nothing"
        return f"{name or 'a server without a name'}, MCP {client.version}: {offered}"


def only(document: Document, sink_id: str) -> Document:
    """
    A configuration with one sink, the sinks it sends to, and all stores. What upstreams say of themselves is not
    translated into what they do not speak.
    """
    targets, wanted = sink_targets(document), [sink_id]
    for each in wanted:
        wanted += [target for target in targets[each] if target not in wanted]
    return evolve(document, sources={}, pipelines={}, sinks={id_: _plain(document.sinks[id_]) for id_ in wanted})


def _plain(spec: SinkSpec) -> SinkSpec:
    return evolve(spec, config=evolve(spec.config, translate=False)) if hasattr(spec.config, "translate") else spec


async def _count(client: McpClient, capability: str, method: str) -> str:
    if capability not in client.server.capabilities:
        return ""
    items = await client.list_all(method, capability)
    return f"{len(items)} {capability if len(items) != 1 else capability.removesuffix('s')}"


def _problem(sink: SinkSpec, message: str) -> Problem:
    return Problem(rule="connect/failed", message=message, span=_span(sink.place))


def _span(place: str) -> Span:
    """The place of a sink's key, with the line that is shown under the message."""
    name, line, column = place.rsplit(":", 2)
    path = Path(name)
    lines = tuple(path.read_text(encoding="utf-8").splitlines()) if path.is_file() else ()
    return Span(SourceText(name, path.absolute().parent, lines), int(line), int(column))
