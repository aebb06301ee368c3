"""
The workers of one gateway: started, replaced when they die, given another configuration, renewed one by one, drained.

What is decided for all is decided once: a configuration is served by every worker or by none.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import count
from typing import Any, Final, final

import structlog
import trio
from attrs import evolve

from ...model.document import Document
from ...protocol.errors import ComponentError, SluicewayError
from ..alerting import Alerting
from ..nursery import unwrap_single
from .board import Board
from .figures import figures_of
from .member import DEATH_S, Member, Phase, WorkerGone, close_descriptor
from .messages import (
    Announce,
    Begin,
    Drain,
    Hand,
    Order,
    Prepare,
    Prepared,
    Reply,
    Snapshot,
    Stop,
    Switched,
    Take,
    Verdict,
)
from .plan import Plan
from .pulse import await_hang
from .restarts import Restarts
from .sockets import Sockets

LAST_RESORT_S: Final = 10.0
"""Seconds beyond its own time-outs after which a worker that does not end is killed."""
HAND_S: Final = 1.0
"""Seconds for a worker to take a connection from another one; one that is stuck does not hold up the others."""
NAME: Final = "run.workers"
"""What errors, status and logs call the workers as a whole."""


@final
class Fleet:
    """
    Args:
        plan: What to begin with; its sockets are bound.
        size: Workers that serve at a time.
        nursery: Where they live.
        board: What they share; two places more than twice as many as they are.
        rng: Jitter of restarts.
    """

    def __init__(self, plan: Plan, size: int, nursery: trio.Nursery, board: Board, rng: random.Random) -> None:
        self.plan = plan
        self.size = size
        self.members: dict[int, Member] = {}
        """Those that live, by slot; one more than `size` while they are renewed."""
        self.generation = 1
        self.draining = False
        self.announced = False
        """Whether all were ready once."""
        self.gave_up = trio.Event()
        """Set when workers die again and again."""
        self.restarts = Restarts(rng)
        self.handed = 0
        """Connections that one worker had for another."""
        self.hangs = 0
        """Workers that were ended because they did not answer any more."""
        self.alerting = Alerting(lambda: tuple(figures_of(self)), plan.document.run.alerts)
        """Watches the workers as a whole; whoever runs the fleet serves it."""
        self._nursery = nursery
        self._board = board
        self._secret = secrets.token_bytes(32)
        self._marks = count(1)
        self._changing = trio.Lock()
        self._log: Any = structlog.get_logger()

    @property
    def ready(self) -> bool:
        """Whether new exchanges are welcome: all workers were ready once, and there is one now."""
        return self.announced and not self.draining and any(self.those(Phase.READY))

    def those(self, *phases: Phase) -> list[Member]:
        """The workers in these phases, by slot."""
        return [member for _, member in sorted(self.members.items()) if member.phase in phases]

    def connections(self, member: Member) -> int | None:
        """Of a worker that accepts clients; None of another."""
        return self._board.connections(member.slot)

    async def start(self) -> None:
        """
        Start all, and wait until they are ready.

        Raises:
            ComponentError: One of them could not start; its own words are in the log.
        """
        members = [self._launch(self.plan) for _ in range(self.size)]
        for member in members:
            await member.settled.wait()
            if member.phase is not Phase.READY:
                raise ComponentError(NAME, "open", f"worker {member.slot} could not start ({_ending(member)})")
        self.announced = True
        await self._for_all([*self.members.values()], lambda member: member.tell(Announce()))

    async def reload(self, load: Callable[[], tuple[Document, Snapshot]]) -> list[str]:
        """
        Serve another configuration in every worker, or in none.

        Args:
            load: Reads it.

        Returns:
            What it says that only a restart can bring about.

        Raises:
            SluicewayError: It has errors, or a worker cannot open it. The one that is served goes on unharmed.
        """
        async with self._changing:
            document, snapshot = load()
            members = self.those(Phase.STARTING, Phase.READY)
            for member in members:
                await member.settled.wait()
            members = [member for member in members if member.phase is Phase.READY]
            prepared, problems = await self._prepare(members, snapshot)
            serve = not problems
            if serve:  # from here on, who starts in the place of another begins with it
                self._adopt(evolve(self.plan, document=document, snapshot=snapshot))
                for member in members:
                    member.plan = self.plan
            notes: dict[str, None] = {}

            async def tell(member: Member) -> None:
                answer = await _asked(
                    member, lambda number: Verdict(number=number, prepared=prepared[member.slot], serve=serve)
                )
                if isinstance(answer, Switched):
                    notes.update(dict.fromkeys(answer.notes))

            await self._for_all([member for member in members if member.slot in prepared], tell)
            if problems:
                raise SluicewayError("; ".join(sorted(problems)))
            return list(notes)

    async def _prepare(self, members: Sequence[Member], snapshot: Snapshot) -> tuple[dict[int, int], list[str]]:
        """Have them open it; the numbers of the orders of those who answered, by slot, and what went wrong."""
        prepared: dict[int, int] = {}
        problems: list[str] = []

        async def prepare(member: Member) -> None:
            answer = await _asked(member, lambda number: Prepare(number=number, snapshot=snapshot))
            if not isinstance(answer, Prepared):
                problems.append(f"worker {member.slot} ended meanwhile")
                return
            prepared[member.slot] = answer.number
            if answer.problem:
                problems.append(f"worker {member.slot}: {answer.problem}")

        await self._for_all(members, prepare)
        return prepared, problems

    async def renew(self, load: Callable[[], tuple[Document, Snapshot]]) -> None:
        """
        Put a new worker in the place of each, one after the other: each is ready before the old one drains.

        So what only a restart can change (options of sources, their addresses, the program itself) changes without
        turning anybody away. Legacy sessions end with their worker, as in any restart.

        Raises:
            SluicewayError: The configuration has errors, an address cannot be bound, or a new worker cannot start. The
                workers that are left go on.
        """
        async with self._changing:
            document, snapshot = load()
            before, sockets = self.plan.sockets, Sockets()
            sockets.bind(document, before)
            plan = evolve(self.plan, document=document, snapshot=snapshot, sockets=sockets)
            try:
                while stale := [each for each in self.members.values() if each.wanted and each.plan is not plan]:
                    if sum(each.wanted for each in self.members.values()) <= self.size:
                        await self._start_one(plan)
                    if self.plan is not plan:
                        self._adopt(plan)
                    await self._end(stale[0])
                if self.plan is not plan:  # all are dead just now: who starts in their place begins with it
                    self._adopt(plan)
            finally:  # workers have descriptors of their own
                kept = self.plan.sockets
                (before if kept is sockets else sockets).close(but=kept)

    def _adopt(self, plan: Plan) -> None:
        self.plan = plan
        self.generation += 1
        self.alerting.configure(plan.document.run.alerts)

    async def _start_one(self, plan: Plan) -> None:
        if self.draining:
            raise SluicewayError("the gateway ends")
        fresh = self._launch(plan, wanted=False)
        await fresh.settled.wait()
        if fresh.phase is not Phase.READY:
            raise SluicewayError(f"a new worker could not start ({_ending(fresh)}); those that serve go on")
        fresh.wanted = True

    async def drain(self) -> None:
        """Let every worker finish what it has under way, and end. Those that do not are killed."""
        self.draining = True
        self.plan.sockets.close()
        await self._for_all([*self.members.values()], self._end)

    async def stop(self) -> None:
        """End every worker at once."""
        self.draining = True
        await self._for_all([*self.members.values()], lambda member: member.tell(Stop()))

    async def ask(self, member: Member, make: Callable[[int], Order]) -> Reply | None:
        """Ask one worker; None if it ended instead of answering."""
        return await _asked(member, make)

    # One worker.

    def _launch(self, plan: Plan, *, wanted: bool = True) -> Member:
        slot = next(slot for slot in count() if slot not in self.members)
        member = Member(slot, f"w{next(self._marks)}", self._pass_on, plan, wanted=wanted)
        self.members[slot] = member
        self._nursery.start_soon(self._live, member)
        return member

    async def _live(self, member: Member) -> None:
        """The task of one worker, until it is gone, and then of who comes in its place, if nobody told it to go."""
        sockets = member.plan.sockets.inherited()
        begin = Begin(
            file=member.plan.file, overlays=list(member.plan.overlays), snapshot=member.plan.snapshot,
            slot=member.slot, mark=member.mark, secret=self._secret, sockets=sockets, announced=self.announced,
            board=self._board.descriptor, slots=self._board.slots,
        )  # fmt: skip
        descriptors = [begin.board, *(each for group in sockets.values() for each in group)]
        with unwrap_single():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._end_if_it_hangs, member)
                try:
                    await member.run(begin, descriptors)
                finally:  # at once: whoever waits for it to be gone counts on its slot
                    self._board.vacate(member.slot)
                    del self.members[member.slot]
                nursery.cancel_scope.cancel()
        if member.wanted and self.announced and not self.draining:
            await self._replace(member)

    async def _end_if_it_hangs(self, member: Member) -> None:
        await await_hang(member)
        member.hung = True
        self.hangs += 1
        self._log.error(
            "worker hangs, and is ended",
            worker=member.slot,
            pid=member.pid,
            hang_timeout_s=float(member.plan.document.run.hang_timeout),
        )
        member.abort()
        await trio.sleep(DEATH_S)
        member.kill()

    async def _replace(self, dead: Member) -> None:
        pause = self.restarts.note_death(trio.current_time())
        if pause is None:
            self._log.error("workers die again and again; the gateway ends", deaths=self.restarts.total)
            self.gave_up.set()
            return
        self._log.error("worker died", worker=dead.slot, pid=dead.pid, how=_ending(dead), again_in_s=round(pause, 1))
        await trio.sleep(pause)
        async with self._changing:  # else it would begin with what the others are about to leave
            if not self.draining and sum(member.wanted for member in self.members.values()) < self.size:
                self._launch(self.plan)

    async def _end(self, member: Member) -> None:
        """Let a worker finish what it has under way, and wait until it is gone."""
        member.wanted = False
        member.become(Phase.DRAINING)
        self._board.vacate(member.slot)
        run = member.plan.document.run
        with trio.move_on_after(run.drain_timeout + 2 * run.stop_timeout + LAST_RESORT_S):
            await member.tell(Drain())
            await member.gone.wait()
        if not member.gone.is_set():
            self._log.error("worker did not end in time, and is killed", worker=member.slot, pid=member.pid)
            member.kill()
            await member.gone.wait()

    async def _pass_on(self, hand: Hand, descriptor: int) -> None:
        """Give a connection to the worker of a mark; it ends here if there is none."""
        target = next((member for member in self.members.values() if member.mark == hand.mark), None)
        try:
            if target is not None:
                with trio.move_on_after(HAND_S):
                    self.handed += await target.tell(Take(source=hand.source, client=hand.client), descriptor)
        finally:
            close_descriptor(descriptor)

    async def _for_all(self, members: Sequence[Member], act: Callable[[Member], Awaitable[object]]) -> None:
        async def one(member: Member) -> None:
            await act(member)

        async with trio.open_nursery() as nursery:
            for member in members:
                nursery.start_soon(one, member)


@asynccontextmanager
async def open_fleet(plan: Plan, size: int, rng: random.Random) -> AsyncIterator[Fleet]:
    """
    A fleet, of which nothing has started yet. Whoever lives when the block is left is killed.

    Args:
        plan: What to begin with. Its sockets, or those that came in their place, are closed.
        size: Workers that serve at a time.
        rng: Jitter of restarts.
    """
    board, fleet = Board.make(2 * size + 2), None
    try:
        with unwrap_single():
            async with trio.open_nursery() as nursery:
                fleet = Fleet(plan, size, nursery, board, rng)
                yield fleet
                nursery.cancel_scope.cancel()
    finally:
        (plan if fleet is None else fleet.plan).sockets.close()
        board.close()


async def _asked(member: Member, make: Callable[[int], Order]) -> Reply | None:
    try:
        return await member.ask(make)
    except WorkerGone:
        return None


def _ending(member: Member) -> str:
    if member.failure:
        return member.failure
    if member.hung:
        return "it hung"
    if member.code is None:
        return "it does not end"
    if member.code < 0:
        return f"ended by signal {-member.code}"
    return f"exit code {member.code}"
