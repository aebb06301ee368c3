"""
Principals through one stage at once: what one is answered must never reach another one.

The bug class behind it is the key without an identity: a cache, a single flight, a table of limits that takes two
people's equal requests for one. Nothing of the stage is known here; the same requests are sent again and again by
principals that differ in one thing each, in seeded interleavings, and every answer says for whom it was made.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final, final

import trio
from attrs import frozen
from msgspec.structs import replace

from ..model.component import Middleware
from ..model.exchange import Exchange
from ..model.session import ANONYMOUS, Caller, Client
from ..protocol.mcp import PROGRESS, Kind, meta_of
from ..protocol.messages import ErrorReply, Notification, Reply, Result
from ..runtime.nursery import unwrap_single
from .contract_exchanges import Traffic
from .contract_traffic import Message, Passage, Sender, travel
from .exchanges import legacy_client
from .musts import ContractViolation

EXCHANGES: Final = 240
"""Exchanges of one interleaving."""
SEEDS: Final = range(4)
PAUSES_S: Final = (0.0, 0.0, 0.0, 0.05, 1.0, 30.0)
"""Between two arrivals: most come at once, some when what was kept may have grown old."""


@final
@frozen
class Principal:
    """One sender, and the name that its answers carry."""

    name: str
    sender: Sender


def principals(client: Client) -> list[Principal]:
    """Senders of which each two differ in one thing that makes them different people, or gives them other rights."""
    callers = {
        "ana of acme": Caller("ana", "acme", how="bearer"),
        "ana of globex": Caller("ana", "globex", how="bearer"),
        "bob of acme": Caller("bob", "acme", how="bearer"),
        "ana of acme, who may write": Caller("ana", "acme", frozenset({"write"}), how="bearer"),
        "ana of acme, an admin": Caller("ana", "acme", how="bearer", roles=frozenset({"admin"})),
    }
    known = [Principal(name, Sender(client, caller)) for name, caller in callers.items()]
    sessions = [legacy_client(session_id=f"session of {name}") for name in ("eve", "dan")]
    nameless = [replace(each, headers=client.headers, transport=client.transport) for each in sessions]
    return known + [Principal(f"nobody {n}", Sender(each, ANONYMOUS)) for n, each in enumerate(nameless, 1)]


async def keeps_principals_apart(traffic: Traffic) -> None:
    """M-APART, over several interleavings of one stage each."""
    assert issubclass(traffic.subject.cls, Middleware)
    for seed in SEEDS:
        rng = random.Random(seed)  # noqa: S311  # an interleaving that can be had again
        component = traffic.subject.make()
        with unwrap_single():
            async with component.open(), trio.open_nursery() as nursery:
                people = principals(traffic.sender.client)
                for number in range(1, EXCHANGES + 1):
                    principal, sample = rng.choice(people), rng.choice(traffic.samples)
                    nursery.start_soon(_visit, component, principal, sample, number, rng.choice(PAUSES_S))
                    await trio.sleep(rng.choice(PAUSES_S))


async def _visit(component: Middleware, principal: Principal, sample: Message, number: int, takes_s: float) -> None:
    async def answer(exchange: Exchange) -> Reply:
        token = meta_of(exchange.request.params).get("progressToken")
        if token is not None:
            told = {"progressToken": token, "progress": 1, "message": principal.name}
            await exchange.relay(Notification(PROGRESS, told))
        await trio.sleep(takes_s)
        if number % 7 == 0:
            return ErrorReply(-32603, "the upstream failed", {"for": principal.name})
        value = {"for": principal.name, "content": [], "resultType": "complete"}
        return Result({**value, "ttlMs": 60_000, "cacheScope": "private"})

    passage = await travel(component, sample, answer, principal.sender, number)
    strangers = sorted(set(_named_in(passage)) - {principal.name})
    if strangers:
        method, params = sample
        raise ContractViolation("M-APART", f"{method} {params} of {principal.name} brought what was {strangers[0]}'s")


def _named_in(passage: Passage) -> Sequence[str]:
    names = [notification.params["message"] for notification in passage.interim if "message" in notification.params]
    match passage.reply if passage.exchange.kind is not Kind.NOTIFY else None:
        case Result(body=body) if isinstance(name := body.value.get("for"), str):
            names.append(name)
        case ErrorReply(data={"for": str(name)}):
            names.append(name)
    return names
