"""
The stream on which a legacy upstream says what no request caused (2025-11-25, basic/transports, listening).

Kept open for as long as the session lives, opened again when it breaks. An upstream that has none says so (405).
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Final, final

import trio

from sluiceway.pipeline.protocol.errors import GatewayError
from sluiceway.pipeline.protocol.messages import Message

from .answers import EVENTS
from .resumable import MAX_RECONNECT_S, RECONNECT_S
from .upstream import Upstream

_PATIENCE_S: Final = 0.25
"""How long the first requests wait for the stream; some servers say nothing on it, not even that it is there."""


@final
class StandaloneStream:
    """
    Args:
        upstream: Whose stream it is.
        headers: Makes the header lines of a GET within the session.
        receive: Takes each message.
        rng: Spreads reconnections.
    """

    def __init__(
        self,
        upstream: Upstream,
        headers: Callable[[], bytes],
        receive: Callable[[Message], Awaitable[None]],
        rng: random.Random,
    ) -> None:
        self._upstream = upstream
        self._headers = headers
        self._receive = receive
        self._random = rng
        self._event_id = ""
        self._retry_s: float | None = None
        self._begun = trio.Event()

    @property
    def has_begun(self) -> bool:
        """Whether there is nothing to wait for any more."""
        return self._begun.is_set()

    async def begun(self) -> None:
        """
        Wait until the stream is there, it is known that there is none, or for a moment; once. Servers drop what they
        have to ask while there is no stream, so a call that arrives before it could wait for ever.
        """
        with trio.move_on_after(_PATIENCE_S):
            await self._begun.wait()
        self._begun.set()

    async def run(self) -> None:
        """Listen until cancelled, or until the upstream says that there is nothing to listen to."""
        try:
            await self._run()
        finally:
            self._begun.set()

    async def _run(self) -> None:
        wait_s = RECONNECT_S
        while True:
            heard = self._event_id
            try:
                if not await self._listen():
                    return
            except GatewayError:
                pass  # it broke, or cannot be reached now: both end in another try
            wait_s = RECONNECT_S if heard != self._event_id else min(2 * wait_s, MAX_RECONNECT_S)
            base_s = wait_s if self._retry_s is None else min(max(self._retry_s, 0.1), MAX_RECONNECT_S)
            await trio.sleep(base_s * (1 + self._random.random() / 4))

    async def _listen(self) -> bool:
        """One connection's worth; whether another one makes sense."""
        upstream = self._upstream
        with await upstream.get(self._headers(), self._event_id) as response:
            head = response.head
            self._begun.set()
            if head.status != 200 or head.media_type != EVENTS:
                return head.status >= 500 or head.status == 429
            incoming = upstream.read(response, self._event_id)
            try:
                while (message := await incoming.next()) is not None:
                    await self._receive(message)
            finally:
                self._event_id, self._retry_s = incoming.event_id, incoming.retry_s or self._retry_s
        return True
