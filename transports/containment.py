"""Exceptions of one connection end there: counted, and logged once per place, so that nobody can flood the log."""

from __future__ import annotations

from collections.abc import Iterator
from traceback import walk_tb
from typing import Any, Final, final

import trio

_MAX_SITES: Final = 100
QUIET: Final = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)
"""Clients leave; that is no event."""


@final
class Containment:
    """
    What is kept of the exceptions of a listener's connections.

    Args:
        log: Structured logger.
    """

    def __init__(self, log: Any) -> None:
        self._log = log
        self._sites: set[tuple[str, int, type]] = set()
        self.count = 0
        """Exceptions that were contained."""

    def take(self, error: Exception) -> None:
        """Count an exception, or what is in a group, and log it if none came from its place before."""
        for leaf in _leaves(error):
            if isinstance(leaf, QUIET):
                continue
            self.count += 1
            site = _site_of(leaf)
            if site not in self._sites and len(self._sites) < _MAX_SITES:
                self._sites.add(site)
                self._log.error("a connection failed; logged once per place", exc_info=leaf)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error


def _site_of(error: BaseException) -> tuple[str, int, type]:
    frames = [(frame.f_code.co_filename, line) for frame, line in walk_tb(error.__traceback__)]
    file, line = frames[-1] if frames else ("", 0)
    return file, line, type(error)
