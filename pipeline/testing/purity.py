"""Watch what a constructor does: Python reports I/O to audit hooks (PEP 578)."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

_IO: Final = (
    "open", "os.listdir", "os.scandir", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.system",
    "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.connect", "socket.bind", "socket.getaddrinfo",
    "socket.gethostbyname", "socket.__new__", "sqlite3.connect", "shutil.copyfile", "tempfile.mkstemp",
    "tempfile.mkdtemp", "_thread.start_new_thread",
)  # fmt: skip
"""Audit events that mean input, output, or something started."""

_watching: dict[int, list[str]] = {}
"""What was seen, by thread; only threads that are watched."""
_installed: list[bool] = []


def _hook(event: str, args: tuple[Any, ...]) -> None:  # pragma: no cover  # Python does not trace audit hooks
    if _watching and event in _IO:
        seen = _watching.get(threading.get_ident())
        if seen is not None:
            seen.append(f"{event}({', '.join(map(repr, args[:2]))})")


@contextmanager
def watch_io() -> Iterator[list[str]]:
    """
    Collect the I/O that this thread does inside the block, one line each.

    An audit hook cannot be removed; outside such blocks it does next to nothing.
    """
    if not _installed:
        sys.addaudithook(_hook)
        _installed.append(True)
    seen = _watching[threading.get_ident()] = []
    try:
        yield seen
    finally:
        del _watching[threading.get_ident()]
