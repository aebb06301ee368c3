"""
The stream that answers one legacy POST, and what continues it when it breaks.

2025-11-25, basic/transports, resumability and SEP-1699: an upstream may close a stream after it sent an event id, and
goes on with it in the answer to a GET that names that id. Without an id there is nothing to go on with.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

import trio

from sluiceway.pipeline.protocol.errors import UpstreamClosed
from sluiceway.pipeline.protocol.messages import Message

from ..http_client.response import Response
from .answers import EVENTS, cut_off
from .incoming import Incoming
from .long_result import LongResult
from .upstream import Upstream

_MAX_TRIES: Final = 5
"""Reconnections in a row that bring no event."""
RECONNECT_S: Final = 1.0
"""Time to wait before reconnecting where the upstream does not say; what clients commonly take."""
MAX_RECONNECT_S: Final = 30.0
"""Longest wait that an upstream may ask for."""


@final
class ResumableStream:
    """
    The messages of one answer, across as many connections as it takes. Close it, always.

    Args:
        upstream: Where the rest comes from.
        response: The answer to the POST; closed by this.
        headers: Makes the header lines of a GET within the session.
        in_pieces: Whether long results are wanted as such; see `Incoming.next_or_long`.
    """

    def __init__(
        self, upstream: Upstream, response: Response, headers: Callable[[], bytes], *, in_pieces: bool = False
    ) -> None:
        self._upstream = upstream
        self._response = response
        self._headers = headers
        self._in_pieces = in_pieces
        self._incoming: Incoming = upstream.read(response)
        self._tries = 0

    def finish(self) -> None:
        """Give the connection back: the reply was the last message."""
        self._response.finish()

    def close(self) -> None:
        """Give the connection back, whatever is still to come. Idempotent."""
        self._response.close()

    async def next(self) -> Message | LongResult:
        """
        The next message. A long result is the last one, and cannot be resumed.

        Raises:
            UpstreamClosed: There is no more, and nothing to resume from.
            UpstreamFault: Likewise for any other reason.
        """
        while True:
            message: Message | LongResult | None = None
            failure = cut_off(self._upstream.name)
            try:
                incoming = self._incoming
                message = await (incoming.next_or_long() if self._in_pieces else incoming.next())
            except UpstreamClosed as error:
                if not self._incoming.event_id:
                    raise
                failure = error
            if message is not None:
                return message
            self._tries = 1 if self._incoming.moved else self._tries + 1
            if not self._incoming.event_id or self._tries > _MAX_TRIES:
                raise failure
            await self._resume(self._incoming)

    async def _resume(self, broken: Incoming) -> None:
        self._response.close()
        wait_s = RECONNECT_S if broken.retry_s is None else broken.retry_s
        await trio.sleep(min(wait_s, MAX_RECONNECT_S))
        self._response = await self._upstream.get(self._headers(), broken.event_id)
        head = self._response.head
        if not 200 <= head.status < 300 or head.media_type != EVENTS:
            raise cut_off(self._upstream.name)  # the events are not kept there
        self._incoming = self._upstream.read(self._response, broken.event_id)
        self._incoming.retry_s = broken.retry_s
