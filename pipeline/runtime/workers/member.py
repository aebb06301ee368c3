"""One worker, as its supervisor sees it: a process, the connection to it, and what it was asked."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from enum import StrEnum
from itertools import count
from subprocess import DEVNULL
from typing import Final, final

import trio

from ..nursery import farewell
from .channel import Channel
from .messages import Begin, Hand, Order, Ready, Reply, Report
from .plan import Plan

COMMAND: Final = (sys.executable, "-m", "sluiceway.pipeline.cli.worker")
"""What a worker is started with; the descriptor of its connection comes behind."""
DEATH_S: Final = 5.0
"""Seconds for a process that was killed to be gone."""


class Phase(StrEnum):
    """The life of a worker."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    GONE = "gone"


class WorkerGone(Exception):
    """It ended before it answered."""


Handed = Callable[[Hand, int], Awaitable[None]]
"""Passes a descriptor on to another worker. Closes it."""


@final
class Member:
    """
    A worker from its start to its end.

    Args:
        slot: Its place among those that live.
        mark: Its name among all that ever lived.
        on_hand: Given what it has for another worker.
        plan: What it serves, to begin with.
        wanted: Whether another one comes in its place if it ends.
    """

    def __init__(self, slot: int, mark: str, on_hand: Handed, plan: Plan, *, wanted: bool) -> None:
        self.slot = slot
        self.mark = mark
        self.plan = plan
        self.wanted = wanted
        self.phase = Phase.STARTING
        self.since = trio.current_time()
        """When it came to this phase, in Trio clock seconds."""
        self.begun = trio.Event()
        """It was told what to serve."""
        self.spoken = trio.Event()
        """It has said something."""
        self.settled = trio.Event()
        """It is ready, or gone."""
        self.gone = trio.Event()
        self.code: int | None = None
        """Its exit code; negative for the signal that ended it."""
        self.failure = ""
        """Why there is no process."""
        self.heard = 0
        """Messages that came from it."""
        self.hung = False
        """It stopped answering, and was ended for that."""
        self._on_hand = on_hand
        self._process: trio.Process | None = None
        self._channel: Channel[Report] | None = None
        self._numbers = count(1)
        self._waiting: dict[int, tuple[trio.Event, list[Reply]]] = {}

    @property
    def pid(self) -> int | None:
        """Of its process, once there is one."""
        return None if self._process is None else self._process.pid

    async def run(self, begin: Begin, descriptors: Sequence[int]) -> None:
        """
        Start the process, serve it until it is gone. It is killed if this is cancelled.

        Args:
            begin: Its first word.
            descriptors: What it inherits, by number.
        """
        try:
            ours, theirs = socket.socketpair()
            with theirs:
                self._channel = Channel(ours, Report)
                inherited = (theirs.fileno(), *descriptors)
                self._process = await trio.lowlevel.open_process(
                    [*COMMAND, str(theirs.fileno())], pass_fds=inherited, start_new_session=True, stdin=DEVNULL
                )
            await self.tell(begin)
            self.begun.set()
            await self._listen(self._channel)
            self.code = await self._process.wait()
        except OSError as error:  # this machine is out of processes, descriptors or memory
            self.failure = f"no process: {error}"
        finally:
            await self._end()  # noqa: ASYNC102  # bounded by a farewell

    async def _end(self) -> None:
        if self._channel is not None:
            self._channel.close()
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            with farewell(DEATH_S):
                self.code = await self._process.wait()
        self.become(Phase.GONE)
        self.settled.set()
        self.gone.set()
        for event, _ in self._waiting.values():
            event.set()

    async def _listen(self, channel: Channel[Report]) -> None:
        async with aclosing(channel.messages()) as messages:
            async for message, descriptor in messages:
                self.heard += 1
                self.spoken.set()
                if isinstance(message, Ready):
                    if self.phase is Phase.STARTING:
                        self.become(Phase.READY)
                        self.settled.set()
                elif isinstance(message, Hand):
                    if descriptor is not None:
                        await self._on_hand(message, descriptor)
                else:
                    event, answers = self._waiting.get(message.number) or (trio.Event(), [])
                    answers.append(message)
                    event.set()

    def become(self, phase: Phase) -> None:
        """It is in this phase now; from GONE nothing comes back."""
        if self.phase is not Phase.GONE and phase is not self.phase:
            self.phase, self.since = phase, trio.current_time()

    async def tell(self, order: Order, descriptor: int | None = None) -> bool:
        """Say something that has no answer; whether it was there to hear it."""
        return self._channel is not None and await self._channel.send(order, descriptor)

    async def ask(self, make: Callable[[int], Order]) -> Reply:
        """
        Ask something, and wait for the answer.

        Args:
            make: Makes the question of its number.

        Raises:
            WorkerGone: There is none any more.
        """
        number = next(self._numbers)
        answered, answers = self._waiting[number] = (trio.Event(), [])
        try:
            if self.gone.is_set() or not await self.tell(make(number)):
                raise WorkerGone(f"worker {self.slot} is gone")
            await answered.wait()
        finally:
            del self._waiting[number]
        if not answers:
            raise WorkerGone(f"worker {self.slot} ended")
        return answers[0]

    def kill(self) -> None:
        """End it now, whatever it does."""
        self._send(signal.SIGKILL)

    def abort(self) -> None:
        """Have it say where it is, on stderr, and end; one that is stopped, or stuck in the kernel, does neither."""
        self._send(signal.SIGABRT)

    def _send(self, number: signal.Signals) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)


def close_descriptor(descriptor: int) -> None:
    """Close what was handed to us."""
    with suppress(OSError):
        os.close(descriptor)
