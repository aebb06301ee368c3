"""`sluiceway tools`: list, call and load the tools behind a running gateway, or any MCP server, over HTTP."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Annotated, Final, TypeVar, final

import trio
from attrs import frozen
from cyclopts import App, Parameter

from ..client.client import McpClient, Progress
from ..client.errors import HttpStatus, McpError
from ..client.handshake import EraChoice
from ..client.load import OK, LoadReport, parse_pace, run_load
from ..model.options import parse_duration
from ..protocol.errors import ConnectFailed, GatewayError
from ..protocol.messages import EMPTY, Json
from ..runtime.nursery import unwrap_single
from .arguments import is_object, parse_arguments
from .exits import Exit, Failure, usage
from .output import Format, emit, emit_json, first_sentence, printable, say, table
from .progress import CallBar
from .resend import is_loopback
from .results import render_result

T = TypeVar("T")

DEFAULT_URL: Final = "http://127.0.0.1:8080/mcp"
"""Where the quickstart listens."""

tools = App(name="tools", help="List, call and load the tools behind a running gateway.")


@final
@frozen
class Connection:
    """Where the gateway is and how to speak to it."""

    url: Annotated[str, Parameter(env_var="SLUICEWAY_URL")] = DEFAULT_URL
    """The gateway's endpoint."""
    header: list[str] | None = None
    """An HTTP header, `name: value`; may be given several times."""
    timeout: str = "60s"
    """How long to wait for the whole conversation, such as `30s` or `5m`."""
    era: EraChoice = "auto"
    """The protocol's era: `auto` asks the server, `legacy` and `modern` insist."""

    def headers(self) -> dict[str, str]:
        """
        The headers, names in lower case.

        Raises:
            Failure: One is not `name: value`.
        """
        found = {}
        for each in self.header or ():
            name, colon, value = each.partition(":")
            if not colon or not name.strip():
                raise usage(f"a header is written 'name: value', not {each!r}")
            found[name.strip().lower()] = value.strip()
        return found

    def timeout_s(self) -> float:
        """
        The time limit in seconds.

        Raises:
            Failure: It is not a duration.
        """
        try:
            return parse_duration(self.timeout)
        except ValueError as error:
            raise usage(f"--timeout: {error}") from error


Connect = Annotated[Connection | None, Parameter(name="*")]
"""The options of a connection among those of a verb."""


@tools.command
def ls(*, connection: Connect = None, format: Format = "text") -> None:
    """
    List the tools.

    Args:
        connection: Where the gateway is and how to speak to it.
        format: `text` for people, `json` for the tools as the server describes them.
    """
    found = _converse(connection or Connection(), McpClient.list_tools)
    if format == "json":
        emit_json(found)
    else:
        table(("name", "what it does"), [(t["name"], _title(t)) for t in found], styles=("bold",))


@tools.command
def call(name: str, /, *arguments: str, connection: Connect = None, format: Format = "text") -> int:
    """
    Call a tool.

    Args:
        name: The tool.
        arguments: One JSON object, or key=value words; key:=value is JSON.
        connection: Where the gateway is and how to speak to it.
        format: `text` for the content, `json` for the whole result.
    """

    async def body(client: McpClient) -> Mapping[str, Json]:
        schema = EMPTY if not arguments or is_object(arguments) else await _schema(client, name)
        with _progress() as on_progress:
            return await client.call_tool(name, parse_arguments(arguments, schema), on_progress=on_progress)

    result = _converse(connection or Connection(), body)
    if format == "json":
        emit_json(result)
    else:
        emit(render_result(result))
    return Exit.FOUND if result.get("isError") else Exit.OK


