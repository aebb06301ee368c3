"""What a legacy upstream says in answer to one request: notifications and questions, and at the end the reply."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Final, final

import trio

from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.protocol.messages import Message, Notification, Reply, Request, Response
from sluiceway.pipeline.runtime.nursery import unwrap_single

from ..http_client.response import Response as HttpResponse
from ..questions import Answer, answer_at_once
from .in_flight import Asking, InFlight
from .long_result import LongResult, conclude
from .resumable import ResumableStream
from .upstream import Upstream

CANCELLED: Final = "notifications/cancelled"


@final
class Conversations:
    """
    Those of one session.

    Args:
        upstream: Whose session it is.
        headers: Makes the header lines of a GET within the session.
        in_flight: Its requests.
        say: Sends an answer that nobody waits for.
    """

    def __init__(self, upstream: Upstream, headers: Callable[[], bytes], in_flight: InFlight, say: Answer) -> None:
        self._upstream = upstream
        self._headers = headers
        self._in_flight = in_flight
        self._say = say

    async def reply(self, asking: Asking, response: HttpResponse) -> Reply:
        """
        Relay what comes before the reply, and return that.

        Raises:
            UpstreamFault: The upstream broke off, or what it sent is not MCP.
        """
        exchange, upstream = asking.exchange, self._upstream
        request = exchange.request
        assert isinstance(request, Request)
        reply = upstream.reply_in(response, request.id)
        if reply is not None:
            return reply
        in_pieces = exchange.takes_pieces
        with closing(ResumableStream(upstream, response, self._headers, in_pieces=in_pieces)) as stream:
            while True:
                message = await stream.next()
                if isinstance(message, Request):
                    message = await self._reply_asking(asking, stream, message)
                if not isinstance(message, Notification):
                    reply = await conclude(exchange, message, upstream.name, request.id)
                    stream.finish()
                    return reply
                await self._pass_back(exchange, message)

    async def _reply_asking(
        self, asking: Asking, stream: ResumableStream, message: Request | Notification
    ) -> Response | LongResult:
        """The rest of a conversation in which the upstream asks: only these pay for a nursery."""
        questions = self._in_flight.questions_of(asking)
        with unwrap_single():
            async with trio.open_nursery() as nursery:
                following: Message | LongResult = message
                while isinstance(following, Request | Notification):
                    if isinstance(following, Notification):
                        await self._pass_back(asking.exchange, following)
                    elif (answer := answer_at_once(following)) is not None:
                        nursery.start_soon(self._say, answer)
                    else:
                        nursery.start_soon(questions.ask, following)
                    following = await stream.next()
                nursery.cancel_scope.cancel()
        return following

    async def _pass_back(self, exchange: Exchange, notification: Notification) -> None:
        if notification.method == CANCELLED and self._in_flight.take_back(notification.params.get("requestId")):
            return
        await exchange.relay(notification)
