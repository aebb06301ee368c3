"""
`sluiceway doctor`: talk to each upstream in both eras and name what is wrong, with the remedy.

Each sink is opened as `check --connect` opens it. All are examined at once, so that one which hangs costs no more than
its own time.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from pathlib import Path
from typing import Any, Final

import structlog
import trio
from attrs import asdict, define, evolve, field

from ..client.client import McpClient
from ..client.errors import HttpStatus, McpError
from ..client.handshake import EraChoice
from ..client.memory import open_service_client
from ..config.references import sink_targets
from ..model.document import Document, SinkSpec
from ..protocol.errors import GatewayError, SluicewayError
from ..protocol.messages import Json
from ..runtime.engine import Engine
from .connect import only
from .documents import Environment, Overlays, load_or_fail, overlays_of
from .exits import Exit
from .faults import Finding, diagnose
from .offers import inspect_all, inspect_tools
from .output import Format, emit, emit_json, printable, say, table

PATIENCE_S: Final = 15.0
"""Time an upstream gets in each era, its start included, in seconds."""
SLOW_S: Final = 5.0
"""A handshake that takes longer than this many seconds is worth a word."""
_AT_ONCE: Final = 8
"""Upstreams that are examined at the same time."""
_ERAS: Final[tuple[EraChoice, ...]] = ("legacy", "modern")
"""Legacy first: a server that locks to its first message, or stays silent on what it does not know, answers that."""
_OF_THE_ERA: Final = ("mcp/failed", "mcp/silent", "http/not-mcp", "http/wrong-path")
"""Faults that the other era need not have."""


@define(eq=False)
class Chart:
    """What was found out about one upstream."""

    sink: str
    server: str = ""
    """Its name and version, as it says them."""
    versions: dict[str, str] = field(factory=dict)
    """The revision it speaks, by era."""
    tools: list[Json] = field(factory=list)
    findings: list[Finding] = field(factory=list)


def doctor(file: Path, /, *, env: Environment = None, overlay: Overlays = None, format: Format = "text") -> int:
    """
    Talk to each upstream of a configuration and name what is wrong, with the remedy.

    Opens every sink, in both eras, and reads its lists; calls no tool. Needs the secrets. The exit code is 1 if there
    is a fault.

    Args:
        file: The configuration.
        env: Use the overlay of this environment, `<file>.<env>.yaml`.
        overlay: A file laid over the configuration; may be given several times.
        format: `text` for people, `json` for programs.
    """
    document = load_or_fail(file, overlays_of(file, env, overlay))
    charts = trio.run(examine, document)
    findings = [finding for chart in charts for finding in chart.findings]
    findings += inspect_all({chart.sink: chart.tools for chart in charts})
    if format == "json":
        emit_json({"upstreams": [_summary(chart) for chart in charts], "findings": [asdict(each) for each in findings]})
    else:
        _print(charts, findings)
    return Exit.FOUND if any(each.is_fault for each in findings) else Exit.OK


async def examine(document: Document) -> list[Chart]:
    """Look at every upstream of a configuration: at every sink that does not only send to others."""
    targets = sink_targets(document)
    charts = [Chart(sink_id) for sink_id in document.sinks if not targets[sink_id]]
    places = trio.CapacityLimiter(_AT_ONCE)
    with structlog.testing.capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            for chart in charts:
                nursery.start_soon(_look_at, document, chart, places, logs)
    return charts


async def _look_at(
    document: Document, chart: Chart, places: trio.CapacityLimiter, logs: Sequence[MutableMapping[str, Any]]
) -> None:
    async with places:
        failed: dict[str, Finding] = {}
        for era in _ERAS:
            finding = await _try(document, chart, era)
            if finding is not None:
                failed[era] = finding
                if finding.fault not in _OF_THE_ERA:
                    break
    noise = sum(
        line.get("noise", 0)
        for line in logs
        if line.get("component") == f"sinks.{chart.sink}" and line.get("event") == "server ended"
    )
    if noise:
        chart.findings.append(
            Finding(chart.sink, "stdio/noise", f"{noise} lines on standard output are not MCP",
                    "have the server log to standard error; some have an option for that")
        )  # fmt: skip
    _judge(chart, document.sinks[chart.sink], failed)


def _judge(chart: Chart, spec: SinkSpec, failed: dict[str, Finding]) -> None:
    """What the two attempts mean together."""
    if not chart.versions:
        chart.findings.insert(0, failed.get("legacy") or failed["modern"])
        return
    for era in failed:
        other = next(iter(chart.versions))
        chart.findings.append(
            Finding(chart.sink, f"mcp/{other}-only", f"speaks {chart.versions[other]} and nothing {era}",
                    f"nothing to repair; {_served(spec, other)}", is_fault=False)
        )  # fmt: skip
    chart.findings += inspect_tools(chart.sink, chart.tools)


def _served(spec: SinkSpec, found: str) -> str:
    """What becomes of clients of an era that the upstream does not have, in the sink's own words."""
    config = evolve(spec.config, era=found) if hasattr(spec.config, "era") else spec.config
    return "\n    ".join(spec.cls.remarks(config)) or "clients of the other era are refused with an error that says so"


