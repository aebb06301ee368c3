"""Faults as an exchange meets them: what `faults` decides, done to a call of an upstream."""

from __future__ import annotations

import trio

from ..protocol.errors import (
    ConnectFailed,
    GatewayError,
    UpstreamClosed,
    UpstreamProtocolError,
    UpstreamUnavailable,
)
from ..protocol.messages import ErrorReply, Reply, encode_json
from .exchange import Exchange, Service
from .faults import NO_HARM, FaultPlan, Harm


async def suffer(plan: FaultPlan, exchange: Exchange, call: Service, stage: str = "") -> Reply:
    """
    Call an upstream, as well as the plan lets it.

    Args:
        plan: What goes wrong.
        exchange: Whose turn it is.
        call: The upstream.
        stage: Component id under which what happens is recorded as a decision; nothing is, if empty.

    Raises:
        UpstreamFault: The plan says so.
    """
    now = trio.current_time()
    if plan.is_down(now):
        if stage:
            exchange.decide(stage, "harm", "down")
        raise UpstreamUnavailable("a fault on purpose: the server is down")
    harm = plan.draw(now)
    if harm is NO_HARM:
        return await call(exchange)
    if stage:
        exchange.decide(stage, "harm", harm.words)
    if harm.delay_s:
        await trio.sleep(harm.delay_s)
    if harm.effect == "drop":
        await trio.sleep_forever()
    if harm.effect == "refuse":
        raise ConnectFailed("a fault on purpose: the connection is refused")
    if harm.effect in ("reset", "crash"):
        raise UpstreamClosed("a fault on purpose: the connection broke after the request was sent")
    return await _answered(harm, await call(exchange))


async def _answered(harm: Harm, reply: Reply) -> Reply:
    """What arrives of an answer."""
    if harm.effect == "hang":
        await trio.sleep_forever()
    if harm.drip is not None:
        await trio.sleep(_size(reply) / harm.drip)
    failure = _failure(harm)
    if failure is not None:
        raise failure
    return reply


def _failure(harm: Harm) -> GatewayError | None:
    if harm.effect == "truncate":
        return UpstreamClosed("a fault on purpose: the connection broke in the middle of the answer")
    if harm.effect == "malform":
        return UpstreamProtocolError("a fault on purpose: the answer is no MCP")
    return None


def _size(reply: Reply) -> int:
    """Bytes of an answer's body."""
    if isinstance(reply, ErrorReply):
        return len(encode_json({"code": reply.code, "message": reply.message, "data": reply.data}))
    return len(reply.raw)
