"""The contract of stages: what they may do with an exchange, its reply and its notifications."""

from __future__ import annotations

import trio
from trio.testing import wait_all_tasks_blocked

from ..model.component import Middleware
from ..model.exchange import Exchange
from ..protocol.errors import ConnectFailed
from ..protocol.messages import ErrorReply, Reply
from .contract_apart import keeps_principals_apart
from .contract_exchanges import LATER_S, Traffic
from .contract_traffic import Passage, make_interim, refused_properly, reply_after_relaying
from .musts import ContractViolation


class _Bug(Exception):
    """What no stage may catch."""


async def _error(_exchange: Exchange) -> Reply:
    await trio.lowlevel.checkpoint()
    return ErrorReply(-32000, "the upstream said no", {"reason": "told to"})


async def _fault(_exchange: Exchange) -> Reply:
    await trio.lowlevel.checkpoint()
    raise ConnectFailed("the inner chain was told to fail")


async def check_passing(traffic: Traffic) -> None:
    """M-PASS, M-RELAY, M-REFUSE and M-CALL-ONCE, with an inner chain that works."""
    passages = await traffic.passages(reply_after_relaying)
    reached = False
    for passage in passages:
        method, inner = passage.exchange.method, passage.inner
        refused_properly(passage, method)
        _called_once(traffic, passage)
        if passage.error is not None or not inner.said:
            continue
        reached = True
        if passage.reply != inner.said[-1][0]:
            raise ContractViolation("M-PASS", f"{method}: {inner.said[-1][0]!r} became {passage.reply!r}")
        if passage.interim != make_interim() * len(inner.said):
            raise ContractViolation("M-RELAY", f"{method}: {make_interim()} became {passage.interim}")
    if not reached:
        refusals = {f"{p.exchange.method}: {p.error or 'answered without it'}" for p in passages}
        raise ContractViolation(
            "M-PASS",
            "no sample reached the inner chain; give the checker samples, or a client and caller, that the stage has "
            f"no reason to act on ({'; '.join(sorted(refusals))})",
        )


async def check_failing(traffic: Traffic) -> None:
    """M-REFUSE and M-CALL-ONCE with an inner chain that fails, and M-BUGS with one that is broken."""
    for act in (_error, _fault):
        for passage in await traffic.passages(act):
            refused_properly(passage, f"{passage.exchange.method}, with an inner chain that fails")
            _called_once(traffic, passage)
    bug = _Bug("a bug of the inner chain")

    async def broken(_exchange: Exchange) -> Reply:
        await trio.lowlevel.checkpoint()
        raise bug

    for passage in await traffic.passages(broken):
        if passage.inner.calls and passage.error is not bug:
            came = passage.error if passage.error is not None else passage.reply
            raise ContractViolation("M-BUGS", f"{passage.exchange.method}: {bug!r} became {came!r}")


def _called_once(traffic: Traffic, passage: Passage) -> None:
    inner, cls = passage.inner, traffic.subject.cls
    if inner.late:
        raise ContractViolation("M-CALL-LATE", f"{passage.exchange.method}: {inner.late} calls too late")
    calls = len(inner.calls)
    if calls > 1 and not (issubclass(cls, Middleware) and cls.replays):
        raise ContractViolation("M-CALL-ONCE", f"{passage.exchange.method}: awaited {calls} times")


async def check_lateness(traffic: Traffic) -> None:
    """M-CALL-LATE: neither by itself later, nor with the next exchange."""
    component = traffic.subject.make()
    async with component.open():
        passages = [await traffic.send(component, sample, reply_after_relaying) for sample in traffic.samples]
        await trio.sleep(LATER_S if traffic.subject.virtual_time else 0)
        passages += [await traffic.send(component, sample, reply_after_relaying) for sample in traffic.samples]
        await wait_all_tasks_blocked()
    for passage in passages:
        _called_once(traffic, passage)


def check_stage(traffic: Traffic) -> None:
    """Everything that binds middleware beyond what binds every component."""
    for check in (check_passing, check_failing, check_lateness):
        traffic.subject.run(check, traffic)
    for group in (traffic.is_seeded, traffic.keeps_replies_apart, traffic.comes_to_rest, traffic.survives_cancelling):
        traffic.subject.run(group)
    traffic.subject.run(keeps_principals_apart, traffic)
