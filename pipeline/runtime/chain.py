"""
Compile stages and a sink into one service.

Pure: no I/O, microseconds. A stage becomes its own method with what is behind it filled in, which is the cheapest form
there is: 0.03 us a stage, where a closure around the method takes 0.06 and a `partial` 0.17. `when:` guards are
compiled in, so a stage never sees what it was not meant for. Only stages that override `relay` are linked on the return
path.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from inspect import CO_VARARGS, CO_VARKEYWORDS
from types import FunctionType, MethodType
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
    guard, handle = stage.guard, _in_front_of(call_next, stage.middleware)
    stage.middleware.behind = call_next

    def enter_holding(exchange: Exchange) -> Awaitable[Reply]:
        exchange.link.pieces = None  # `exchange.hold()`
        return handle(exchange)

    entered = inner = enter_holding if stage.middleware.reads_results else handle
    if probe is not None:

        def probed(exchange: Exchange) -> Awaitable[Reply]:
            return probe(stage.id, exchange, entered)

        inner = probed
    if guard is None:
        return inner

    def guarded(exchange: Exchange) -> Awaitable[Reply]:
        return inner(exchange) if guard(exchange) else call_next(exchange)

    return guarded


def _in_front_of(call_next: Service, middleware: Middleware) -> Service:
    """
    A stage as a service: the function of its method, made anew with `call_next` as the default of its last argument, so
    that nothing stands in between. What is no plain function of (self, exchange, call_next) is called by a closure.
    """
    method = middleware.__call__
    if isinstance(method, MethodType) and isinstance(method.__func__, FunctionType) and _takes_two(method.__func__):
        plain = method.__func__
        own = FunctionType(plain.__code__, plain.__globals__, plain.__name__, (call_next,), plain.__closure__)
        return MethodType(own, method.__self__)

    def enter(exchange: Exchange) -> Awaitable[Reply]:
        return method(exchange, call_next)

    return enter


def _takes_two(function: FunctionType) -> bool:
    """Whether it takes two arguments beside `self`, and nothing else."""
    code = function.__code__
    return code.co_argcount == 3 and not code.co_kwonlyargcount and not code.co_flags & (CO_VARARGS | CO_VARKEYWORDS)


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
