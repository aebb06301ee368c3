"""Calls that are served in the task of their request."""

from __future__ import annotations

from abc import ABC, abstractmethod

import trio

from .serving import Serving


class Call(ABC):
    """
    A request whose exchange runs in its own task, and whose messages are delivered beside it only if that is needed.

    Most calls end soon, with a reply and nothing before it: they need no second task, and no timer of their own. As
    soon as something comes before the reply, or nothing comes for a while, a task begins to deliver.

    Args:
        serving: The source.
    """

    __slots__ = ("_broken", "_delivered", "_patience_s", "_serving")

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._patience_s: float = serving.config.keep_alive
        self._delivered: trio.Event | None = None
        self._broken: trio.BrokenResourceError | None = None

    @abstractmethod
    def _attach(self) -> None:
        """Have the stream of messages read from now on."""

    @abstractmethod
    async def _deliver(self, patience_s: float) -> None:
        """
        Deliver the stream to its end.

        Args:
            patience_s: Seconds in which it may still become one answer.

        Raises:
            trio.BrokenResourceError: The reply broke off, and so must the response.
        """

    def begin(self) -> None:
        """Deliver from now on. Idempotent."""
        if self._delivered is None:
            self._delivered = trio.Event()
            self._attach()
            self._serving.start(self._deliver_beside)

    def _wait(self) -> None:
        """Expire after `keep_alive`; `Serving.patience` is to be told when the answer is here before."""
        self._serving.patience.add(self, trio.current_time() + self._patience_s)

    def expire(self) -> None:
        """It has waited long enough: become an event stream. See `Expires`."""
        self._patience_s = 0.0
        self.begin()

    async def _deliver_beside(self) -> None:
        assert self._delivered is not None
        try:
            await self._deliver(self._patience_s)
        except trio.BrokenResourceError as error:
            self._broken = error
        finally:
            self._delivered.set()

    async def _until_delivered(self) -> bool:
        """
        Wait for delivery to end; whether it had begun.

        Raises:
            trio.BrokenResourceError: See `_deliver`.
        """
        if self._delivered is None:
            return False
        await self._delivered.wait()
        if self._broken is not None:
            raise self._broken
        return True
