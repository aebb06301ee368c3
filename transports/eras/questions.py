"""
Requests from the server side to a legacy client, and the answers that come back on another message.

Shared by every source that can be asked (Streamable HTTP up to 2025-11-25, stdio, WebSocket). One table per session:
ids are ours, so they cannot collide with anybody's, and an answer reaches only the session whose question it answers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import final

import trio

from sluiceway.pipeline.protocol.errors import CapacityExceeded
from sluiceway.pipeline.protocol.messages import Json, Notification, Reply, Request, RequestId, Response
from sluiceway.pipeline.runtime.nursery import farewell

Send = Callable[[Request | Notification], Awaitable[None]]
"""Writes one message to the client; may block."""


@final
class Questions:
    """
    The open questions of one session.

    Args:
        new_id: Makes the ids of the questions; `Context.new_id`.
        max_pending: Questions that may be open at once; above this `CapacityExceeded` is raised.
    """

    def __init__(self, new_id: Callable[[], str], max_pending: int = 64) -> None:
        self._new_id = new_id
        self._max_pending = max_pending
        self._open: dict[RequestId, trio.Event] = {}
        self._answers: dict[RequestId, Reply] = {}

    def __len__(self) -> int:
        return len(self._open)

    async def ask(self, send: Send, method: str, params: Mapping[str, Json]) -> Reply:
        """
        Send a question and wait for its answer; cancelled by the exchange that asks.

        A cancelled question is taken back with `notifications/cancelled`.

        Raises:
            CapacityExceeded: `max_pending` questions are open.
        """
        if len(self._open) >= self._max_pending:
            raise CapacityExceeded(f"{self._max_pending} questions to this client are open; it must answer some first")
        request_id = self._new_id()
        answered = self._open[request_id] = trio.Event()
        try:
            await send(Request(request_id, method, params))
            try:
                await answered.wait()
            finally:
                if not answered.is_set():
                    with farewell(1):
                        await send(  # noqa: ASYNC102  # farewell is a bounded shield
                            Notification("notifications/cancelled", {"requestId": request_id})
                        )
            return self._answers.pop(request_id)
        finally:
            del self._open[request_id]
            self._answers.pop(request_id, None)

    def resolve(self, response: Response) -> bool:
        """
        Deliver a client's answer.

        Returns:
            Whether a question with this id was open; otherwise the answer is dropped.
        """
        answered = self._open.get(response.id) if response.id is not None else None
        if answered is None or answered.is_set():
            return False
        assert response.id is not None
        self._answers[response.id] = response.reply
        answered.set()
        return True
