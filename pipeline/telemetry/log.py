"""
Structured logs on stderr: one JSON object a line for machines, or text for people. Never on stdout, which belongs to
data and, in a stdio gateway, to MCP.

A line costs some 10 us and is written synchronously, so that the last one before a crash is there; a disabled level
costs next to nothing.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Final, Literal, TextIO

import structlog

from ..protocol.messages import encode_json
from .redaction import Redaction

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["auto", "json", "text"]

_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
_KEPT: Final = ("event", "exception", "exc_info", "stack_info", "error")
"""Keys whose texts are not shortened: a traceback is worth nothing by halves."""
_redact: Final = Redaction()


def configure_logging(level: Level = "info", format: Format = "auto", stream: TextIO | None = None) -> None:  # noqa: A002  # the operator's word
    """
    Send every log line of the process to one stream, those of the standard library's loggers included.

    Args:
        level: Least severe lines to write.
        format: `json`, `text`, or `auto`: text on a terminal, else JSON.
        stream: Where to; stderr when not given.
    """
    stream = sys.stderr if stream is None else stream
    people = format == "text" or (format == "auto" and stream.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _mask,
    ]
    if people:
        last: list[Any] = [structlog.dev.ConsoleRenderer(colors=stream.isatty())]
    else:
        last = [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer(_serialize)]
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(file=stream),
        cache_logger_on_first_use=False,
    )
    _adopt_standard_library(shared, last, stream, _LEVELS[level])


def _adopt_standard_library(shared: list[Any], last: list[Any], stream: TextIO, level: int) -> None:
    """Libraries log through `logging`; their lines get the same form and the same stream."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)


def _mask(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Mask what is secret by its key, and bound what a line may hold."""
    kept = {key: event[key] for key in _KEPT if key in event}
    rest = _redact({key: value for key, value in event.items() if key not in kept})
    return {**rest, **kept}


def _serialize(event: MutableMapping[str, Any], **_: Any) -> str:
    try:
        return encode_json(event).decode()
    except TypeError:
        return encode_json({key: _plain(value) for key, value in event.items()}).decode()


def _plain(value: Any) -> Any:
    try:
        encode_json(value)
    except TypeError:
        return repr(value)
    return value
