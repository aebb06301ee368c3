"""The arithmetic of rates: against a token bucket in exact fractions, and never more than it says."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from fractions import Fraction
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluiceway.pipeline.model.gcra import FRESH, NS_PER_S, Ledger, LedgerFull, Limit, State, Window, nanoseconds
from sluiceway.pipeline.model.options import Rate, parse_rate

RATES = st.sampled_from(["60/min", "7/min", "1000/h", "10/s", "3/250ms", "0.1/s", "2.5/7s", "1/1d", "1000000/s"])
WINDOWS = st.builds(lambda rate, burst: Window(parse_rate(rate), burst), RATES, st.integers(1, 20))
LIMITS = st.lists(WINDOWS, min_size=1, max_size=3).map(lambda windows: Limit(*windows))
GAPS_NS = st.one_of(st.integers(0, 3), st.integers(0, 2 * NS_PER_S), st.integers(0, 90 * NS_PER_S))
ARRIVALS = st.lists(st.tuples(GAPS_NS, st.integers(1, 5)), max_size=40)
"""Nanoseconds since the one before, and weight."""


class Bucket:
    """What a limit ought to be: tokens in a bucket that fills all the time, in exact fractions."""

    def __init__(self, window: Window) -> None:
        self.per_ns = Fraction(str(window.rate.count)) / (Fraction(str(window.rate.per_s)) * NS_PER_S)
        self.burst = window.burst
        self.level = Fraction(window.burst)
        self.at = 0

    def fill(self, now_ns: int) -> None:
        self.level = min(self.level + (now_ns - self.at) * self.per_ns, Fraction(self.burst))
        self.at = now_ns


def timed(arrivals: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Arrivals with the time since the start instead of the gap."""
    times = accumulate(gap for gap, _ in arrivals)
    return [(at, weight) for at, (_, weight) in zip(times, arrivals, strict=True)]


def run(limit: Limit, arrivals: Sequence[tuple[int, int]]) -> list[bool]:
    """Which of some arrivals of one key fit."""
    state: State = FRESH
    admitted = []
    for now_ns, weight in timed(arrivals):
        charged, wait_ns = limit.charge(state, now_ns, weight)
        admitted.append(wait_ns == 0)
        if wait_ns == 0:
            state = charged
    return admitted


@given(LIMITS, ARRIVALS)
def test_a_limit_is_token_buckets_that_all_must_have_enough(limit: Limit, arrivals: list[tuple[int, int]]) -> None:
    """Exactly: nothing that fits is refused, nothing else is admitted, and who is refused is charged nowhere."""
    buckets = [Bucket(window) for window in limit.windows]
    expected = []
    for now_ns, weight in timed(arrivals):
        for bucket in buckets:
            bucket.fill(now_ns)
        fits = all(bucket.level >= weight for bucket in buckets)
        expected.append(fits)
        for bucket in buckets:
            bucket.level -= weight * fits

    assert run(limit, arrivals) == expected


@given(LIMITS, ARRIVALS)
def test_no_stretch_of_time_gets_more_than_burst_and_rate(limit: Limit, arrivals: list[tuple[int, int]]) -> None:
    """From any admission to any later one."""
    admitted = [each for each, fits in zip(timed(arrivals), run(limit, arrivals), strict=True) if fits]
    for window in limit.windows:
        bucket = Bucket(window)
        for first, (start, _) in enumerate(admitted):
            total = 0
            for end, weight in admitted[first:]:
                total += weight
                assert total <= window.burst + (end - start) * bucket.per_ns


@given(LIMITS, ARRIVALS, st.integers(1, 5))
def test_the_wait_is_exact(limit: Limit, arrivals: list[tuple[int, int]], weight: int) -> None:
    """A nanosecond earlier it does not fit; then it does, if it ever can."""
    state: State = FRESH
    now_ns = 0
    for now_ns, each in timed(arrivals):
        charged, wait_ns = limit.charge(state, now_ns, each)
        state = charged if wait_ns == 0 else state
    _, wait_ns = limit.charge(state, now_ns, weight)

    if weight > limit.burst:
        assert wait_ns > 0
    elif wait_ns:
        assert limit.charge(state, now_ns + wait_ns - 1, weight)[1] > 0
        assert limit.charge(state, now_ns + wait_ns, weight)[1] == 0


