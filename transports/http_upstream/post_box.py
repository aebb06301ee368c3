"""
Messages on their way to an upstream that takes each by a POST of its own and answers them elsewhere (HTTP+SSE).

Each POST is a task, so one that the upstream holds open delays no other, a cancel notice least of all. The one thing
that must not arrive too early is the notice about a request whose own POST is still under way: it waits for that.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Final, final

import trio
from attrs import define, field

from sluiceway.pipeline.protocol.errors import GatewayError

_ORDER_S: Final = 1.0
"""How long a notice waits for the POST of what it is about; then that is broken off."""

Deliver = Callable[[bytes, int | None], Awaitable[None]]
"""Posts a message; its key is None if nobody waits for an answer. Raises `GatewayError`."""


@final
@define(eq=False)
class _Post:
    """One message that was not acknowledged yet."""

    size: int
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    begun: bool = False
    """It may have left."""
    done: trio.Event = field(factory=trio.Event)


@final
class PostBox:
    """
    The messages of one session. `start` it before anything is put in.

    Args:
        max_bytes: What may wait to be acknowledged. A single message always fits.
        deliver: Posts one.
        on_failure: Told of a request that did not reach the upstream; returns whether somebody waits for its reply.
        log: A structured logger.
    """

    def __init__(
        self, max_bytes: int, deliver: Deliver, on_failure: Callable[[int, GatewayError], bool], log: Any
    ) -> None:
        self.max_bytes = max_bytes
        self._deliver = deliver
        self._on_failure = on_failure
        self._log = log
        self._nursery: trio.Nursery | None = None
        self._size = 0
        self._requests: dict[Hashable, _Post] = {}
        self._unsent: set[Hashable] = set()
        self._orphans: list[_Post] = []

    @property
    def size(self) -> int:
        """Bytes that wait to be acknowledged."""
        return self._size

    def start(self, nursery: trio.Nursery) -> None:
        """Post from now on, in tasks of this nursery."""
        self._nursery = nursery

    def close(self) -> None:
        """Take nothing more. Idempotent."""
        self._nursery = None

    def put_nowait(self, message: bytes, key: Hashable | None = None, *, alone: bool = False) -> None:
        """
        Post a message.

        Args:
            message: Encoded.
            key: The id of a request; None for what nobody waits for.
            alone: Makes no difference: every message has a POST of its own.

        Raises:
            trio.WouldBlock: There is no room for it.
            trio.ClosedResourceError: The box is closed.
        """
        if self._nursery is None:
            raise trio.ClosedResourceError("the session is over")
        if self._size and self._size + len(message) > self.max_bytes:
            raise trio.WouldBlock
        post = _Post(len(message))
        self._size += post.size
        if key is None:
            orphans, self._orphans = self._orphans, []
            self._nursery.start_soon(self._say, message, post, orphans)
        else:
            self._requests[key] = post
            assert isinstance(key, int)
            self._nursery.start_soon(self._ask, message, post, key)

    def withdraw(self, key: Hashable) -> bool:
        """Nobody waits for the answer any more; whether the upstream need not be told, for it has not got it."""
        if key in self._unsent:
            self._unsent.remove(key)
            return True
        post = self._requests.get(key)
        if post is not None and not post.begun:
            post.scope.cancel()
            return True
        if post is not None:
            self._orphans.append(post)
        return False

    async def _ask(self, message: bytes, post: _Post, key: int) -> None:
        try:
            with post.scope:
                await trio.lowlevel.checkpoint()  # a request that is withdrawn at once never leaves
                post.begun = True
                await self._deliver(message, key)
        except GatewayError as error:
            if self._on_failure(key, error) and error.retryable:
                self._unsent.add(key)
        finally:
            del self._requests[key]
            self._acknowledged(post)

    async def _say(self, message: bytes, post: _Post, orphans: list[_Post]) -> None:
        try:
            with trio.move_on_after(_ORDER_S):
                for orphan in orphans:
                    await orphan.done.wait()
            for orphan in orphans:
                orphan.scope.cancel()
            await self._deliver(message, None)
        except GatewayError as error:
            self._log.debug("a word to the upstream was lost", reason=error.reason)
        finally:
            self._acknowledged(post)

    def _acknowledged(self, post: _Post) -> None:
        self._size -= post.size
        post.done.set()
