"""When a worker that died is started again, and when that is given up. Pure."""

from __future__ import annotations

import random
from collections import deque
from typing import Final, final

WINDOW_S: Final = 300.0
"""Seconds for which a death is remembered."""
MAX_DEATHS: Final = 20
"""Deaths of workers within that time; with one more, something is wrong that starting again does not mend."""
PAUSE_S: Final = (0.1, 10.0)
"""The pause before the second start, which doubles with each death that is remembered, and the longest."""


@final
class Restarts:
    """
    The deaths of a gateway's workers.

    Args:
        rng: Jitter of the pauses.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._deaths: deque[float] = deque(maxlen=MAX_DEATHS + 1)
        self.total = 0
        """Deaths since the start."""

    def note_death(self, now: float) -> float | None:
        """
        Seconds to wait before another worker is started in the place of one that died; None to give up.

        The first is replaced at once: whatever it was may not happen again.
        """
        self.total += 1
        self._deaths.append(now)
        while self._deaths[0] < now - WINDOW_S:
            self._deaths.popleft()
        if len(self._deaths) > MAX_DEATHS:
            return None
        if len(self._deaths) == 1:
            return 0.0
        shortest, longest = PAUSE_S
        pause: float = min(longest, shortest * 2.0 ** (len(self._deaths) - 2))
        return self._rng.uniform(pause / 2, pause)