@given(LIMITS, ARRIVALS)
def test_the_room_is_what_fits(limit: Limit, arrivals: list[tuple[int, int]]) -> None:
    """`remaining` fits and one more does not; after `reset_ns` and not before, its window holds a whole burst."""
    state: State = FRESH
    for now_ns, weight in timed(arrivals):
        charged, wait_ns = limit.charge(state, now_ns, weight)
        state = charged if wait_ns == 0 else state
        window, remaining, reset_ns = limit.room(state, now_ns)

        assert remaining == 0 or limit.charge(state, now_ns, remaining)[1] == 0
        assert limit.charge(state, now_ns, remaining + 1)[1] > 0
        one = Limit(limit.windows[window])
        arrival = limit.arrivals(state)[window]
        assert one.room(arrival, now_ns + reset_ns) == (0, one.burst, 0)
        assert reset_ns == one.debt_ns(arrival, now_ns)


@given(LIMITS, ARRIVALS)
def test_who_owes_nothing_is_as_one_never_seen(limit: Limit, arrivals: list[tuple[int, int]]) -> None:
    """After the debt has passed, and not a nanosecond before."""
    state: State = FRESH
    for now_ns, weight in timed(arrivals):
        charged, wait_ns = limit.charge(state, now_ns, weight)
        state = charged if wait_ns == 0 else state
        clear = now_ns + limit.debt_ns(state, now_ns)

        assert limit.debt_ns(state, clear) == 0
        assert all(
            one == two
            for one, two in zip(
                limit.arrivals(limit.charge(state, clear)[0]),
                limit.arrivals(limit.charge(FRESH, clear)[0]),
                strict=True,
            )
        )
        if clear > now_ns:
            assert limit.debt_ns(state, clear - 1) == 1


@given(st.lists(st.tuples(GAPS_NS, st.integers(1, 3), st.sampled_from("abcdef")), max_size=60), LIMITS)
def test_no_key_sees_another(arrivals: list[tuple[int, int, str]], limit: Limit) -> None:
    """In any interleaving each key gets what it would get alone, although most keys are forgotten on the way."""
    ledger = Ledger(limit, max_keys=6)
    now_ns = 0
    together: dict[str, list[int]] = {}
    alone: dict[str, tuple[Ledger, list[int]]] = {}
    for gap, weight, key in arrivals:
        now_ns += gap
        together.setdefault(key, []).append(ledger.take(key, now_ns, weight))
        own, waits = alone.setdefault(key, (Ledger(limit, max_keys=1), []))
        waits.append(own.take(key, now_ns, weight))

        assert ledger.room(key, now_ns) == own.room(key, now_ns)
    assert together == {key: waits for key, (_, waits) in alone.items()}


@given(ARRIVALS, WINDOWS, st.integers(1, 30 * NS_PER_S))
def test_those_that_may_wait_go_one_interval_after_the_other(
    arrivals: list[tuple[int, int]], window: Window, patience_ns: int
) -> None:
    """Who waits has reserved: with the waits counted in, the law still holds, and turns are kept."""
    ledger = Ledger(Limit(window), max_keys=1)
    gone = []
    for now_ns, _ in timed(arrivals):
        wait_ns = ledger.take("key", now_ns, 1, patience_ns)
        if wait_ns <= patience_ns:
            gone.append(now_ns + wait_ns)

    assert gone == sorted(gone)
    per_ns = Bucket(window).per_ns
    for first, start in enumerate(gone):
        for more, end in enumerate(gone[first:], 1):
            assert more <= window.burst + (end - start + 1) * per_ns


def test_the_seeds_figures() -> None:
    """The 61st request in a moment waits a second; an hour later everything fits again (S2-MW-05, S3-HP-02)."""
    for rate, wait_s in (("60/min", 1.0), ("100/min", 0.6)):
        parsed = parse_rate(rate)
        ledger = Ledger(Limit(Window(parsed, int(parsed.count))), max_keys=1)
        waits = [ledger.take("key", 10**15) for _ in range(int(parsed.count) + 1)]

        assert waits == [0] * int(parsed.count) + [nanoseconds(wait_s)]
        assert ledger.room("key", 10**15 + 3600 * NS_PER_S) == (0, parsed.count, 0)


