"""
What clients have: `mcpServers` (Claude, Cursor and most others), `servers` (VS Code), and fastmcp's two files.

The keys of a server, as the clients document them: `command`, `args`, `env`, `cwd`, or `url` (`serverUrl`, `httpUrl`),
`headers`, and `type` or `transport`. What else stands there is listed as lost.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Final

from ..protocol.messages import Json
from .listening import listen_at, with_event_stream
from .model import Imported, Listen, Notes, NotImportable, Upstream
from .values import address, as_text, headers_of, names_event_stream, portable, settings, sound, words_of_command

_MAPS: Final = ("mcpServers", "servers", "context_servers")
_URLS: Final = ("url", "serverUrl", "httpUrl")
_KNOWN: Final = frozenset({"command", "args", "env", "cwd", "headers", "type", "transport", "disabled", "enabled"})
_DESCRIPTIVE: Final = frozenset({"description", "name", "icon", "displayName", "version", "$schema"})
"""Keys that say nothing about how to reach a server."""
_REASONS: Final[Mapping[str, str]] = {
    "envFile": "a file of variables is not read; set them in the gateway's environment and name them under env",
    "timeout": "limits belong into the chain; write a timeout stage there",
    "auth": "sign-in by a browser is not done; give the sink `oauth` (client credentials) or an authorization header",
    "oauth": "sign-in by a browser is not done; give the sink `oauth` (client credentials) or an authorization header",
    "autoApprove": "approval is the client's matter; it stays there",
    "alwaysAllow": "approval is the client's matter; it stays there",
    "trust": "approval is the client's matter; it stays there",
}
_NO_KEY: Final = "the sink has nothing that does this"


def has_servers(value: Json) -> bool:
    """Whether JSON looks like a client's configuration."""
    return _servers(value) is not None


def read_clients(value: Json, notes: Notes) -> Imported:
    """
    Read a client's servers.

    Raises:
        NotImportable: There are none, or none that can be used.
    """
    servers = _servers(value)
    if servers is None:
        raise NotImportable("there is no mcpServers (or servers) with servers in it")
    found = [upstream for name, entry in servers.items() if (upstream := _server(name, entry, notes)) is not None]
    return finished(found, Listen(), notes)


def read_fastmcp(value: Mapping[str, Json], path: str, notes: Notes) -> Imported:
    """
    Read fastmcp.json: a server that fastmcp itself starts, with the environment that it describes.

    Raises:
        NotImportable: It names no source.
    """
    if not isinstance(value.get("source"), dict):
        raise NotImportable("fastmcp.json has no source; there is no server to start")
    deployment = _mapping(value, "deployment", "fastmcp", notes)
    env = settings(_mapping(deployment, "env", "deployment", notes), "fastmcp", "deployment.env", notes)
    cwd = as_text(deployment.get("cwd"))
    for key in sorted(deployment.keys() - {"transport", "host", "port", "path", "env", "cwd"}):
        notes.lose(f"deployment.{sound(key, 'deployment', notes)[:40]}", "fastmcp reads it itself when it starts")
    command = ("fastmcp", "run", portable(path, "fastmcp", notes), "--transport", "stdio")
    upstream = Upstream(
        notes.id_for("server"), command, None if cwd is None else portable(cwd, "deployment.cwd", notes), env
    )
    return finished([upstream], _listen(deployment, notes), notes)


def finished(upstreams: list[Upstream], listen: Listen | None, notes: Notes) -> Imported:
    """
    The end of every reader.

    Raises:
        NotImportable: There is no server.
    """
    if not upstreams:
        reasons = "".join(f"\n  {loss}" for loss in notes.lost)
        raise NotImportable(f"there is no server in it that can be used{reasons}")
    return Imported(tuple(upstreams), listen, tuple(notes.lost), dict(notes.variables))


def _servers(value: Json) -> Mapping[str, Json] | None:
    if not isinstance(value, dict):
        return None
    for holder in (value, value.get("mcp")):
        for key in _MAPS:
            found = holder.get(key) if isinstance(holder, dict) else None
            if isinstance(found, dict):
                return found
    bare = value and all(isinstance(each, dict) and each.keys() & {"command", *_URLS} for each in value.values())
    return value if bare else None


