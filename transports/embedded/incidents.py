"""Failures whose detail belongs in the log: the client gets an incident id that finds it."""

from __future__ import annotations

from sluiceway.pipeline.protocol.errors import InternalError

from .context import Context


def incident_of(context: Context, error: Exception) -> InternalError:
    """Log a failure whole, and make the error that shows nothing of it."""
    incident = context.runtime.new_id()[:12]
    context.runtime.log.error(
        "handler failed", incident=incident, method=context.method, target=context.exchange.target, exc_info=error
    )
    return InternalError(f"internal error, incident {incident}", data={"incident": incident})
