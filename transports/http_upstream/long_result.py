"""
A result of the upstream that is too long to be held, passed on while it comes.

Who reads slowly holds the upstream back, and the gateway holds a piece at a time. Only where nobody on the way wants to
see the result, and the source can take it so; everything else is read whole (`max_message`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, final

from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.options import KIB
from sluiceway.pipeline.protocol.messages import Reply, RequestId, Response, Result
from sluiceway.pipeline.protocol.pieces import ResultPieces

from .answers import check_answers

HELD: Final = 256 * KIB
"""Bytes of a response up to which it is read whole in any case."""


@final
class LongResult:
    """
    A response of which the first bytes are here.

    Args:
        pieces: It, as far as it was read.
        first: The part of its result that was read.
        more: Reads the next bytes of the response; empty at its end. Raises `UpstreamFault`.
    """

    def __init__(self, pieces: ResultPieces, first: bytes, more: Callable[[], Awaitable[bytes]]) -> None:
        self._pieces = pieces
        self._first = first
        self._more = more

    async def pass_on(self, exchange: Exchange, name: str, request_id: RequestId) -> Result:
        """
        Write it to the client as it comes.

        Args:
            exchange: Takes it in pieces.
            name: What the upstream is called in errors.
            request_id: Of the request that it must answer.

        Returns:
            What is known of it.

        Raises:
            UpstreamFault: The upstream broke off, or what it sent is not the response to this request.
        """
        pieces, piece = self._pieces, self._first
        while True:
            await exchange.stream(piece)
            data = await self._more()
            if not data:
                break
            piece = pieces.feed(data)
        check_answers(name, Response(pieces.end(), Result()), request_id)
        await exchange.stream(b"", last=True)
        return Result({"isError": True} if pieces.is_error else {})


async def conclude(exchange: Exchange, answer: Response | LongResult, name: str, request_id: RequestId) -> Reply:
    """
    The reply in what answers a request; passed on already if it is a long one.

    Args:
        exchange: In whose name it was made.
        answer: What came.
        name: What the upstream is called in errors.
        request_id: Of the request.

    Raises:
        UpstreamFault: It answers another request, or a long one broke off.
    """
    if isinstance(answer, LongResult):
        return await answer.pass_on(exchange, name, request_id)
    return check_answers(name, answer, request_id)