async def _try(document: Document, chart: Chart, era: EraChoice) -> Finding | None:
    """Talk to an upstream in one era; what was wrong, if something was."""
    start = trio.current_time()
    url = str(getattr(document.sinks[chart.sink].config, "url", ""))
    with trio.move_on_after(PATIENCE_S):
        try:
            async with (
                Engine(only(document, chart.sink), listen=False).running() as engine,
                open_service_client(engine.sinks[chart.sink], era=era) as client,
            ):
                took = trio.current_time() - start
                await _note(chart, client, era)
        except (SluicewayError, McpError, HttpStatus) as error:
            data = error.data if isinstance(error, GatewayError) else None
            lines = data.get("stderr", ()) if isinstance(data, dict) else ()
            return diagnose(chart.sink, str(error), url=url, stderr=tuple(map(str, lines)))
        if took > SLOW_S and not any(each.fault == "mcp/slow" for each in chart.findings):
            chart.findings.append(
                Finding(chart.sink, "mcp/slow", f"the first answer took {took:.1f} s",
                        "clients may give up; install the server beforehand instead of fetching it at each start",
                        is_fault=False)
            )  # fmt: skip
        return None
    return diagnose(chart.sink, f"no answer within {PATIENCE_S:g} s", url=url)


async def _note(chart: Chart, client: McpClient, era: EraChoice) -> None:
    chart.server = " ".join(str(client.server.info.get(key, "")) for key in ("name", "version")).strip()
    if "tools" in client.server.capabilities:
        chart.tools = await client.list_all("tools/list", "tools")
    for member in ("resources", "prompts"):
        if member in client.server.capabilities:
            await client.list_all(f"{member}/list", member)
    chart.versions[era] = client.version


def _summary(chart: Chart) -> dict[str, Json]:
    return {"id": chart.sink, "server": chart.server, "versions": chart.versions, "tools": len(chart.tools)}


def _print(charts: Sequence[Chart], findings: Sequence[Finding]) -> None:
    rows = [
        (chart.sink, chart.server or "-", ", ".join(chart.versions.values()) or "-", str(len(chart.tools)))
        for chart in charts
    ]
    table(("UPSTREAM", "SERVER", "MCP", "TOOLS"), rows)
    for each in findings:
        lines = [f"{'fault' if each.is_fault else 'note'}: {each.sink}: {each.fault}", each.message]
        lines += [f"it said: {line}" for line in each.details]
        emit(printable("\n" + "\n    ".join([*lines, f"remedy: {each.remedy}"])))
    faults = sum(each.is_fault for each in findings)
    say(f"upstreams: {len(charts)}, faults: {faults}")
