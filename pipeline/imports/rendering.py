"""What was imported, as YAML with comments."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from .model import FromEnv, Imported, Listen, Upstream, Value

_PLAIN: Final = re.compile(r"[A-Za-z_./][A-Za-z0-9_./@+-]*")
_RESERVED: Final = frozenset(
    {"true", "false", "null", "yes", "no", "on", "off", "y", "n", "~", ".inf", ".nan", ".", "..."}
)
_NAMED_ESCAPES: Final = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
_WIDTH: Final = 110
"""Columns after which a list is written over several lines."""


def render(imported: Imported, origin: str) -> str:
    """
    The configuration.

    Args:
        imported: What was read.
        origin: What it was read from, for the first comment.
    """
    return "\n".join(_lines(imported, origin)) + "\n"


def _lines(imported: Imported, origin: str) -> Iterator[str]:
    yield f"# Imported from {_comment(origin)}. Look it over, then: sluiceway check, sluiceway doctor, sluiceway run."
    if imported.listen is not None:
        yield "# For a client that starts a program instead of using an address: sluiceway run --stdio THIS_FILE"
    if imported.variables:
        yield "#\n# Variables to set:"
        yield from (f"#   {name}: {_comment(purpose)}" for name, purpose in imported.variables.items())
    if imported.lost:
        yield "#\n# Not carried over, or changed:"
        yield from (f"#   {_comment(str(loss))}" for loss in imported.lost)
    ids = [upstream.id for upstream in imported.upstreams]
    target = ids[0] if len(ids) == 1 else _free_id("everything", ids)
    yield "version: 1\n\nsources:"
    yield from _source(imported.listen)
    yield f"\npipelines:\n  main:\n    chain: [request_id]\n    sink: {scalar(target)}\n\nsinks:"
    if len(ids) > 1:
        yield (
            "  # all of them behind one endpoint; what they offer is named after them, such as "
            + _comment(ids[0])
            + ".x"
        )
        yield f"  {scalar(target)}:\n    route:\n      to:{_listed(ids, 10)}"
    for upstream in imported.upstreams:
        yield from _sink(upstream)


def _source(listen: Listen | None) -> Iterator[str]:
    if listen is None:
        yield "  clients:\n    stdio: {}\n    pipeline: main"
        return
    yield f"  clients:\n    http:\n      bind: {scalar(listen.bind)}\n      path: {scalar(listen.path)}"
    if listen.allowed_origins:
        yield f"      allowed_origins:{_listed(listen.allowed_origins, 23)}"
    if listen.session_idle_ms is not None:
        yield f"      session_idle: {listen.session_idle_ms}ms"
    if listen.sse is not None:
        yield f"      sse: {{path: {scalar(listen.sse)}}}"
    if listen.websocket is not None:
        yield f"      websocket: {{path: {scalar(listen.websocket)}}}"
    yield "    pipeline: main"


def _sink(upstream: Upstream) -> Iterator[str]:
    yield f"  {scalar(upstream.id)}:"
    if upstream.command:
        yield f"    stdio:\n      command:{_listed(upstream.command, 15)}"
        if upstream.cwd is not None:
            yield f"      cwd: {scalar(upstream.cwd)}"
        yield from _values("env", upstream.env)
    else:
        yield f"    {upstream.kind}:\n      url: {scalar(upstream.url)}"
        yield from _values("headers", upstream.headers)


def _values(key: str, values: Mapping[str, Value]) -> Iterator[str]:
    if values:
        yield f"      {key}:"
    for name, value in values.items():
        shown = f"{{from_env: {scalar(value.name)}}}" if isinstance(value, FromEnv) else scalar(value)
        yield f"        {scalar(name)}: {shown}"


def _listed(items: tuple[str, ...] | list[str], column: int) -> str:
    shown = [scalar(item) for item in items]
    flow = f"[{', '.join(shown)}]"
    return f" {flow}" if len(flow) + column <= _WIDTH else "".join(f"\n        - {each}" for each in shown)


def _free_id(wanted: str, taken: list[str]) -> str:
    while wanted in taken:
        wanted += "-all"
    return wanted


def scalar(text: str) -> str:
    """A text as a YAML scalar: as it is where it can only be a text, else in double quotes (YAML 1.2.2, 7.3.1)."""
    if _PLAIN.fullmatch(text) and text.lower() not in _RESERVED:
        return text
    return '"' + "".join(_NAMED_ESCAPES.get(each) or (each if _shown(each) else _escape(each)) for each in text) + '"'


def _shown(character: str) -> bool:
    return character.isprintable() and character != "\ufeff"


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _comment(text: str) -> str:
    """A text that fits into a comment: one line of what can be seen."""
    return "".join(each if _shown(each) else "?" for each in text)
