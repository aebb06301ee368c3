"""
`sluiceway lock`: write down what tools are now, so that the stage `pin` can hold upstreams to it.

Tools are listed behind each `pin` stage with all other stages switched off: neither access rules nor limits hide one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import structlog
import trio
from attrs import evolve, frozen

from ..client.errors import HttpStatus, McpError
from ..client.memory import open_service_client
from ..model.document import Document, StageSpec
from ..model.pins import changes_between, read_lock, write_lock
from ..model.tools import LIST, Tool
from ..protocol.errors import SluicewayError
from ..runtime.engine import Engine
from .connect import PATIENCE_S, only
from .documents import Environment, Overlays, load_or_fail, overlays_of
from .exits import Exit, Failure
from .output import Format, emit, emit_json, printable, say


@frozen
class Pinned:
    """One `pin` stage: its lock file, and the sink whose tools it sees."""

    path: Path
    sink: str


def lock(
    file: Path,
    /,
    *,
    check: bool = False,
    env: Environment = None,
    overlay: Overlays = None,
    format: Format = "text",
) -> int:
    """
    List the tools behind each `pin` stage of a configuration, write their digests into its lock file, and show what has
    changed since it was last written. Needs the secrets; calls no tool.

    Args:
        file: The configuration.
        check: Write nothing; the exit code is 1 if a lock file does not say what the tools are now.
        env: Use the overlay of this environment, `<file>.<env>.yaml`.
        overlay: A file laid over the configuration; may be given several times.
        format: `text` for people, `json` for programs.
    """
    document = load_or_fail(file, overlays_of(file, env, overlay))
    pins = list(_pins(document))
    if not pins:
        raise Failure(f"{file} has no stage `pin`; add `- pin: {{lock: ./tools.lock.json}}` to a chain")
    reports = [_lock(document, pin, check=check) for pin in pins]
    if format == "json":
        emit_json(reports)
    is_same = not any(report[kind] for report in reports for kind in ("added", "changed", "removed"))
    if format == "text":
        for report in reports:
            _show(report, written=not check)
    return Exit.OK if is_same or not check else Exit.FOUND


def _pins(document: Document) -> Iterator[Pinned]:
    chains = [(pipeline.chain, pipeline.sink) for pipeline in document.pipelines.values()]
    chains += [(sink.chain, sink.id) for sink in document.sinks.values()]
    for chain, sink_id in chains:
        for stage in chain:
            if _is_pin(stage):
                yield Pinned(Path(str(stage.config.lock)), sink_id)


def _is_pin(stage: StageSpec) -> bool:
    return stage.enabled and stage.cls.name == "pin"


def _lock(document: Document, pin: Pinned, *, check: bool) -> dict[str, object]:
    with structlog.testing.capture_logs():  # stdout is for what was written
        tools = trio.run(_tools, document, pin.sink)
    content = write_lock(tools)
    try:
        old = read_lock(pin.path.read_bytes()) if pin.path.exists() else {}
    except ValueError as error:
        raise Failure(f"{pin.path}: {error}; move it away to make a new one") from error
    if not check:
        pin.path.write_bytes(content)
    return {"lock": str(pin.path), "sink": pin.sink, "tools": len(tools), **changes_between(old, read_lock(content))}


async def _tools(document: Document, sink_id: str) -> list[Tool]:
    part = only(document, sink_id)
    bare = evolve(part, sinks={id_: evolve(spec, chain=()) for id_, spec in part.sinks.items()})
    with trio.move_on_after(PATIENCE_S):
        try:
            async with (
                Engine(bare, listen=False).running() as engine,
                open_service_client(engine.sinks[sink_id]) as client,
            ):
                return [Tool(each) for each in await client.list_all(LIST, "tools")]
        except (SluicewayError, McpError, HttpStatus) as error:
            raise Failure(f"sinks.{sink_id}: {error}") from error
    raise Failure(f"sinks.{sink_id}: no answer within {PATIENCE_S:g} s")


def _show(report: dict[str, object], *, written: bool) -> None:
    lines = [
        f"{sign} {name}"
        for kind, sign in (("added", "+"), ("changed", "~"), ("removed", "-"))
        for name in report[kind]  # type: ignore[attr-defined]  # lists of names
    ]
    emit(printable("\n".join([f"{report['lock']}: {report['tools']} tools of {report['sink']}", *lines])))
    say("nothing has changed" if not lines else "written" if written else "not written")
