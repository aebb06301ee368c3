"""
Sending one exchange: to whom, what is learned from what becomes of it, and to whom next.

A request that was not sent, because an upstream cannot be reached or a limit of the gateway's own refused it, goes on
to the next one, once to each. What was sent is never sent again here: that is for a `retry` stage, whose attempts go to
upstreams that no earlier attempt has failed at, while there are any.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import final
from weakref import WeakKeyDictionary

import trio
from msgspec.structs import replace

from sluiceway.pipeline.model.exchange import Exchange, Link
from sluiceway.pipeline.protocol.errors import GatewayError, Refused, UpstreamUnavailable
from sluiceway.pipeline.protocol.failures import UNSENT, blames_upstream, failure_of, name_of
from sluiceway.pipeline.protocol.mcp import Era, Kind
from sluiceway.pipeline.protocol.messages import Reply, Result
from sluiceway.pipeline.runtime.nursery import unwrap_single

from ..task_ids import TaskIds, tells_of_tasks
from .group import Group
from .keys import KeyOf
from .member import Member
from .offers import Offers
from .strategies import Strategy, fewest_listeners


@final
class Dispatch:
    """
    Args:
        sink_id: The sink's.
        group: Whom to send to.
        strategy: Chooses.
        key_of: What the strategy is given as a key; None if it wants none.
        offers: Who offers what; None if all offer the same.
        tasks: Makes the ids of tasks that modern clients know.
        retry_after_s: What clients are told to wait when nobody is well.
    """

    def __init__(
        self,
        sink_id: str,
        group: Group,
        strategy: Strategy,
        key_of: KeyOf | None,
        offers: Offers | None,
        tasks: TaskIds,
        retry_after_s: float,
    ) -> None:
        self._id = sink_id
        self._group = group
        self._strategy = strategy
        self._key_of = key_of
        self._offers = offers
        self._tasks = tasks
        self._retry_after_s = retry_after_s
        self._tried: WeakKeyDictionary[Link, set[Member]] = WeakKeyDictionary()
        self.failovers = 0
        """Requests that went on to another upstream."""

    async def anywhere(self, exchange: Exchange) -> tuple[Member, Reply]:
        """
        Send to whom the strategy chooses; to the next one while nothing was sent.

        Returns:
            Who has answered, and what.

        Raises:
            UpstreamUnavailable: Nobody may be used, or could be reached.
            GatewayError: As the upstream's sink raises.
        """
        left = self.candidates(exchange)
        if self._offers is not None:
            left = self._able(self._offers, exchange, left)
        tried: list[str] = []
        while True:
            member = self.choose(left, exchange)
            exchange.decide(self._id, "choose", member.id)
            try:
                reply = await self.ask(member, exchange)
            except GatewayError as error:
                if failure_of(error) not in UNSENT:
                    raise
                tried.append(member.id)
                left = tuple(each for each in left if each is not member)
                if not left:
                    raise self._exhausted(tried, error) from error
                self.failovers += 1
                exchange.decide(self._id, "failover", name_of(error))
            else:
                return member, reply
            exchange = exchange.fork(exchange.attempt)  # stages of the next one's chain have marks of their own

    def candidates(self, exchange: Exchange) -> tuple[Member, ...]:
        """
        Who may be used; for a later attempt of the same exchange those that no earlier one has failed at, if any.

        Raises:
            UpstreamUnavailable: Nobody.
        """
        usable = self._group.usable(trio.current_time())
        if not usable:
            raise UpstreamUnavailable(
                f"{self._id}: none of {', '.join(self._group.by_id)} is well",
                retry_after_s=self._retry_after_s,
            )
        if exchange.attempt > 1:
            tried = self._tried.get(exchange.link, ())
            return tuple(member for member in usable if member not in tried) or usable
        return usable

    def _able(self, offers: Offers, exchange: Exchange, usable: tuple[Member, ...]) -> tuple[Member, ...]:
        """
        Those that offer what an exchange is about, as far as that is known.

        Raises:
            UpstreamUnavailable: Only others do, which may not be used now.
        """
        able = offers.who_has(exchange, usable)
        if able:
            return able
        others = offers.who_has(exchange, [each for each in self._group.members if each not in usable])
        if others:
            raise UpstreamUnavailable(
                f"{self._id}: only {', '.join(each.id for each in others)} offers this, and is not well",
                retry_after_s=self._retry_after_s,
            )
        return offers.who_may_have(exchange, usable)

    def choose(self, upstreams: tuple[Member, ...], exchange: Exchange) -> Member:
        """One of some upstreams; at least one."""
        key = None if self._key_of is None else self._key_of(exchange)
        if exchange.kind is Kind.LISTEN and key is None:
            return fewest_listeners(upstreams, trio.current_time())
        return self._strategy.choose(upstreams, key, trio.current_time())

    async def ask(self, member: Member, exchange: Exchange) -> Reply:
        """Send to one upstream, and learn from what becomes of it."""
        if exchange.kind is Kind.LISTEN:
            return await self._listen(member, exchange)
        link = exchange.link
        began, asked, told = trio.current_time(), link.asked, False
        self._group.enter(member)
        try:
            reply = await self._send(member, exchange)
            told = True
            if type(reply) is not Result and blames_upstream(reply):
                self._fail(member, exchange, began)
            else:
                now = trio.current_time()
                # a call that has put questions took the time that people took
                self._group.succeeded(member, now - began if link.asked == asked else None, now)
            return reply
        except GatewayError as error:
            told = True
            if blames_upstream(error):
                self._fail(member, exchange, began)
            raise
        finally:
            self._group.leave(member)
            if not told and trio.current_time() >= link.deadline:
                self._fail(member, exchange, began)

    def _send(self, member: Member, exchange: Exchange) -> Awaitable[Reply]:
        """Tasks of a legacy session are its upstream's, as the session is; those of others have to be told apart."""
        if exchange.client.era is Era.MODERN and tells_of_tasks(exchange):
            return self._tell_of_tasks(member, exchange)
        return member.service(exchange)

    async def _tell_of_tasks(self, member: Member, exchange: Exchange) -> Reply:
        reply = await member.service(self._tasks.through(exchange, member.id))
        return self._tasks.reply(exchange, member.id, reply)

    def _fail(self, member: Member, exchange: Exchange, began: float) -> None:
        now = trio.current_time()
        self._tried.setdefault(exchange.link, set()).add(member)
        if self._group.failed(member, now - began, now):
            exchange.decide(self._id, "eject", member.id)

    async def _listen(self, member: Member, exchange: Exchange) -> Reply:
        """Serve a stream, until the gateway or this upstream drains."""
        draining = trio.Event()
        vitals = member.vitals

        async def follow() -> None:
            await exchange.draining.wait()
            draining.set()

        vitals.requests += 1
        vitals.listeners += 1
        member.streams.add(draining)
        outcome: Reply | GatewayError = Result()
        try:
            with unwrap_single():
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(follow)
                    try:
                        outcome = await self._send(member, replace(exchange, draining=draining))
                    except GatewayError as error:
                        outcome = error  # raised outside, lest it is mixed up with a cancellation
                    nursery.cancel_scope.cancel()
            if blames_upstream(outcome):
                self._fail(member, exchange, trio.current_time())
            if isinstance(outcome, GatewayError):
                raise outcome
            return outcome
        finally:
            vitals.listeners -= 1
            member.streams.discard(draining)

    def _exhausted(self, tried: list[str], error: GatewayError) -> GatewayError:
        """What is said when nobody could take a request: a limit of ours if the last one met that."""
        if isinstance(error, Refused) or len(tried) == 1:
            return error
        return UpstreamUnavailable(
            f"{self._id}: none of {', '.join(tried)} can be reached; the last one said: {error.message}",
            retry_after_s=error.retry_after_s,
        )