def test_nothing_drifts_in_a_year() -> None:
    """Seven a minute are seven a minute, one by one as at once, to the nanosecond."""
    limit = Limit(Window(Rate(7, 60.0), 1))
    state: State = FRESH
    for _ in range(7 * 60):
        state, _ = limit.charge(state, 0)

    assert limit.debt_ns(state, 0) == 3600 * NS_PER_S
    assert limit.debt_ns(limit.charge(FRESH, 0, 7 * 60 * 24 * 365)[0], 0) == 365 * 86_400 * NS_PER_S


def test_a_clock_that_was_set_back_locks_nobody_out() -> None:
    """What comes from another time is cut to what can be owed."""
    limit = Limit(Window(Rate(1, 1.0), 5), Window(Rate(100, 3600.0), 10))
    state, _ = limit.charge(FRESH, 10**18)

    kept = limit.not_beyond(state, 0)
    assert limit.debt_ns(kept, 0) == 360 * NS_PER_S
    assert limit.not_beyond(kept, 0) == kept
    one = Limit(Window(Rate(1, 1.0), 5))
    assert one.not_beyond(10**18, 7, patience_ns=3) == 5 * NS_PER_S + 10
    assert one.not_beyond(4, 7) == 4


def test_a_full_ledger_forgets_who_owes_nothing_and_nobody_else() -> None:
    """A new key gets the place of a clear one; where all owe, it is turned away, and told when that changes."""
    ledger = Ledger(Limit(Window(Rate(1, 1.0), 2)), max_keys=3)
    for key, weight in (("a", 2), ("b", 1), ("c", 2)):
        ledger.take(key, 0, weight)

    with pytest.raises(LedgerFull) as full:
        ledger.take("d", 0)
    assert (full.value.relief_ns, len(ledger)) == (NS_PER_S, 3)
    assert ledger.take("a", 0) == NS_PER_S

    assert ledger.take("d", NS_PER_S) == 0
    assert len(ledger) == 3
    assert ledger.take("a", NS_PER_S, 2) == NS_PER_S
    assert ledger.take("c", NS_PER_S, 2) == NS_PER_S


def test_a_ledger_forgets_by_itself() -> None:
    """Keys that come once do not fill it: it looks at two old ones for each new one."""
    ledger = Ledger(Limit(Window(Rate(1, 1.0), 1)), max_keys=1000)
    for number in range(100_000):
        assert ledger.take(f"key {number}", number * NS_PER_S // 10) == 0

    assert len(ledger) < 25


def test_a_hundred_thousand_keys_take_less_than_twenty_mebibytes() -> None:
    """All in debt, with names as callers have them."""
    ledger = Ledger(Limit(Window(Rate(60, 60.0), 60)), max_keys=100_000)
    tracemalloc.start()
    try:
        for number in range(100_000):
            ledger.take(f"9:tenant-{number % 50:02}=user-{number:06}@example.com", 10**15)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert len(ledger) == 100_000
    assert taken < 20 * 2**20


def test_who_is_refused_takes_no_place() -> None:
    """A key in the ledger is one that was charged."""
    ledger = Ledger(Limit(Window(Rate(1, 1.0), 1)), max_keys=10)

    assert ledger.take("a", 0, 2) == NS_PER_S
    assert len(ledger) == 0


@pytest.mark.parametrize(("rate", "burst"), [(Rate(0, 1.0), 1), (Rate(1, 0.0), 1), (Rate(1, 1.0), 0)])
def test_a_window_without_anything_in_it_is_an_error(rate: Rate, burst: int) -> None:
    """It would admit nothing, ever."""
    with pytest.raises(ValueError, match="must be positive"):
        Window(rate, burst)


def test_a_limit_without_windows_is_an_error() -> None:
    """It would admit everything."""
    with pytest.raises(ValueError, match="at least one window"):
        Limit()


def test_a_limit_says_what_it_is() -> None:
    """As an operator would write it."""
    limit = Limit(Window(parse_rate("10/s"), 20), Window(parse_rate("1000/h"), 1000))

    assert str(limit) == "10/s, 20 at once and 1000/h"
    assert limit.burst == 20
