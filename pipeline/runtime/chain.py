"""
Compile stages and a sink into one service.

Pure: no I/O, microseconds. Stages become plain closures that return the next stage's coroutine, which is the cheapest
form there is (0.1 us a stage). `when:` guards are compiled in, so a stage never sees what it was not meant for. Only
stages that override `relay` are linked on the return path.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import final

from attrs import frozen

from ..model.component import Middleware
from ..model.exchange import Exchange, Relay, Service, deliver
from ..protocol.errors import GatewayError
from ..protocol.messages import Notification, Reply

Guard = Callable[[Exchange], bool]
"""True for the exchanges a stage is meant for."""

Probe = Callable[[str, Exchange, Service], Awaitable[Reply]]
"""Stands around a stage: called with its id, the exchange, and the stage itself as a service."""


def around_stages(probe: Probe | None) -> Probe:
    """A probe that calls what `Exchange.around_stage` says, inside of another probe if there is one."""

    def inner(stage_id: str, exchange: Exchange, stage: Service) -> Awaitable[Reply]:
        around = exchange.around_stage
        return stage(exchange) if around is None else around(stage_id, exchange, stage)

    if probe is None:
        return inner

    def outer(stage_id: str, exchange: Exchange, stage: Service) -> Awaitable[Reply]:
        return probe(stage_id, exchange, lambda seen: inner(stage_id, seen, stage))

    return outer


def count_attempts(sink_id: str, sink: Service) -> Service:
    """A sink that leads to an upstream: counts its calls, and calls what `Exchange.around_sink` says around them."""

    def attempt(exchange: Exchange) -> Awaitable[Reply]:
        exchange.link.attempts += 1
        around = exchange.around_sink
        return sink(exchange) if around is None else around(sink_id, exchange, sink)

    return attempt


@final
@frozen
class Stage:
    """One place in a chain: a middleware, the exchanges it is for, and the name it goes by."""

    id: str
    middleware: Middleware
    guard: Guard | None = None


@final
@frozen
class Chain:
    """A compiled chain. Call `service` with an exchange whose relay is `relay`."""

    service: Service
    relay: Relay
    stages: tuple[Stage, ...]
    sink: Service
    """What the stages stand in front of."""

    def turn_away(self, exchange: Exchange, error: GatewayError | None) -> None:
        """Tell the stages that are meant for it of an exchange that did not get as far; see the method of stages."""
        for stage in self.stages:
            if stage.guard is None or stage.guard(exchange):
                stage.middleware.turned_away(exchange, error)


def compile_chain(
    stages: Sequence[Stage], sink: Service, *, relay: Relay = deliver, probe: Probe | None = None
) -> Chain:
    """
    Fold stages around a sink, the first one outermost.

    Args:
        stages: In the order of the configuration, which is the order of execution.
        sink: Any service: a sink, or another chain.
        relay: Where notifications go after the outermost stage.
        probe: Put around every stage; compiled in, so that without one there is nothing to skip.
    """
    service = sink
    for stage in reversed(stages):
        service = _bind(stage, service, probe)
    for stage in stages:
        if type(stage.middleware).relay is not Middleware.relay:
            relay = _bind_relay(stage, relay)
    return Chain(service, relay, tuple(stages), sink)


def _bind(stage: Stage, call_next: Service, probe: Probe | None) -> Service:
    handle, guard = stage.middleware.__call__, stage.guard
    stage.middleware.behind = call_next

    def enter(exchange: Exchange) -> Awaitable[Reply]:
        return handle(exchange, call_next)

    def enter_holding(exchange: Exchange) -> Awaitable[Reply]:
        exchange.hold()
        return handle(exchange, call_next)

    entered = inner = enter_holding if stage.middleware.reads_results else enter
    if probe is not None:

        def probed(exchange: Exchange) -> Awaitable[Reply]:
            return probe(stage.id, exchange, entered)

        inner = probed
    if guard is None:
        return inner

    def guarded(exchange: Exchange) -> Awaitable[Reply]:
        return inner(exchange) if guard(exchange) else call_next(exchange)

    return guarded


def _bind_relay(stage: Stage, forward: Relay) -> Relay:
    handle, guard = stage.middleware.relay, stage.guard

    def relay(exchange: Exchange, notification: Notification) -> Awaitable[None]:
        if guard is not None and not guard(exchange):
            return forward(exchange, notification)
        return handle(exchange, notification, forward)

    return relay


def nest(chain: Chain) -> Service:
    """
    A chain as the sink of another one: notifications pass its stages first, then those of the chain around it.
    """
    if not any(type(stage.middleware).relay is not Middleware.relay for stage in chain.stages):
        return chain.service

    def enter(exchange: Exchange) -> Awaitable[Reply]:
        return chain.service(exchange.with_relay(_through(chain.stages, exchange)))

    return enter


def _through(stages: Sequence[Stage], outer: Exchange) -> Relay:
    """The relay of an inner chain whose last step is the outer exchange's own."""

    async def hand_over(_exchange: Exchange, notification: Notification) -> None:
        await outer.relay(notification)

    relay: Relay = hand_over
    for stage in stages:
        if type(stage.middleware).relay is not Middleware.relay:
            relay = _bind_relay(stage, relay)
    return relay
