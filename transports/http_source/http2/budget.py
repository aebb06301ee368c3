"""How much of something a peer may do at once, and how fast it gets more of it. Pure."""

from __future__ import annotations

from typing import final


@final
class Budget:
    """
    A bucket of tokens that fills itself.

    Args:
        burst: Tokens it holds at most, and to begin with.
        per_second: Tokens it gains by itself.
    """

    __slots__ = ("_at", "_burst", "_left", "_per_second")

    def __init__(self, burst: float, per_second: float) -> None:
        self._burst = burst
        self._per_second = per_second
        self._left = burst
        self._at: float | None = None

    def spend(self, now: float, tokens: float = 1.0) -> bool:
        """
        Take tokens, if there are as many.

        Args:
            now: Seconds on a clock that never goes back.
            tokens: How many.
        """
        if self._at is not None:
            self._left = min(self._burst, self._left + (now - self._at) * self._per_second)
        self._at = now
        if self._left < tokens:
            return False
        self._left -= tokens
        return True

    def earn(self, tokens: float) -> None:
        """Put tokens in; what does not fit is lost."""
        self._left = min(self._burst, self._left + tokens)
