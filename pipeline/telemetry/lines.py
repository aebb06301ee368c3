"""
From a log event to its line: JSON for machines, text for people. Pure.

What an event holds may come from outside, so nothing in a line can end it, start another or steer a terminal:
JSON escapes control characters, and so does the text form, where only our own tracebacks have several lines.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, MutableMapping
from typing import Any, Final

import msgspec

Event = MutableMapping[str, Any]
"""What structlog hands from processor to processor."""

_encode = msgspec.json.Encoder(enc_hook=repr).encode

_LEVELS: Final[Mapping[str, tuple[str, str]]] = {
    "debug": ("DEBUG", "\x1b[2m"),
    "info": ("INFO ", "\x1b[32m"),
    "warning": ("WARN ", "\x1b[33m"),
    "error": ("ERROR", "\x1b[31m"),
    "critical": ("FATAL", "\x1b[31;1m"),
}
_DIM: Final = "\x1b[2m"
_PLAIN: Final = "\x1b[0m"


def json_line(event: Any) -> str:
    """An event, or a value in one, as JSON; what JSON does not know is its `repr`. No line end."""
    try:
        return _encode(event).decode()
    except (TypeError, UnicodeEncodeError):  # keys that are no text, or half a surrogate pair from some decoder
        return json.dumps(event, default=repr, skipkeys=True, separators=(",", ":"))


def text_line(event: Mapping[str, Any], *, colour: bool = False) -> str:
    """
    `time LEVEL event key=value ...`, and a traceback on the lines below. No line end.

    Args:
        event: Has `time`, `level` and `event`.
        colour: Use the escape sequences of a terminal.
    """
    rest = dict(event)
    time, level, title = rest.pop("time"), rest.pop("level"), str(rest.pop("event"))
    exception = rest.pop("exception", None)
    name, start = _LEVELS.get(level, (level.upper(), ""))
    fields = "".join(f" {_shown(key)}={_shown(value)}" for key, value in rest.items())
    title = title if title.isprintable() else repr(title)
    if colour:
        line = f"{_DIM}{time}{_PLAIN} {start}{name}{_PLAIN} {title}{_DIM}{fields}{_PLAIN}"
    else:
        line = f"{time} {name} {title}{fields}"
    if exception is None:
        return line
    return "\n".join([line, *map(_harmless, str(exception).splitlines())])


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else json_line(value) if isinstance(value, dict | list) else str(value)
    return text if text.isprintable() and text and not set(text) & set(" =\"'") else repr(text)


def _harmless(line: str) -> str:
    return line if line.isprintable() else line.encode("unicode_escape").decode("ascii")
