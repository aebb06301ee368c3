"""
Sink `balance`: a group of equal upstreams behind one name.

Each upstream is a sink of the configuration behind its own chain, and any of them can serve any request. A strategy
chooses one of those that may be used; if it cannot be reached, or refuses at a limit of the gateway's own, the request
has not been sent, and goes to the next, once to each. What was sent is never sent again: that is for a `retry` stage.

A legacy session stays with the upstream that answered its handshake. A modern request is free, unless it goes on with
what one upstream has begun (`affinity`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from importlib import import_module
from random import Random
from typing import ClassVar, Final, final

import trio
from attrs import frozen

from sluiceway.pipeline.model.changes import LIST_CHANGES
from sluiceway.pipeline.model.component import Context, Sink, State, sink
from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.figures import Figure
from sluiceway.pipeline.protocol.errors import ComponentError, GatewayError, InvalidParams, UpstreamUnavailable
from sluiceway.pipeline.protocol.failures import UNSENT, failure_of
from sluiceway.pipeline.protocol.mcp import Era, ErrorCode, Kind
from sluiceway.pipeline.protocol.messages import ErrorReply, Json, Notification, Reply, Request, Result
from sluiceway.pipeline.runtime.nursery import open_background_nursery

from ..seals import BadSeal, Seals, sealing_key
from ..task_ids import TaskIds
from .affinity import Affinity
from .config import HASH, BalanceConfig
from .dispatch import Dispatch
from .ejection import EjectionRules
from .group import Group, GroupRules, Ledger
from .keys import key_of
from .lists import LISTED, Lists
from .member import Member, Vitals
from .offers import KIND_OF, Offers
from .probes import Prober, keep_probing, probe_of
from .reach import parse_address
from .report import details_of, figures_of
from .ring import Ring
from .sessions import Sessions
from .strategies import PLAIN, ConsistentHash, Strategy

_NO_SUCH_TASK: Final = frozenset({ErrorCode.INVALID_PARAMS, ErrorCode.METHOD_NOT_FOUND, ErrorCode.RESOURCE_NOT_FOUND})
"""How upstreams say that a task is not theirs."""


@final
@frozen
class _Open:
    """What there is while the sink is open."""

    group: Group
    dispatch: Dispatch
    sessions: Sessions
    affinity: Affinity
    tasks: TaskIds
    lists: Lists | None
    """Where upstreams differ in what they offer."""


@final
@sink("balance")
class BalanceSink(Sink):
    """Spread requests over equal upstreams, around those that are ill."""

    Config = BalanceConfig
    interchangeable = True
    actions: ClassVar[Mapping[str, str]] = {
        "drain": "Send nothing new to an upstream; what is inside, and its sessions, go on: upstream=<id>.",
        "undrain": "Send to it again, slowly at first: upstream=<id>.",
    }

    def __init__(self, config: BalanceConfig, context: Context) -> None:
        super().__init__(config, context)
        self._config = config
        self._open: _Open | None = None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """
        Find the upstreams, and begin to probe them.

        Raises:
            LookupError: There is no sink of a name, or the secret of `seal_key` cannot be resolved.
            ComponentError: There is no strategy of the name.
        """
        config, context = self._config, self.context
        ledger = context.kept.setdefault("ledger", Ledger())
        group = Group(self._members(ledger), ledger, self._rules(), self._notice)
        sealing = sealing_key(config.seal_key, context)
        affinity, tasks = Affinity(Seals(sealing)), TaskIds(None if config.seal_key is None else sealing)
        key = None if config.strategy in PLAIN else key_of(config.hash.by)
        offers = Offers() if config.offers == "differ" else None
        strategy = self._make_strategy(group, ledger)
        dispatch = Dispatch(context.id, group, strategy, key, offers, tasks, config.health.interval)
        lists = None if offers is None else Lists(context.id, dispatch, offers, context.log)
        deaf = context.changes.listen(partial(_changed, offers)) if offers is not None else _nothing
        async with open_background_nursery() as nursery:
            sessions = Sessions(context.id, group, dispatch, nursery)
            self._open = _Open(group, dispatch, sessions, affinity, tasks, lists)
            probers = self._start_probes(group, nursery)
            try:
                yield
            finally:
                self._open = None
                deaf()
                sessions.leave()
                for prober in probers:
                    prober.close()

    async def __call__(self, exchange: Exchange) -> Reply:
        """
        Send an exchange to an upstream.

        Raises:
            SessionNotFound: The upstream of the session is gone.
            InvalidParams: A cursor or request state that is not ours.
            UpstreamUnavailable: No upstream can be reached.
            GatewayError: As the upstream's sink raises.
        """
        parts = self._open
        if parts is None:
            raise UpstreamUnavailable(f"{self.context.id} is closed, and takes no more requests")
        client, dispatch = exchange.client, parts.dispatch
        if client.session is not None:
            return await parts.sessions.serve(exchange, client.session)
        if exchange.kind is Kind.NOTIFY:
            return await self._notify(dispatch, exchange)
        if client.era is not Era.MODERN:
            return (await dispatch.anywhere(exchange))[1]
        if exchange.target is not None and exchange.method.startswith("tasks/"):
            return await self._task(parts, exchange, exchange.target)
        if exchange.kind is Kind.LISTEN:
            return await self._listen(parts, exchange)
        if parts.lists is not None:
            if exchange.method in LISTED:
                return await parts.lists.answer(exchange)
            if exchange.method in KIND_OF:
                await parts.lists.learn(exchange)
        bound = parts.affinity.open(exchange)
        if bound is None:
            member, reply = await dispatch.anywhere(exchange)
        else:
            found = parts.group.by_id.get(bound[0])
            if found is None:
                raise InvalidParams(f"{self.context.id}: {bound[0]}, which this goes on with, is gone; start again")
            member, reply = found, await dispatch.ask(found, exchange.with_request(bound[1]))
        return parts.affinity.close(exchange, member.id, reply)

    async def _notify(self, dispatch: Dispatch, exchange: Exchange) -> Reply:
        """A notification of a client without a session is nobody's in particular."""
        if exchange.method == "notifications/cancelled":  # whoever owns the exchange has cancelled it
            await trio.lowlevel.checkpoint()
            return Result()
        return await dispatch.choose(dispatch.candidates(exchange), exchange).service(exchange)

    async def _task(self, parts: _Open, exchange: Exchange, task_id: str) -> Reply:
        """
        To whom a task belongs, as its id says. If that one is gone, or the id says nothing because its upstream made it
        for a client that does not know of tasks, to one after the other until somebody knows it.

        Raises:
            InvalidParams: The id is sealed, and not for this client.
        """
        dispatch, owner = parts.dispatch, None
        try:
            whose, own = parts.tasks.open(exchange.caller, task_id)
        except BadSeal as error:
            if self._config.seal_key is not None:
                raise InvalidParams(f"taskId: {error}; there is no such task") from error
        else:
            owner = parts.group.by_id.get(whose)
            exchange = _saying(exchange, taskId=own)
        if owner is not None:
            return await dispatch.ask(owner, exchange)
        reply: Reply = Result()
        away: GatewayError | None = None
        for member in dispatch.candidates(exchange):
            try:
                reply = await dispatch.ask(member, exchange.fork(exchange.attempt))
            except GatewayError as error:
                if failure_of(error) not in UNSENT:
                    raise
                away = error.with_traceback(None)  # its frames hold this one: a cycle
            else:
                if not (isinstance(reply, ErrorReply) and reply.code in _NO_SUCH_TASK):
                    return reply
        if away is not None:  # it may be there
            raise away
        return reply

    async def _listen(self, parts: _Open, exchange: Exchange) -> Reply:
        """
        A stream; one about tasks to whom the first of them belongs. Those of others are left out: which the upstream
        listens to it acknowledges.
        """
        wanted: Json = exchange.request.params.get("notifications")
        if isinstance(wanted, dict) and "taskIds" in wanted:
            caller, ids = exchange.caller, wanted["taskIds"]
            for member in parts.group.members:
                if theirs := parts.tasks.theirs(caller, member.id, ids):
                    narrowed = _saying(exchange, notifications={**wanted, "taskIds": theirs})
                    return await parts.dispatch.ask(member, narrowed)
        return (await parts.dispatch.anywhere(exchange))[1]

    def _members(self, ledger: Ledger) -> list[Member]:
        return [
            Member(
                id=sink_id,
                index=index,
                service=self.context.sink(sink_id),
                weight=member.weight,
                vitals=ledger.vitals.setdefault(sink_id, Vitals()),
                slow_start_s=self._config.slow_start,
            )
            for index, (sink_id, member) in enumerate(self._config.members().items())
        ]

    def _rules(self) -> GroupRules:
        config, eject = self._config, self._config.eject
        return GroupRules(
            eject=EjectionRules(
                consecutive=eject.consecutive, window_s=eject.window, base_s=eject.base, max_s=eject.max
            ),
            max_ejected=eject.max_ejected,
            panic_threshold=config.panic_threshold,
            unhealthy_after=config.health.unhealthy_after,
            healthy_after=config.health.healthy_after,
        )

    def _make_strategy(self, group: Group, ledger: Ledger) -> Strategy:
        config, rng = self._config, self.context.random
        if config.strategy in PLAIN:
            return PLAIN[config.strategy](rng)
        if config.strategy == HASH:
            ring = Ring({member.id: member.weight for member in group.members}, config.hash.virtual_nodes)
            return ConsistentHash(rng, ring, config.hash.bounded_load, lambda: ledger.total)
        module, _, name = config.strategy.partition(":")
        try:
            made: Strategy = getattr(import_module(module), name)(rng)
        except (ImportError, AttributeError, TypeError) as error:
            raise ComponentError(
                self.context.id, "open", f"strategy: {config.strategy!r} cannot be had: {error}"
            ) from error
        return made

    def _start_probes(self, group: Group, nursery: trio.Nursery) -> list[Prober]:
        probers = []
        health = self._config.health  # each has chance of its own: theirs must not depend on who draws first
        for member, config in zip(group.members, self._config.members().values(), strict=True):
            prober = Prober(self.context, member.service, health.timeout)
            address = None if config.probe is None else parse_address(config.probe)
            probe = probe_of(health, prober, address)
            if probe is not None:
                probers.append(prober)
                own = Random(self.context.random.getrandbits(64))  # noqa: S311  # jitter
                nursery.start_soon(keep_probing, group, member, probe, health.interval, own.random)
        return probers

    def _notice(self, member: Member, state: str) -> None:
        """A member's state has changed: log it, and tell the supervisor."""
        log = self.context.log
        (log.warning if state in ("ejected", "down") else log.info)(
            "an upstream changed", upstream=member.id, now=state
        )
        if self._open is None:
            return
        group = self._open.group
        now = trio.current_time()
        ill = [each.id for each in group.members if group.is_ill(each, now)]
        if ill:
            self.context.report(
                State.DEGRADED, f"{len(ill)} of {len(group.members)} upstreams are out: {', '.join(ill)}"
            )
        else:
            self.context.report(State.READY, "")

    def details(self) -> Mapping[str, Json]:
        """Every upstream: its state, what is in flight, and how it does."""
        parts = self._open
        if parts is None:
            return {}
        upstreams = details_of(parts.group, parts.sessions, trio.current_time())
        return {"upstreams": upstreams, "panics": parts.group.panics, "failovers": parts.dispatch.failovers}

    def figures(self) -> Iterable[Figure]:
        """Load, failures and latency of each upstream."""
        if self._open is not None:
            yield from figures_of(self._open.group, trio.current_time())
            moved = self._open.dispatch.failovers
            yield Figure("balance_failovers_total", moved, "counter", "Requests that went on to another upstream.")

    async def act(self, action: str, arguments: Mapping[str, Json]) -> Json:
        """Drain an upstream, or take it back."""
        if action not in self.actions:
            return await super().act(action, arguments)
        await trio.lowlevel.checkpoint()
        if self._open is None:
            raise ValueError(f"{self.context.id} is not open")
        group = self._open.group
        member = group.by_id.get(str(arguments.get("upstream")))
        if member is None or len(arguments) != 1:
            raise ValueError(f"expected upstream=<id>, one of: {', '.join(group.by_id)}")
        group.drain(member, trio.current_time(), drained=action == "drain")
        return self.details()


def _saying(exchange: Exchange, **members: Json) -> Exchange:
    """A request with other params, as its upstream has to know it."""
    request = exchange.request
    assert isinstance(request, Request)
    return exchange.with_request(request.with_params({**request.params, **members}))


def _changed(offers: Offers, sink_id: str, notification: Notification) -> None:
    """An upstream says that a list of it has changed. Sinks go by `sinks.<id>` there."""
    offers.forget(sink_id.removeprefix("sinks."), LIST_CHANGES.get(notification.method, ()))


def _nothing() -> None:
    """There is nothing to stop listening to."""
