"""
The command lines of two bridges: supergateway (npm) and mcp-proxy (PyPI).

Both put one server behind another transport; mcp-proxy also several, each under a path of its own. Documentation: the
README of supercorp-ai/supergateway 4.0 and of sparfenyuk/mcp-proxy 0.13.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping
from typing import Final

from attrs import evolve

from ..protocol.messages import Json
from .clients import finished, has_servers, read_clients
from .listening import listen_at, with_event_stream, with_websocket
from .model import Imported, Listen, Notes, NotImportable, Upstream
from .options import MANY, Words, command_lines, take_apart
from .values import address, headers_of, portable, settings, words_of_command

Read = Callable[[str], str]
"""Reads a file that a command line names; raises `OSError` or `ValueError`."""

_SUPERGATEWAY: Final = {
    "--stdio": 1, "--sse": 1, "--streamableHttp": 1, "--outputTransport": 1, "--port": 1, "--baseUrl": 1,
    "--ssePath": 1, "--messagePath": 1, "--streamableHttpPath": 1, "--logLevel": 1, "--cors": MANY,
    "--healthEndpoint": 1, "--header": 1, "--oauth2Bearer": 1, "--stateful": 0, "--sessionTimeout": 1,
    "--protocolVersion": 1,
}  # fmt: skip
_MCP_PROXY: Final = {
    "--headers": 2, "--transport": 1, "--verify-ssl": MANY, "--no-verify-ssl": 0, "--client-id": 1,
    "--client-secret": 1, "--token-url": 1, "--env": 2, "--cwd": 1, "--pass-environment": 0,
    "--no-pass-environment": 0, "--debug": 0, "--no-debug": 0, "--log-level": 1, "--named-server": 2,
    "--named-server-config": 1, "--port": 1, "--host": 1, "--stateless": 0, "--no-stateless": 0,
    "--allow-origin": MANY, "--expose-header": MANY,
}  # fmt: skip
_ALIASES: Final = {
    "-H": "--headers", "-e": "--env", "--sse-port": "--port", "--sse-host": "--host", "--server-cwd": "--cwd",
}  # fmt: skip
_OF_WEBSOCKETS: Final = ("--outputTransport", "--messagePath")
"""What says how clients come in on WebSockets."""
_NATIVE: Final = frozenset({"--stateful", "--stateless", "--no-stateless", "--no-pass-environment", "--no-debug"})
"""Options that need no counterpart: the gateway serves clients of both kinds anyway."""
_REASONS: Final[Mapping[str, str]] = {
    "--baseUrl": "addresses in answers are not needed with Streamable HTTP",
    "--messagePath": "clients learn from the event stream where to post",
    "--logLevel": "write run: {log_level: ...}",
    "--log-level": "write run: {log_level: ...}",
    "--debug": "write run: {log_level: debug}",
    "--healthEndpoint": "health is at /healthz, readiness at /readyz",
    "--protocolVersion": "the revision is negotiated with each side",
    "--verify-ssl": "certificates are always verified; name yours under the sink's tls: {ca: FILE}",
    "--no-verify-ssl": "certificates are always verified; name yours under the sink's tls: {ca: FILE}",
    "--client-id": "write the sink's oauth: {token_url, client_id, client_secret}",
    "--client-secret": "write the sink's oauth: {token_url, client_id, client_secret}",
    "--token-url": "write the sink's oauth: {token_url, client_id, client_secret}",
    "--pass-environment": "the server inherits only PATH, HOME and a few like them; name what it needs under env",
    "--expose-header": "what pages may see is fixed",
}


def read_command_lines(text: str, program: str | None, read: Read, notes: Notes) -> Imported:
    """
    Read every command line of a bridge in a script.

    Args:
        text: The script, or one line.
        program: `supergateway` or `mcp-proxy`; either if None.
        read: For files that a line names.
        notes: Losses are noted here.

    Raises:
        NotImportable: There is no such line, or nothing of them can be used.
    """
    readers = {"supergateway": _supergateway, "mcp-proxy": _mcp_proxy}
    upstreams: list[Upstream] = []
    listens: list[Listen | None] = []
    for words in command_lines(text):
        names = [_program(word) for word in words]
        wanted = [name for name in names if name in readers and program in (None, name)]
        if not wanted:
            continue
        found, listen = readers[wanted[0]](words[names.index(wanted[0]) + 1 :], read, notes)
        upstreams += found
        if found:
            listens.append(listen)
    if not upstreams and not notes.lost:
        raise NotImportable(f"there is no command line of {program or 'supergateway or mcp-proxy'} in it")
    if any(each != listens[0] for each in listens):
        notes.lose("port", "the command lines listen at several places; all servers are behind the first one's")
    return finished(upstreams, listens[0] if listens else None, notes)


def _program(word: str) -> str:
    """The name of a program without folder, version or tag: `supercorp/supergateway:3.4` is supergateway."""
    return word.rpartition("/")[2].partition("@")[0].partition(":")[0].removesuffix(".cmd").removesuffix(".exe")


def _supergateway(words: list[str], read: Read, notes: Notes) -> tuple[list[Upstream], Listen | None]:
    given = take_apart(words, _SUPERGATEWAY, {})
    said = ("--outputTransport",) if (given.last("--outputTransport") or "").lower() != "ws" else _OF_WEBSOCKETS
    _leftovers(given, {*said, "--stdio", "--sse", "--streamableHttp", "--port", "--streamableHttpPath", "--ssePath",
                       "--cors", "--header", "--oauth2Bearer", "--sessionTimeout"}, notes)  # fmt: skip
    command, url = given.last("--stdio"), given.last("--streamableHttp") or given.last("--sse")
    output = (given.last("--outputTransport") or ("sse" if command is not None else "stdio")).lower()
    listen = None if output == "stdio" else _supergateway_listens(given, notes)
    if listen is not None and output == "sse":
        listen = with_event_stream(listen, given.last("--ssePath"), "supergateway", notes)
    if listen is not None and output == "ws":
        listen = with_websocket(listen, given.last("--messagePath"), "supergateway", notes)
    if command is not None:
        return _started(command, "server", notes), listen
    headers: dict[str, Json] = {}
    for (line,) in (each for each in given.all("--header") if each):
        name, _, value = line.partition(":")
        headers[name.strip()] = value.strip()
    token = given.last("--oauth2Bearer")
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    return _addressed(url or "", headers, notes, sse=given.last("--streamableHttp") is None), listen


def _supergateway_listens(given: Words, notes: Notes) -> Listen:
    listen = listen_at(None, given.last("--port") or "8000", given.last("--streamableHttpPath"), "supergateway", notes)
    notes.lose("--port", "supergateway listens on every address, this gateway on loopback only; see bind")
    cors = [value for values in given.all("--cors") for value in values or ["*"]]
    idle = given.last("--sessionTimeout") or ""
    if idle and not (idle.isascii() and idle.isdigit() and 0 < int(idle[:12]) <= 10**11):
        notes.lose("--sessionTimeout", "is not a number of milliseconds; it is left out")
        idle = ""
    return evolve(listen, allowed_origins=_origins(cors, notes), session_idle_ms=int(idle) if idle else None)


def _mcp_proxy(words: list[str], read: Read, notes: Notes) -> tuple[list[Upstream], Listen | None]:
    given = take_apart(words, _MCP_PROXY, _ALIASES)
    _leftovers(given, {"--headers", "--env", "--cwd", "--named-server", "--named-server-config", "--port", "--host",
                       "--allow-origin", "--transport"}, notes)  # fmt: skip
    if given.rest and given.rest[0].startswith(("http://", "https://")):
        pairs: dict[str, Json] = {each[0]: each[1] for each in given.all("--headers") if len(each) == 2}
        return _addressed(given.rest[0], pairs, notes, sse=given.last("--transport") != "streamablehttp"), None
    upstreams = _default_server(given, notes)
    for pair in given.all("--named-server"):
        if len(pair) == 2:
            upstreams += _started(pair[1], pair[0], notes)
    for (path,) in (each for each in given.all("--named-server-config") if each):
        upstreams += _named(path, read, notes)
    if given.all("--named-server") or given.all("--named-server-config"):
        notes.lose("--named-server", "each server had a path of its own (/servers/NAME/); they share one endpoint now")
    listen = listen_at(given.last("--host"), given.last("--port"), None, "mcp-proxy", notes)
    listen = with_event_stream(listen, None, "mcp-proxy", notes)
    origins = [value for values in given.all("--allow-origin") for value in values]
    return upstreams, evolve(listen, allowed_origins=_origins(origins, notes))


def _default_server(given: Words, notes: Notes) -> list[Upstream]:
    if not given.rest:
        return []
    id_, cwd = notes.id_for("server"), given.last("--cwd")
    pairs: dict[str, Json] = {each[0]: each[1] for each in given.all("--env") if len(each) == 2}
    env = settings(pairs, id_, f"{id_}.env", notes)
    command = words_of_command(given.rest, id_, notes)
    return [Upstream(id_, command, None if cwd is None else portable(cwd, f"{id_}.cwd", notes), env)]


def _named(path: str, read: Read, notes: Notes) -> list[Upstream]:
    try:
        value = json.loads(read(path))
    except (OSError, ValueError, RecursionError):
        notes.lose("--named-server-config", "its file cannot be read; import it by itself")
        return []
    if not has_servers(value):
        notes.lose("--named-server-config", "its file has no mcpServers")
        return []
    try:
        return list(read_clients(value, notes).upstreams)
    except NotImportable:
        return []


def _started(line: str, name: str, notes: Notes) -> list[Upstream]:
    """A server that is given as one text for a shell."""
    try:
        words = shlex.split(line)
    except ValueError:
        words = []
    if not words:
        notes.lose(name[:40], "its command line cannot be split into words; it is left out")
        return []
    if {"|", "&&", "||", ";", ">", "<"} & set(words):
        notes.lose(name[:40], 'its command needs a shell; write command: [sh, -c, "..."]')
    id_ = notes.id_for(name)
    return [Upstream(id_, words_of_command(words, id_, notes))]


def _addressed(url: str, headers: Mapping[str, Json], notes: Notes, *, sse: bool) -> list[Upstream]:
    id_ = notes.id_for("server")
    found = address(url, id_, notes)
    return [] if found is None else [Upstream(id_, url=found, headers=headers_of(headers, id_, notes), sse=sse)]


def _origins(values: list[str], notes: Notes) -> tuple[str, ...]:
    if any(value.startswith("/") for value in values):
        notes.lose("allowed_origins", "patterns are not understood; name the origins")
    return tuple(portable(value, "allowed_origins", notes) for value in values if not value.startswith("/"))


def _leftovers(given: Words, used: set[str], notes: Notes) -> None:
    for name in sorted(given.options.keys() - used - _NATIVE):
        notes.lose(name, _REASONS[name])
    for name in given.unknown:
        notes.lose(name[:40], "is not known; look at what it does and at sluiceway explain")
