"""
Structured logs on standard error.

`structlog` everywhere in the code; this module decides once per process what becomes of it. Standard output is never
touched: it may be the wire of a stdio client. Third-party libraries that use the standard library's `logging` come
out in the same form.

Writing is synchronous, as a line is short and stderr a pipe or file: a few microseconds. A reader of the pipe that
stands still would stop the process when the pipe is full (64 KiB on Linux); whoever runs the gateway under a supervisor
that reads slowly should log to a file or raise the level.
"""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache, partial
from typing import Any, Final, Literal, TextIO, final

import structlog

from .lines import Event, json_line, text_line
from .redaction import MASK, Redaction, clip

Level = Literal["debug", "info", "warning", "error"]
"""Severities, least first."""
Format = Literal["auto", "json", "text"]
"""`auto` is text on a terminal, else JSON."""

MAX_STRING_CHARS: Final = 16 * 1024
"""Characters of one value or traceback; the rest is left out."""

_LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_redaction: Final = Redaction()
_hides = lru_cache(maxsize=1024)(_redaction.hides)


def configure_logging(level: Level = "info", format: Format = "auto", stream: TextIO | None = None) -> None:  # noqa: A002  # the option's name
    """
    Decide how this process logs. Call it before components are made; a later call replaces an earlier one.

    Lines are `time`, `level`, `event`, then what was bound, passed, or put into structlog's context variables. Values
    are masked by the names of their keys (`redaction.SENSITIVE_KEYS`), at every depth. A line that cannot be written
    is lost: no exchange fails because nobody reads the log.

    Args:
        level: Less severe lines are not written; they cost a tenth of a microsecond on a bound logger. Other
            libraries' `logging` is held to `info` at least: at `debug` some of them print headers.
        format: Form of the lines.
        stream: Where they go; standard error by default.
    """
    target = sys.stderr if stream is None else stream
    terminal = target.isatty()
    if format == "json" or (format == "auto" and not terminal):
        render: Any = json_line
    else:
        render = partial(text_line, colour=terminal and "NO_COLOR" not in os.environ)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.format_exc_info,
            _stamp,
            _mask,
            lambda _logger, _method, event: render(event),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=lambda *_: _Lines(target),
        cache_logger_on_first_use=False,  # so that structlog.testing.capture_logs works
    )
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _FromStdlib)]:
        root.removeHandler(handler)
    root.addHandler(_FromStdlib())
    root.setLevel(max(_LEVELS[level], logging.INFO))
    # It tells of every change it sees; a log in the folder that `run --watch` looks at would change for ever.
    # The HTTP client tells every address that it visits, queries included.
    for chatty in ("watchfiles", "httpx2"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def _stamp(_logger: object, method: str, event: Event) -> Event:
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    head = {"time": now, "level": "error" if method == "exception" else method, "event": event.get("event", "")}
    return {**head, **event, **head}  # ours come first and win


def _mask(_logger: object, _method: str, event: Event) -> Event:
    for key, value in event.items():
        if _hides(key):
            event[key] = MASK
        elif isinstance(value, str):
            event[key] = clip(value, MAX_STRING_CHARS)
        elif isinstance(value, dict | list | tuple):
            event[key] = _redaction(list(value) if isinstance(value, tuple) else value)
    return event


@final
class _Lines:
    """The innermost logger: writes finished lines."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def _write(self, line: str) -> None:
        with suppress(OSError, ValueError):  # the pipe is broken, full and non-blocking, or the stream is closed
            self._stream.write(line + "\n")
            self._stream.flush()

    debug = info = warning = error = critical = exception = _write


@final
class _FromStdlib(logging.Handler):
    """
    Passes records of the standard library's `logging` on to structlog.

    hypercorn's loggers reach it when its `Config.errorlog` is a `logging.Logger` and not a file name.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Called by `logging`."""
        try:
            text = record.getMessage()
        except (TypeError, ValueError, KeyError):  # a library's format string and arguments do not match
            text = str(record.msg)
        severity = min(max(record.levelno // 10 * 10, logging.DEBUG), logging.CRITICAL)
        structlog.get_logger().log(severity, text, logger=record.name, exc_info=record.exc_info or None)
