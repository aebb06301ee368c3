"""Where the foreign gateway listened, as options of the `http` source."""

from __future__ import annotations

import re
from typing import Final

from attrs import evolve

from ..protocol.messages import Json
from .model import Listen, Notes
from .values import as_text

_PATH: Final = re.compile(r"/|(?:/[A-Za-z0-9._~-]+)+")
_HOST: Final = re.compile(r"[A-Za-z0-9.-]+|[0-9A-Fa-f:.]+")


def listen_at(host: Json, port: Json, path: Json, where: str, notes: Notes) -> Listen:
    """
    An address and path to listen on; what is absent or cannot be used takes our defaults.

    Args:
        host: A name or an address; brackets are added to IPv6.
        port: A number, or a text that is one.
        path: The path of the endpoint.
        where: What they belong to, for losses.
        notes: Losses are noted here.
    """
    name = (as_text(host) or "127.0.0.1").strip("[]")
    if not _HOST.fullmatch(name):
        notes.lose(f"{where}.host", "is not a host; 127.0.0.1 is used")
        name = "127.0.0.1"
    number = as_text(port) or "8080"
    if not (number.isascii() and number.isdigit() and len(number) < 6 and int(number) < 65536):
        notes.lose(f"{where}.port", "is not a port; 8080 is used")
        number = "8080"
    wanted = as_text(path) or "/mcp"
    chosen = wanted.rstrip("/") or "/"
    if chosen != wanted:
        notes.lose(f"{where}.path", "ends with a slash, which is left out; clients use the address without it")
    if not _PATH.fullmatch(chosen) or chosen in ("/healthz", "/readyz"):
        notes.lose(f"{where}.path", "is not a path that can be served; /mcp is used")
        chosen = "/mcp"
    return Listen(bind=f"[{name}]:{number}" if ":" in name else f"{name}:{number}", path=chosen)


def with_event_stream(listen: Listen, path: str | None, where: str, notes: Notes) -> Listen:
    """
    The same, with clients of HTTP+SSE served as well.

    Args:
        listen: Where clients come in.
        path: Where they open their event streams; everybody's `/sse` when None.
        where: What it belongs to, for losses.
        notes: Losses are noted here.
    """
    return evolve(listen, sse=_place(path, "/sse", ("/", listen.path), where, notes))


def with_websocket(listen: Listen, path: str | None, where: str, notes: Notes) -> Listen:
    """
    The same, with clients on WebSockets served as well.

    Args:
        listen: Where clients come in.
        path: Where they open them; `/message` when None, as supergateway has it.
        where: What it belongs to, for losses.
        notes: Losses are noted here.
    """
    return evolve(listen, websocket=_place(path, "/message", (), where, notes))


def _place(path: str | None, usual: str, taken: tuple[str, ...], where: str, notes: Notes) -> str:
    wanted = path or usual
    chosen = wanted.rstrip("/") or "/"
    if not _PATH.fullmatch(chosen) or chosen in ("/healthz", "/readyz", *taken):
        notes.lose(f"{where}.path", f"is not a path that can be served; {usual} is used")
        return usual
    return chosen
