"""
The current keys of an issuer: fetched now and then, sooner when a token names one that is not there, never in a hurry.

One task fetches; requests only ask it to. So however many tokens with made-up key ids arrive, there is one fetch at a
time, and one per interval; and a request that is cancelled takes no fetch with it. While the issuer cannot be reached
the keys stay, for a bounded time.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import NoReturn, final

import trio

from .fetching import FetchFailed
from .jwks import KeySet


@final
class KeyRing:
    """
    Args:
        load: Gets the keys; raises `FetchFailed`.
        refresh_s: Keys are fetched this often.
        interval_s: Time between two fetches at least.
        stale_s: Keys are kept this long after they could be fetched last.
        told: Called after every fetch, with what went wrong, or None.
    """

    def __init__(
        self,
        load: Callable[[], Awaitable[KeySet]],
        *,
        refresh_s: float,
        interval_s: float,
        stale_s: float,
        told: Callable[[str | None], None],
    ) -> None:
        self.keys = KeySet()
        """What is known. Empty before the first fetch that succeeded, and when keys have become too old."""
        self.fetches = 0
        """How many were tried."""
        self.changed = 0
        """How many brought other keys."""
        self._load = load
        self._refresh_s = refresh_s
        self._interval_s = interval_s
        self._stale_s = stale_s
        self._told = told
        self._fetched_at = -math.inf
        self._not_before = -math.inf
        self._wanted = trio.Event()
        self._done = trio.Event()
        self._busy = True

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> NoReturn:
        """Fetch until cancelled. Started once the first fetch has ended, well or not."""
        while True:
            self._busy = True
            healthy = await self._fetch()
            self._busy = False
            self._not_before = trio.current_time() + self._interval_s
            done, self._done, self._wanted = self._done, trio.Event(), trio.Event()
            done.set()
            task_status.started()
            task_status = trio.TASK_STATUS_IGNORED
            with trio.move_on_after(self._refresh_s if healthy else min(self._refresh_s, self._interval_s)):
                await self._wanted.wait()

    async def newer(self) -> bool:
        """
        Have keys fetched, unless that was done a moment ago, and wait for it.

        Returns:
            Whether there was a fetch.
        """
        if not self._busy and trio.current_time() < self._not_before:
            return False
        done = self._done
        self._wanted.set()
        await done.wait()
        return True

    @property
    def retry_after_s(self) -> float:
        """Seconds until the next fetch may begin."""
        return max(1.0, self._not_before - trio.current_time())

    async def _fetch(self) -> bool:
        self.fetches += 1
        try:
            keys = await self._load()
        except FetchFailed as error:
            if trio.current_time() - self._fetched_at > self._stale_s:
                self.keys = KeySet()
            self._told(str(error))
            return False
        self._fetched_at = trio.current_time()
        if names_of(keys) != names_of(self.keys):
            self.changed += 1
        self.keys = keys
        self._told(None)
        return True


def names_of(keys: KeySet) -> frozenset[str]:
    """What tells two sets apart: the thumbprints of their keys (RFC 7638), with their names."""
    return frozenset(f"{key.kid}:{key.alg}:{key.key.thumbprint()}" for key in keys.keys)
