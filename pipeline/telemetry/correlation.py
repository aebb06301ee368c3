"""
The id that every log line of an exchange shares, carried by a context variable.

Context variables serve logs and nothing else: what an exchange must know of itself is on the exchange, where it
survives `start_soon`, replay and tests (architecture 1.2).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

_CORRELATION_ID: Final[ContextVar[str]] = ContextVar("structlog_correlation_id")
"""structlog merges variables of this prefix into its lines; naming it so saves importing structlog here."""


@contextmanager
def correlated(correlation_id: str) -> Iterator[None]:
    """Have every log line written inside the block, and in tasks started there, carry this `correlation_id`."""
    token = _CORRELATION_ID.set(correlation_id)
    try:
        yield
    finally:
        _CORRELATION_ID.reset(token)
