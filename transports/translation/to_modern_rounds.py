"""
Requests that a modern upstream answers with questions, for a client that is asked directly.

2026-07-28, basic/patterns/mrtr: an upstream that needs something of the client says so in a result, and the request is
sent again, with the answers. A legacy client is asked on the stream of its own request (2025-11-25, basic/transports),
and waits for one reply. As long as it is asked, nothing of the upstream's is held: no connection, no place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, final

import trio
from attrs import define

from sluiceway.pipeline.model.exchange import Exchange, Service
from sluiceway.pipeline.protocol.errors import UpstreamProtocolError
from sluiceway.pipeline.protocol.mcp import PROGRESS
from sluiceway.pipeline.protocol.messages import ErrorReply, Json, Notification, Reply, Request, Result

from .task_messages import is_task
from .to_modern_messages import legacy_result
from .to_modern_questions import ask_all, question_of, requests_of

MAX_ROUNDS: Final = 10
"""How often one request is sent again; as many as clients of the modern era allow by default."""
MAX_QUESTIONS: Final = 64
"""Questions that one request may put to its client."""
PAUSES_S: Final = (0.1, 1.0)
"""First and longest pause before a request is sent again that the upstream asked nothing for; it doubles."""


@final
@define(eq=False)
class Rounds:
    """
    One request, until it is answered.

    Args:
        name: What the upstream is called in errors.
        exchange: The client's, with the request as it goes upstream.
        call: Asks the upstream.
        new_id: Makes ids.
    """

    name: str
    exchange: Exchange
    call: Service
    new_id: Callable[[], str]
    takes_task: bool = False
    """Whether a task is an answer; it is returned as it is."""
    rounds: int = 0
    """How often the request was sent again."""
    _asked: int = 0
    _pause_s: float = PAUSES_S[0]
    _progress: float = float("-inf")

    async def run(self) -> Reply:
        """
        Ask the upstream, and the client what the upstream wants to know. An error of the client's is the answer.

        Raises:
            UpstreamProtocolError: The upstream asks what it must not, or too much.
            GatewayError: As `call` does, and as asking the client does.
        """
        self.exchange.hold()  # what it is, an answer or a question, stands in the result
        exchange = self.exchange.with_relay(self._relay)
        request = exchange.request
        assert isinstance(request, Request)
        while True:
            reply = await self.call(exchange)
            if isinstance(reply, ErrorReply):
                return reply
            if self.takes_task and is_task(reply):
                return reply
            complete = legacy_result(self.name, request.method, reply)
            if complete is not None:
                return complete
            more = await self._answers(reply)
            if isinstance(more, ErrorReply):
                return more
            # a new request, with an id of its own (2026-07-28, basic/patterns/mrtr)
            exchange = exchange.with_request(Request(self.new_id(), request.method, {**request.params, **more}))

    async def _answers(self, wanted: Result) -> dict[str, Json] | ErrorReply:
        """The params that the next round has besides those of the first, or what the client says instead."""
        self.rounds += 1
        if self.rounds > MAX_ROUNDS:
            raise UpstreamProtocolError(
                f"{self.name}: the upstream has asked for input {MAX_ROUNDS} times, and asks on"
            )
        value = wanted.value
        questions = self._questions(value)
        more: dict[str, Json] = {}
        if "requestState" in value:
            more["requestState"] = value["requestState"]
        if questions:
            answers = await ask_all(self.exchange, questions)
            if isinstance(answers, ErrorReply):
                return answers
            more["inputResponses"] = answers
        elif not more:
            raise UpstreamProtocolError(f"{self.name}: the upstream asks for input, and does not say for which")
        else:
            await trio.sleep(self._pause_s)
            self._pause_s = min(2 * self._pause_s, PAUSES_S[1])
        return more

    def _questions(self, value: Mapping[str, Json]) -> dict[str, Request]:
        """What the upstream asks, by its keys."""
        asked = requests_of(self.name, value)
        self._asked += len(asked)
        if self._asked > MAX_QUESTIONS:
            raise UpstreamProtocolError(f"{self.name}: the upstream asks more than {MAX_QUESTIONS} questions")
        able = self.exchange.client.capabilities
        return {key: question_of(self.name, able, key, each, self.new_id) for key, each in asked.items()}

    async def _relay(self, _exchange: Exchange, notification: Notification) -> None:
        """Progress must increase (2025-11-25, basic/utilities/progress), and a new round counts anew."""
        if notification.method == PROGRESS:
            progress = notification.params.get("progress")
            if isinstance(progress, int | float):
                if progress <= self._progress:
                    await trio.lowlevel.checkpoint()
                    return
                self._progress = progress
        await self.exchange.relay(notification)
