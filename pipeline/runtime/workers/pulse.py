"""
Whether a worker still answers. One whose event loop is stuck does not die of it: it serves nobody, keeps its clients,
and the sessions that live in it are lost.
"""

from __future__ import annotations

from typing import Final

import trio

from .member import Member, Phase, WorkerGone
from .messages import Ping

EVERY_S: Final = 10.0
"""Seconds between two questions; fewer if `run.hang_timeout` is less."""
FIRST: Final = 0
"""Number of the question to which any word is an answer; those of other questions begin with 1."""


async def await_hang(member: Member) -> None:
    """
    Return when a worker has said nothing for `run.hang_timeout`, though it was asked; never, while that is 0.

    Its first word may take its time: a machine with fewer cores than workers that start is slow, and whatever hangs
    while the configuration is read hangs in the supervisor first. One that drains has a time of its own.
    """
    await member.begun.wait()
    await member.tell(Ping(number=FIRST))
    await member.spoken.wait()
    while True:
        patience_s = member.plan.document.run.hang_timeout
        await trio.sleep(min(EVERY_S, patience_s or EVERY_S))
        if patience_s and member.phase is not Phase.DRAINING and not await _answers(member, patience_s):
            return


async def _answers(member: Member, patience_s: float) -> bool:
    """
    Whether it says anything within that time; what comes late for another reason is as good as an answer.

    The time has two halves because clocks go on while a machine, or a container, is put to sleep: whoever wakes finds
    the first half over, but nobody had a chance to answer in it.
    """
    heard = member.heard
    for _ in range(2):
        with trio.move_on_after(patience_s / 2):
            try:
                await member.ask(lambda number: Ping(number=number))
            except WorkerGone:  # its end of the connection is; it has as long to end itself
                await member.gone.wait()
        if member.heard > heard or member.gone.is_set():
            return True
    return False
