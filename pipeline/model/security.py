"""
What a refusal looks like to whoever watches over the gateway: who was refused what, from where.

The one who refuses tells `Context.alarm`; which refusals matter, how much, and how often they are said is decided in
`telemetry.security`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, final

from attrs import frozen

if TYPE_CHECKING:
    from .exchange import Exchange


@final
@frozen(kw_only=True)
class Refusal:
    """One thing that was refused. Nothing in it is secret; texts from outside are cut where they are written."""

    reason: str
    """Reason of the error (`GatewayError.event`, or else `GatewayError.reason`), or a source's own word."""
    source: str = ""
    """Id of the source it came through."""
    address: str | None = None
    """Remote address without port, where there is one."""
    principal: str = ""
    """Subject of the caller; empty if nobody asked who it is."""
    tenant: str | None = None
    correlation_id: str = ""
    operation: str = ""
    """Method of the request; empty if it never became one."""
    resource: str | None = None
    """Target of the request."""


Alarm = Callable[[Refusal], None]
"""Takes notice of a refusal; never blocks, never raises."""


def ignore(_refusal: Refusal) -> None:
    """Nobody watches."""


def refusal_of(reason: str, exchange: Exchange) -> Refusal:
    """What was refused, where it had become an exchange."""
    caller, client = exchange.link.caller, exchange.client
    return Refusal(
        reason=reason,
        source=exchange.source,
        address=client.address,
        principal=caller.subject,
        tenant=caller.tenant,
        correlation_id=exchange.link.correlation_id,
        operation=exchange.method,
        resource=exchange.target,
    )
