"""Time in a test case: virtual, and at rest while a thread is at work."""

from __future__ import annotations

import math
import time
from typing import Final, NoReturn

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

_NAP_S: Final = 0.0005
"""Real time between two looks at whether threads are done."""
_NAPS: Final = trio.CapacityLimiter(1)
"""For the naps themselves, so that they do not count as threads at work."""


async def pass_time(clock: MockClock) -> NoReturn:
    """
    Move a mock clock to the next deadline whenever nothing else can happen.

    Trio's own autojump knows nothing of threads: it would let a deadline pass while a file is being written, and the
    case would end differently on a slow disk.
    """
    limiter = trio.to_thread.current_default_thread_limiter()
    while True:
        await wait_all_tasks_blocked()
        if limiter.borrowed_tokens:
            await trio.to_thread.run_sync(time.sleep, _NAP_S, limiter=_NAPS)
            continue
        left = trio.lowlevel.current_statistics().seconds_to_next_deadline
        if 0 < left < math.inf:
            clock.jump(left)
