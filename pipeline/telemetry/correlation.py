"""
The id that every log line of an exchange shares, carried by a context variable.

Context variables serve logs and nothing else: what an exchange must know of itself is on the exchange, where it
survives `start_soon`, replay and tests (architecture 1.2).
"""

from __future__ import annotations

from contextvars import ContextVar, Token
from typing import Final, final

_CORRELATION_ID: Final[ContextVar[str]] = ContextVar("structlog_correlation_id")
"""structlog merges variables of this prefix into its lines; naming it so saves importing structlog here."""


@final
class correlated:
    """Have every log line written inside the block, and in tasks started there, carry this `correlation_id`."""

    __slots__ = ("_correlation_id", "_token")

    def __init__(self, correlation_id: str) -> None:
        self._correlation_id = correlation_id

    def __enter__(self) -> None:
        self._token: Token[str] = _CORRELATION_ID.set(self._correlation_id)

    def __exit__(self, *_: object) -> None:
        _CORRELATION_ID.reset(self._token)
