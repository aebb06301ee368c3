"""
The id that every log line of an exchange shares, carried by a context variable.

Context variables serve logs and nothing else: what an exchange must know of itself is on the exchange, where it
survives `start_soon`, replay and tests (architecture 1.2).
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

CORRELATION_ID: Final[ContextVar[str]] = ContextVar("structlog_correlation_id")
"""
The id for every log line written while it is set, and in tasks started then; whoever sets it resets it. structlog
merges variables of this prefix into its lines; naming it so saves importing structlog here.
"""
