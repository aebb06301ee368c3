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

    _delivered: trio.Event | None = None
    _broken: trio.BrokenResourceError | None = None
    _is_late = False

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

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

    def expire(self) -> None:
        """It has waited long enough: become an event stream. See `Expires`."""
        self._is_late = True
        self.begin()

    async def _deliver_beside(self) -> None:
        assert self._delivered is not None
        try:
            await self._deliver(0.0 if self._is_late else self._serving.config.keep_alive)
        except trio.BrokenResourceError as error:
            self._broken = error
        finally:
            self._delivered.set()

    async def _until_delivered(self) -> None:
        """
        Wait for delivery to end, which has begun.

        Raises:
            trio.BrokenResourceError: See `_deliver`.
        """
        assert self._delivered is not None
        await self._delivered.wait()
        if self._broken is not None:
            raise self._broken