def _server(raw_name: str, entry: Json, notes: Notes) -> Upstream | None:
    name = sound(raw_name, "a server", notes)
    if not isinstance(entry, dict):
        notes.lose(name[:40], "is not a mapping; it is left out")
        return None
    if entry.get("disabled") is True or entry.get("enabled") is False:
        notes.lose(name[:40], "is switched off in the client; it is left out")
        return None
    # some clients nest the command: {"command": {"path": ..., "args": ..., "env": ...}}
    nested = entry.get("command")
    if isinstance(nested, dict):
        entry = {**entry, **nested, "command": nested.get("path")}
    url = next((text for key in _URLS if isinstance(text := entry.get(key), str) and text), None)
    kind = str(entry.get("type") or entry.get("transport") or "").lower()
    id_ = notes.id_for(name)
    upstream = _program(id_, entry, notes) if url is None else _remote(id_, url, kind, entry, notes)
    if upstream is not None:
        _leftovers(id_, entry, notes)
    return upstream


def _program(id_: str, entry: Mapping[str, Json], notes: Notes) -> Upstream | None:
    words = _words(id_, entry.get("command"), entry.get("args"), notes)
    if not words:
        notes.lose(id_, "has neither a command nor a url that can be used; it is left out")
        return None
    cwd = as_text(entry.get("cwd"))
    env = settings(_mapping(entry, "env", id_, notes), id_, f"{id_}.env", notes)
    return Upstream(id_, words_of_command(words, id_, notes), portable(cwd, f"{id_}.cwd", notes) if cwd else None, env)


def _words(id_: str, command: Json, arguments: Json, notes: Notes) -> list[str]:
    rest = arguments if isinstance(arguments, list) else []
    if arguments is not None and not isinstance(arguments, list):
        notes.lose(f"{id_}.args", "is not a list; it is left out")
    given = command if isinstance(command, list) else [command]
    words = [as_text(each) for each in (*given, *rest)]
    if not words[:1] or not words[0]:
        return []
    if None in words:
        notes.lose(f"{id_}.args", "has something that is not a text; it is left out")
    found = [word for word in words if word is not None]
    if isinstance(command, str) and not rest and " " in command.strip():
        try:
            found = shlex.split(command)
        except ValueError:
            notes.lose(id_, "its command has an open quotation mark; it is taken as the name of a program")
        else:
            notes.lose(id_, "its command was one text; it was split into words as a shell does")
    return found


def _remote(id_: str, url: str, kind: str, entry: Mapping[str, Json], notes: Notes) -> Upstream | None:
    if kind in ("ws", "websocket") and url.startswith("http"):
        url = f"ws{url.removeprefix('http')}"
    found = address(url, id_, notes)
    if found is None:
        return None
    old = kind == "sse" or (not kind and found.startswith("http") and names_event_stream(url))
    if old and kind != "sse":
        notes.lose(id_, "its address looks like HTTP+SSE, the transport of 2024-11-05, so its sink is sse; write http "
                   "if it is Streamable HTTP")  # fmt: skip
    headers = headers_of(_mapping(entry, "headers", id_, notes), id_, notes)
    return Upstream(id_, url=found, headers=headers, sse=old)


def _leftovers(id_: str, entry: Mapping[str, Json], notes: Notes) -> None:
    """Note what a server has beside what was read."""
    for key in sorted(entry.keys() - _KNOWN - _DESCRIPTIVE - set(_URLS)):
        if entry[key] not in (None, [], {}, ""):
            notes.lose(f"{id_}.{sound(key, id_, notes)[:40]}", _REASONS.get(key, _NO_KEY))


def _mapping(holder: Mapping[str, Json], key: str, where: str, notes: Notes) -> Mapping[str, Json]:
    value = holder.get(key)
    if value is not None and not isinstance(value, dict):
        notes.lose(f"{where}.{key}", "is not a mapping; it is left out")
    return value if isinstance(value, dict) else {}


def _listen(deployment: Mapping[str, Json], notes: Notes) -> Listen | None:
    kind = deployment.get("transport")
    if kind in (None, "stdio"):
        return None
    if kind == "sse":
        listen = listen_at(deployment.get("host"), deployment.get("port"), None, "deployment", notes)
        return with_event_stream(listen, as_text(deployment.get("path")), "deployment", notes)
    return listen_at(deployment.get("host"), deployment.get("port"), deployment.get("path"), "deployment", notes)
