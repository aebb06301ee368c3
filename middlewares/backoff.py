"""
How long to wait before the next attempt: an exponential series, a cap, jitter, and what the upstream asked for.

Full jitter (anything between nothing and the full delay) spreads a crowd best; see "Exponential Backoff And Jitter"
(AWS Architecture Blog, 2015). The cap holds after the jitter: no wait is ever longer than `max_delay_s`.
"""

from __future__ import annotations

import random  # only for its type: the caller seeds it
from collections.abc import Mapping
from typing import Final, Literal, final

from attrs import frozen

Jitter = Literal["full", "slight", "none"]
"""`full`: 0 to 100 % of the delay; `slight`: 85 % to 115 %; `none`: exactly the delay."""


@final
@frozen
class Backoff:
    """A series of delays."""

    max_attempts: int
    """Tries in all, the first included."""
    base_delay_s: float
    """Delay after the first try."""
    multiplier: float
    """Each delay is so many times the one before."""
    max_delay_s: float
    """No delay is longer; infinite for no cap."""
    jitter: Jitter

    def delay_s(self, attempt: int, rng: random.Random) -> float:
        """
        Seconds to wait after the try number `attempt` has failed.

        Args:
            attempt: 1 for the first.
            rng: Jitter.
        """
        delay = min(self.max_delay_s, self.base_delay_s * self.multiplier ** (attempt - 1))
        if self.jitter == "full":
            return delay * rng.random()
        return min(self.max_delay_s, delay * rng.uniform(0.85, 1.15)) if self.jitter == "slight" else delay


PRESETS: Final[Mapping[str, Backoff]] = {
    "standard": Backoff(3, 0.1, 2.0, 10.0, "full"),
    "gentle": Backoff(4, 0.1, 2.0, 10.0, "slight"),
    "seed-turbomcp": Backoff(4, 0.1, 2.0, float("inf"), "none"),
    "seed-2025": Backoff(4, 1.0, 2.0, 10.0, "none"),
}
"""
`preset` in YAML: ours; the same with one more try and less jitter; 100, 200, 400 ms as TurboMCP's example waits; 1, 2,
4 s as "MCP Advanced Patterns 2025" waits (`maxRetries: 3` there is `max_attempts: 4` here).
"""
