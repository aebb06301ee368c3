"""
A cancel scope for one exchange after the other, as long as none of them is cancelled.

Opening and closing a scope is half of what it costs to run an exchange. A task that serves many in a row can leave it
open between them: a scope that was not cancelled does nothing. One that was is closed with its exchange, as ever, and
the next exchange opens another.
"""

from __future__ import annotations

import sys
from types import TracebackType
from typing import final

import trio


@final
class KeptScope:
    """
    Used as a context manager around each exchange, by one task, never inside of itself. Whoever made it calls `close`.

    What is open around one exchange must be open around all of them, and around `close`: neither a scope nor a nursery
    may begin or end in between. Trio notices if one does (`RuntimeError`: the stack of cancel scopes is corrupted).
    """

    __slots__ = ("_is_cancelled", "_scope")

    def __init__(self) -> None:
        self._scope: trio.CancelScope | None = None
        self._is_cancelled = False

    def cancel(self, *, reason: str | None = None) -> None:
        """Cancel what is inside now. Only while something is."""
        assert self._scope is not None
        self._is_cancelled = True
        self._scope.cancel(reason=reason)

    def __enter__(self) -> KeptScope:
        if self._scope is None:
            self._scope = trio.CancelScope()
            self._scope.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if not self._is_cancelled and (error is None or isinstance(error, Exception)):
            return False
        self._is_cancelled = False
        return self._close(error)

    def close(self) -> None:
        """Close the scope, if one is open; also on the way of an exception. Nothing may be inside."""
        self._close(sys.exception())

    def _close(self, error: BaseException | None) -> bool:
        scope, self._scope = self._scope, None
        if scope is None:
            return False
        if error is None:
            return bool(scope.__exit__(None, None, None))
        return bool(scope.__exit__(type(error), error, error.__traceback__))