@tools.command
def load(
    name: str,
    /,
    *arguments: str,
    count: int = 100,
    at_once: int = 8,
    pace: str | None = None,
    allow_remote: bool = False,
    connection: Connect = None,
    format: Format = "text",
) -> int:
    """
    Call a tool many times, and see how that goes.

    Args:
        name: The tool.
        arguments: One JSON object, or key=value words; key:=value is JSON.
        count: How many calls.
        at_once: How many of them may be under way at the same time.
        pace: How fast they begin, such as `100/1ms`: a hundred, a millisecond of pause, and so on. As fast as they end
            when absent.
        allow_remote: Load a server that is not on this machine.
        connection: Where the gateway is and how to speak to it; the time limit holds for all calls together.
        format: `text` for people, `json` for programs.
    """
    connection = connection or Connection()
    if not allow_remote and not is_loopback(connection.url):
        raise usage(f"{connection.url} is not on this machine; --allow-remote says that its owner knows")
    try:
        paced = None if pace is None else parse_pace(pace)
    except ValueError as error:
        raise usage(f"--pace: {error}") from error

    async def body(client: McpClient) -> LoadReport:
        schema = EMPTY if not arguments or is_object(arguments) else await _schema(client, name)
        parsed = parse_arguments(arguments, schema)
        return await run_load(lambda: _outcome(client, name, parsed), count, at_once, paced)

    try:
        report = _converse(connection, body)
    except ValueError as error:
        raise usage(str(error)) from error
    if format == "json":
        emit_json(_load_json(report))
    else:
        table(("outcome", "count"), [(outcome, str(n)) for outcome, n in report.outcomes.most_common()])
        shown = " ".join(f"{key[:-3]} {value:.1f} ms" for key, value in _times(report).items())
        emit(f"{len(report.took_s)} calls in {report.seconds:.3f} s, {report.per_second:.0f} a second; {shown}\n")
    return Exit.OK if set(report.outcomes) <= {OK} else Exit.FOUND


async def _outcome(client: McpClient, name: str, arguments: Mapping[str, Json]) -> str:
    try:
        result = await client.call_tool(name, arguments)
    except McpError as error:
        return f"error {error.code}"
    return "tool error" if result.get("isError") else OK


def _times(report: LoadReport) -> dict[str, float]:
    shares = {"p50_ms": 0.5, "p90_ms": 0.9, "p99_ms": 0.99, "max_ms": 1.0}
    return {key: report.percentile(share) * 1000 for key, share in shares.items()}


def _load_json(report: LoadReport) -> dict[str, Json]:
    figures = {"calls": len(report.took_s), "seconds": report.seconds, "per_second": report.per_second}
    return {**figures, **_times(report), "outcomes": dict(report.outcomes)}


def _title(tool: Json) -> str:
    return first_sentence(tool.get("description") or tool.get("title") or "")


async def _schema(client: McpClient, name: str) -> Mapping[str, Json]:
    """The declared arguments of a tool; a server may well call tools that it does not list."""
    for tool in await client.list_tools():
        if tool["name"] == name:
            schema: Mapping[str, Json] = tool.get("inputSchema") or EMPTY
            return schema
    return EMPTY


def _converse(connection: Connection, body: Callable[[McpClient], Awaitable[T]]) -> T:
    """Connect, do something, and turn what can go wrong into a message."""
    headers, timeout_s = connection.headers(), connection.timeout_s()

    async def main() -> list[T]:
        from ..client.http import open_http_client

        with unwrap_single(), trio.move_on_after(timeout_s):
            async with open_http_client(connection.url, headers=headers, era=connection.era) as client:
                return [await body(client)]
        return []

    try:
        answers = trio.run(main)
    except ConnectFailed as error:
        raise Failure(f"{error}\nIs a gateway running? Start one with: sluiceway run") from error
    except McpError as error:
        raise Failure(f"{printable(error.message)} ({error.code})") from error
    except (GatewayError, HttpStatus) as error:
        raise Failure(printable(str(error))) from error
    if not answers:
        raise Failure(f"no answer from {connection.url} within {connection.timeout}; give it more with --timeout")
    return answers[0]


def _progress() -> AbstractContextManager[Progress]:
    """Shows progress on stderr: a bar on a terminal, a line for each report elsewhere."""
    return CallBar() if sys.stderr.isatty() else nullcontext(_lines)


async def _lines(done: float, total: float | None, message: str) -> None:  # a Progress
    of = "" if total is None else f"/{total:g}"
    say(printable(f"{done:g}{of} {message}".rstrip()))
