"""The contract of sinks, where exchanges end, and of sources, where they begin."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal, final

import trio
from trio.testing import wait_all_tasks_blocked

from ..model.component import Source
from ..model.kept_scope import KeptScope
from ..model.session import Asker, Client
from ..protocol.messages import Notification, Reply, Request, Result
from ..runtime.nursery import unwrap_single
from .contract_exchanges import LATER_S, Traffic
from .contract_subject import Subject, cancelled_anywhere
from .contract_traffic import refused_properly, reply_after_relaying
from .exchanges import memory_exchange
from .musts import ContractViolation

Drive = Callable[[Any], Awaitable[object]]
"""Plays a client of the source it is given, which is open and serving, until it has had its answers."""

_SERVE_S = 0.05


async def check_answering(traffic: Traffic) -> None:
    """M-REFUSE, M-REPLY, M-NO-MUTATE and M-RELAY-LATE."""
    component = traffic.subject.make()
    async with component.open():
        passages = [await traffic.send(component, sample, reply_after_relaying) for sample in traffic.samples]
        counts = [len(passage.interim) for passage in passages]
        await trio.sleep(LATER_S if traffic.subject.virtual_time else 0)
        await wait_all_tasks_blocked()
    for passage, count in zip(passages, counts, strict=True):
        refused_properly(passage, passage.exchange.method)
        if len(passage.interim) > count:
            late = passage.interim[count:]
            raise ContractViolation("M-RELAY-LATE", f"{passage.exchange.method}: {late} came after the end")


def check_end(traffic: Traffic) -> None:
    """Everything that binds sinks beyond what binds every component."""
    traffic.subject.run(check_answering, traffic)
    if traffic.subject.virtual_time:
        traffic.subject.run(traffic.is_seeded)
    for group in (traffic.keeps_replies_apart, traffic.comes_to_rest, traffic.survives_cancelling):
        traffic.subject.run(group)


@final
class _Ticket:
    """A ticket that counts."""

    def __init__(self, message: Request | Notification, client: Client) -> None:
        self.exchange = memory_exchange(message.method, message.params, client=client)
        self.runs = 0

    async def run(self, _kept: KeptScope | None = None) -> Reply | None:
        self.runs += 1
        await trio.lowlevel.checkpoint()
        return Result({"content": []})

    def cancel(self, reason: Literal["client", "shutdown"] = "client") -> None:
        """Too late for what is answered at once."""


@final
class _Pipeline:
    """What a source under examination feeds."""

    def __init__(self) -> None:
        self.tickets: list[_Ticket] = []

    def __call__(
        self,
        message: Request | Notification,
        *,
        client: Client,
        emit: Callable[[Notification], Awaitable[None]],
        ask: Asker | None = None,
    ) -> _Ticket:
        ticket = _Ticket(message, client)
        self.tickets.append(ticket)
        return ticket


async def check_serving(subject: Subject, drive: Drive | None) -> None:
    """M-SERVE, M-STOP and M-TICKET."""
    source: Source = subject.make()
    pipeline = _Pipeline()
    async with source.open(), trio.open_nursery() as nursery:
        nursery.start_soon(_serve, source, pipeline)
        await wait_all_tasks_blocked()
        if drive is not None:
            await drive(source)
        try:
            source.stop_accepting()
        except Exception as error:  # whatever it is, it must not be raised
            raise ContractViolation("M-STOP", f"{type(error).__name__}: {error}") from error
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    if drive is not None and not pipeline.tickets:
        raise ContractViolation("M-TICKET", "what `drive` sent reached no pipeline")
    for ticket in pipeline.tickets:
        if ticket.runs != 1:
            raise ContractViolation("M-TICKET", f"the ticket of {ticket.exchange.method} was run {ticket.runs} times")


async def _serve(source: Source, pipeline: _Pipeline) -> None:
    try:
        await source.serve(pipeline)
    except Exception as error:  # whatever it is, it must not be raised
        raise ContractViolation("M-SERVE", f"{type(error).__name__}: {error}") from error


async def check_cancelled_serving(subject: Subject) -> None:
    """M-CANCEL, for `serve`."""

    @asynccontextmanager
    async def trial() -> AsyncIterator[Callable[[], Awaitable[None]]]:
        source: Source = subject.make()

        async def serve_a_while() -> None:
            with trio.move_on_after(_SERVE_S), unwrap_single():
                await source.serve(_Pipeline())

        async with source.open():
            yield serve_a_while

    await cancelled_anywhere(trial)


def check_beginning(subject: Subject, drive: Drive | None) -> None:
    """Everything that binds sources beyond what binds every component."""
    subject.run(check_serving, subject, drive)
    subject.run(check_cancelled_serving, subject)
