"""Many exchanges through one component: one after the other, at once, cancelled; for stages and sinks."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, final

import trio
from attrs import define
from trio.testing import wait_all_tasks_blocked

from ..model.component import Middleware
from ..model.exchange import Exchange
from ..protocol.messages import Reply
from ..runtime.nursery import unwrap_single
from .census import Census, take_census
from .contract_subject import Subject, cancelled_anywhere
from .contract_traffic import Act, Message, Passage, Sender, refused_properly, reply_after_relaying, travel
from .musts import ContractViolation

BATCH: Final = 64
"""Exchanges between two looks at the tables."""
LATER_S: Final = 3600.0
"""Virtual seconds after which what forgets has forgotten."""


@final
@define(eq=False)
class Traffic:
    """Sends the samples through fresh or open components of one subject; serves stages and sinks."""

    subject: Subject
    samples: Sequence[Message]
    sender: Sender

    async def passages(self, act: Act) -> list[Passage]:
        """Every sample once through one fresh component, one after the other."""
        component = self.subject.make()
        async with component.open():
            return [await self.send(component, sample, act, n) for n, sample in enumerate(self.samples, 1)]

    async def send(self, component: Any, sample: Message, act: Act, number: int = 1) -> Passage:
        """One sample through an open component."""
        return await travel(component, sample, act, self.sender, number)

    async def is_seeded(self) -> None:
        """M-SEEDED: two runs are one, and nobody drew from the random numbers of the process."""
        state = random.getstate()
        first = [passage.signature() for passage in await self.passages(reply_after_relaying)]
        second = [passage.signature() for passage in await self.passages(reply_after_relaying)]
        for one, other in zip(first, second, strict=True):
            if one != other:
                raise ContractViolation("M-SEEDED", f"once {one}, then {other}")
        if random.getstate() != state:
            raise ContractViolation("M-SEEDED", "it drew from the module `random`; use `context.random`")

    async def keeps_replies_apart(self) -> None:
        """M-OWN-REPLY: several exchanges at once, the first one answered last."""
        component = self.subject.make()
        alone = await self.passages(reply_after_relaying)
        together: dict[int, Passage] = {}

        async def send(sample: Message, delay_s: float, number: int) -> None:
            async def act(exchange: Exchange) -> Reply:
                await trio.sleep(delay_s)
                return await reply_after_relaying(exchange)

            together[number] = await self.send(component, sample, act, number)

        with unwrap_single():
            async with component.open(), trio.open_nursery() as nursery:
                for number, sample in enumerate(self.samples, 1):
                    nursery.start_soon(send, sample, 0.1 * (len(self.samples) - number), number)
        for number, expected in enumerate(alone, 1):
            passage, method = together[number], expected.exchange.method
            refused_properly(passage, f"{method}, with others at the same time")
            if passage.reply is not None and expected.reply is not None and passage.reply != expected.reply:
                raise ContractViolation("M-OWN-REPLY", f"{method} got {passage.reply!r}, not {expected.reply!r}")

    async def comes_to_rest(self) -> None:
        """M-AT-REST and M-BOUNDED: what two batches of the same exchange leave."""
        component = self.subject.make()
        async with component.open():
            opened = take_census(component)
            await self._batch(component)
            first = take_census(component)
            await self._batch(component)
            second = take_census(component)
        taken = second.taken_since(opened)
        if taken:
            raise ContractViolation("M-AT-REST", "; ".join(taken))
        grown = second.grown_since(first)
        if grown:
            hint = f"if it has a bound, give the checker a config in which it is below {BATCH}"
            raise ContractViolation("M-BOUNDED", f"{'; '.join(grown)}, after {BATCH} more exchanges ({hint})")

    async def _batch(self, component: Any) -> None:
        for number in range(BATCH):
            await self.send(component, self.samples[number % len(self.samples)], reply_after_relaying, number)
        await self._rest(component)

    async def _rest(self, component: Any) -> Census:
        """Let time pass, let one exchange notice, and count."""
        if self.subject.virtual_time:
            await trio.sleep(LATER_S)
        await self.send(component, self.samples[0], reply_after_relaying)
        return take_census(component)

    async def survives_cancelling(self) -> None:
        """M-CANCEL: alone, and while another exchange is inside and may hold what this one waits for."""
        component = self.subject.make()
        async with component.open():
            await self._batch(component)
            baseline = take_census(component)
            await cancelled_anywhere(lambda: self._trial(component, baseline, held=False))
            if issubclass(self.subject.cls, Middleware):
                await cancelled_anywhere(lambda: self._trial(component, baseline, held=True))

    async def _send_cancelled(self, component: Any) -> None:
        passage = await self.send(component, self.samples[0], reply_after_relaying)
        refused_properly(passage, f"{passage.exchange.method}, cancelled")

    @asynccontextmanager
    async def _trial(
        self, component: Any, baseline: Census, *, held: bool
    ) -> AsyncIterator[Callable[[], Awaitable[None]]]:
        with unwrap_single():
            async with trio.open_nursery() as nursery:
                if held:
                    nursery.start_soon(self.send, component, self.samples[0], _hold, 2)
                    await wait_all_tasks_blocked()
                yield lambda: self._send_cancelled(component)
        after = await self._rest(component)
        left = [*after.taken_since(baseline), *after.grown_since(baseline)]
        if left:
            raise AssertionError("; ".join(left))


async def _hold(exchange: Exchange) -> Reply:
    await trio.sleep(1)
    return await reply_after_relaying(exchange)
