"""
The short way through a limit: one window, every request charged one unit, at once, in this process.

It says what `Ledger.charge` and `Fields.write` say, in one function: most limits are like this, and each call and each
attribute that is left out is felt (1.6 us a request instead of 2.2).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from sluiceway.pipeline.model.exchange import Exchange
from sluiceway.pipeline.model.gcra import FRESH, NS_PER_S, Ledger, Window

from .fields import Fields
from .keys import LONGEST, Key, bounded

Turnstile: TypeAlias = Callable[[Exchange], int]
"""
Charge an exchange, and write what is left into the headers of its reply. Returns nanoseconds until it fits: with 0 it
was charged. Raises `LedgerFull`, and then has written nothing.
"""


def turnstile(window: Window, ledger: Ledger, fields: Fields, key_of: Key, clock: Callable[[], float]) -> Turnstile:
    """
    A turnstile for a limit of one window.

    Args:
        window: The limit's.
        ledger: What its keys owe; others may charge it, too.
        fields: What is written.
        key_of: What is counted together.
        clock: Seconds, as `trio.current_time`.
    """
    states, known = ledger.states, ledger.states.get
    ticks, interval, tolerance = window.ticks, window.interval, window.tolerance
    ticks_per_s = ticks * NS_PER_S
    start, policy, is_plain = fields.start or "", fields.policy, fields.start is not None
    first_of_burst = f"{start}{(tolerance - interval) // interval};t={-(-interval // ticks_per_s)}"

    def charge(exchange: Exchange) -> int:
        key = key_of(exchange)
        if len(key) > LONGEST:
            key = bounded(key)
        now_ns = int(clock() * 1e9 + 0.5)  # `nanoseconds`, without a call
        now = now_ns * ticks
        state: int = known(key, FRESH)  # type: ignore[assignment]  # states of one window are numbers
        headers = exchange.reply_headers
        if state > now:
            ahead = state - now + interval
            if ahead > tolerance:
                fields.write(headers, state, now_ns)
                return -(-(ahead - tolerance) // ticks)
            left = f"{start}{(tolerance - ahead) // interval};t={-(-ahead // ticks_per_s)}"
        else:
            ahead, left = interval, first_of_burst
        if state:
            states[key] = now + ahead
        else:
            ledger.add(key, now + ahead, now_ns)
        if is_plain and "ratelimit" not in headers:
            headers["ratelimit"] = left
            headers["ratelimit-policy"] = policy
        else:
            fields.write(headers, now + ahead, now_ns)
        return 0

    return charge
