"""
How much repeating is affordable: a share of what recently succeeded, and a little at any time.

Without it, retries make an outage worse: with three attempts for everybody, an upstream that is on its knees gets three
times the load. The theory is in the comment of tower's budget module and in Finagle's retry budgets (20 % and a minimum
per second, tokens that expire); the arithmetic here is dated tokens, so the law is exact:

    repetitions in any stretch of time <= share x successes in it and in the ttl before it + reserve x time + burst

Pure: the clock is an argument.
"""

from __future__ import annotations

from typing import Final, final

TTL_S: Final = 10
"""Seconds for which a success counts."""


@final
class Budget:
    """
    Tokens for repetitions. `deposit` for every success, `withdraw` before every repetition. Constant size.

    Args:
        share: Repetitions per success; 0.2 allows one for every five.
        reserve: Repetitions per second that are allowed without any success.
    """

    __slots__ = ("_at", "_burst", "_earned", "_reserve", "_reserve_at", "_slot", "_tokens", "share")

    def __init__(self, share: float, reserve: float) -> None:
        self.share = share
        """Repetitions per success."""
        self._reserve = reserve
        self._burst = max(1.0, reserve) if reserve else 0.0
        self._tokens = self._burst
        self._reserve_at: float | None = None
        self._earned = [0.0] * TTL_S
        self._at = 0
        self._slot = 0

    def deposit(self, now: float) -> None:
        """Note a success; once per exchange, however often it was tried."""
        if now >= self._at + 1:
            self._expire(int(now))
        self._earned[self._slot] += self.share

    def withdraw(self, now: float) -> bool:
        """Take a token for one repetition; False if there is none. The reserve goes first, then the oldest tokens."""
        self._refill(now)
        if self._tokens >= 1 - 1e-9:
            self._tokens -= 1
            return True
        if self._sum(now) < 1 - 1e-9:
            return False
        missing = 1.0
        for back in range(TTL_S - 1, -1, -1):
            slot = (self._slot - back) % TTL_S
            taken = min(missing, self._earned[slot])
            self._earned[slot] -= taken
            missing -= taken
        return True

    def balance(self, now: float) -> float:
        """Tokens there are, for status."""
        self._refill(now)
        return self._tokens + self._sum(now)

    def _refill(self, now: float) -> None:
        if self._reserve_at is not None:
            self._tokens = min(self._burst, self._tokens + (now - self._reserve_at) * self._reserve)
        self._reserve_at = now

    def _sum(self, now: float) -> float:
        if now >= self._at + 1:
            self._expire(int(now))
        return sum(self._earned)

    def _expire(self, second: int) -> None:
        """Go on to another second; what was earned longer than the ttl ago is gone."""
        for _ in range(min(TTL_S, max(0, second - self._at))):
            self._slot = (self._slot + 1) % TTL_S
            self._earned[self._slot] = 0.0
        self._at = second
