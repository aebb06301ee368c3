"""
What upstreams are supposed to answer where the tape does not say: what they answered to the request that is nearest,
after a time that they took for one like it.

A bounded sample of a tape's answers is kept for each target (tool, prompt, resource) of each sink.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from typing import Final, final

import msgspec
import trio
from attrs import define, field, frozen

from ..model.exchange import Exchange
from ..protocol.errors import UpstreamUnavailable
from ..protocol.mcp import target_of
from ..protocol.messages import Json, Reply
from .assembly import RecordedCall, RecordedExchange
from .entries import FailureData, MessageData, ReplyData
from .matching import VOLATILE, Ignoring, distance
from .upstreams import played_reply
from .values import exception_of

MAX_ANSWERS: Final = 64
"""Answers that are kept of a target: each of those that were given with the same probability."""
MAX_TARGETS: Final = 2000
"""Targets that are told apart; answers of further ones are kept by method."""
MAX_BYTES: Final = 64 << 20
"""Bytes of all answers that are kept, roughly."""

Key = tuple[str, str, str | None]


@final
@frozen
class Answer:
    """What a sink said once."""

    params: dict[str, Json]
    took_s: float
    reply: ReplyData | None
    failure: FailureData | None
    size: int


@define(eq=False)
class _Shelf:
    """A sample of the answers for one target."""

    answers: list[Answer] = field(factory=list)
    seen: int = 0


@final
class Repertoire:
    """
    Args:
        seed: Of what is kept, and of what is drawn.
    """

    def __init__(self, seed: int = 0) -> None:
        self.supposed = 0
        """Calls that were answered with a supposition."""
        self.unanswered = 0
        """Calls that nothing recorded is like; they failed."""
        self._random = random.Random(seed)  # noqa: S311  # a sample, not a secret
        self._shelves: dict[Key, _Shelf] = {}
        self._bytes = 0
        self._ignoring = Ignoring(VOLATILE)

    def learn(self, exchanges: Iterable[RecordedExchange]) -> None:
        """Remember what sinks answered."""
        for exchange in exchanges:
            for call in exchange.calls.values():
                request = exchange.request_of(call)
                if request is not None and call.ended is not None and (call.ended.reply or call.ended.failure):
                    self._keep(call, request)

    def _keep(self, call: RecordedCall, request: MessageData) -> None:
        sink, method = call.called.sink, request.method
        target = target_of(method, request.params)
        if (sink, method, target) not in self._shelves and len(self._shelves) >= MAX_TARGETS:
            target = None
        shelf = self._shelves.setdefault((sink, method, target), _Shelf())
        shelf.seen += 1
        place = len(shelf.answers) if shelf.seen <= MAX_ANSWERS else self._random.randrange(shelf.seen)
        if place >= MAX_ANSWERS:
            return
        assert call.ended is not None
        size = len(msgspec.json.encode((request.params, call.ended)))
        before = shelf.answers[place].size if place < len(shelf.answers) else 0
        if self._bytes + size - before > MAX_BYTES:
            return
        self._bytes += size - before
        shelf.answers[place : place + 1] = [
            Answer(request.params, call.took or 0.0, call.ended.reply, call.ended.failure, size)
        ]

    def nearest(self, sink: str, method: str, params: dict[str, Json]) -> Answer | None:
        """What a sink answered to the request that differs least; drawn from those that differ equally little."""
        answers = self._answers(sink, method, target_of(method, params))
        if not answers:
            return None
        distances = [distance(each.params, params, self._ignoring) for each in answers]
        least = min(distances)
        return self._random.choice([each for each, far in zip(answers, distances, strict=True) if far == least])

    def latency(self, sink: str, method: str, target: str | None, longer_than_s: float = 0.0) -> float | None:
        """A time that a sink took for a target; None if it never took so long."""
        times = [each.took_s for each in self._answers(sink, method, target) if each.took_s >= longer_than_s]
        return self._random.choice(times) if times else None

    def _answers(self, sink: str, method: str, target: str | None) -> list[Answer]:
        for found in self._shelves_for(sink, method, target):
            if found.answers:
                return found.answers
        return []

    def _shelves_for(self, sink: str, method: str, target: str | None) -> Iterator[_Shelf]:
        """The target's own first; the same one of another sink (the new one may have another name); the method's."""
        for key in ((sink, method, target), (sink, method, None)):
            if key in self._shelves:
                yield self._shelves[key]
        for (_, its_method, its_target), shelf in self._shelves.items():
            if (its_method, its_target) == (method, target):
                yield shelf

    async def suppose(self, exchange: Exchange, sink: str, spent_s: float) -> Reply:
        """
        Answer a call that is on no tape; see `Unknown`.

        Raises:
            UpstreamUnavailable: Nothing like it was ever answered.
            Exception: What the nearest one failed with.
        """
        method = exchange.method
        answer = self.nearest(sink, method, dict(exchange.request.params))
        took_s = self.latency(sink, method, exchange.target, spent_s)
        if answer is None:
            self.unanswered += 1
            await trio.lowlevel.checkpoint()
            raise UpstreamUnavailable(f"{sink}: the tape has no answer to {method}")
        if took_s is None:  # it never took as long as it was given when it was cancelled
            await trio.sleep_forever()
        else:
            await trio.sleep(took_s - spent_s)
        self.supposed += 1
        if answer.failure is not None:
            raise exception_of(answer.failure)
        assert answer.reply is not None
        return played_reply(answer.reply)
