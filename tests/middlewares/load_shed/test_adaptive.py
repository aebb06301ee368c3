"""The limit goes down when it is too much, and up again when it is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluiceway.middlewares.load_shed.adaptive import LEAST, Aimd


def rounds(aimd, count, took_s, *, now_s=0.0, in_flight=1000, **kwargs):
    """So many rounds of exchanges that take that long, and the limits after each."""
    limits = []
    for _ in range(count):
        for _ in range(LEAST):
            aimd.ended(now_s, now_s + max(took_s, 1.0), in_flight, **kwargs)
        now_s += max(took_s, 1.0)
        limits.append(aimd.limit)
    return limits


def test_slow_rounds_lower_it_and_fast_ones_raise_it_by_one():
    """By a tenth, down to the least; by one, up to the most."""
    aimd = Aimd(least=8, most=12, target_s=1.0, backoff=0.9)

    assert rounds(aimd, 5, 2.0) == [10, 9, 8, 8, 8]
    assert rounds(aimd, 6, 1.0, now_s=100.0) == [9, 10, 11, 12, 12, 12]


def test_a_tenth_that_is_slow_is_no_overload():
    """One more is."""
    for slow, limit in ((1, 20), (2, 10)):
        aimd = Aimd(least=1, most=20, target_s=1.0, backoff=0.5)
        for number in range(10):
            aimd.ended(0.0, 5.0 if number < slow else 1.0, 20)
        assert aimd.limit == limit


def test_a_limit_that_nobody_needs_is_not_raised():
    """Few exchanges that are fast say nothing about many."""
    aimd = Aimd(least=1, most=20, target_s=1.0, backoff=0.5)
    rounds(aimd, 1, 2.0)

    assert rounds(aimd, 3, 1.0, now_s=10.0, in_flight=9) == [10, 10, 10]
    assert rounds(aimd, 1, 1.0, now_s=20.0, in_flight=10) == [11]


def test_what_started_before_a_round_says_nothing_about_it():
    """It ran under another limit: one overload must not be punished twice."""
    aimd = Aimd(least=1, most=100, target_s=1.0, backoff=0.5)
    rounds(aimd, 1, 2.0)
    for _ in range(100):
        aimd.ended(1.5, 10.0, 100)

    assert aimd.limit == 50


def test_who_says_that_it_is_overloaded_is_believed():
    """However fast it says so."""
    aimd = Aimd(least=1, most=100, target_s=1.0, backoff=0.5)

    assert rounds(aimd, 2, 0.1, overloaded=True) == [50, 25]


@given(
    st.lists(st.tuples(st.floats(0, 2), st.floats(0, 5), st.integers(1, 40), st.booleans()), max_size=200),
    st.integers(1, 10),
    st.integers(0, 30),
    st.floats(0.1, 0.99),
)
def test_it_stays_between_its_bounds(ends, least, more, backoff):
    """Whatever happens."""
    aimd = Aimd(least, least + more, target_s=1.0, backoff=backoff)
    now_s = 0.0
    for gap, took, in_flight, overloaded in ends:
        now_s += gap
        aimd.ended(max(now_s - took, 0.0), now_s, in_flight, overloaded=overloaded)

        assert least <= aimd.limit <= least + more


@pytest.mark.parametrize("capacity", [3, 12, 30])
def test_it_finds_what_can_be_done(capacity):
    """A server that is fast up to so many at once and slower above: the limit comes close, and stays there."""
    aimd = Aimd(least=1, most=64, target_s=1.0, backoff=0.9)
    now_s, seen = 0.0, []
    for turn in range(200):
        limit = aimd.limit
        took = 0.9 * max(1.0, limit / capacity)
        for _ in range(max(limit, LEAST)):
            aimd.ended(now_s, now_s + max(took, 1.0) if limit <= capacity else now_s + took, limit)
        now_s += max(took, 1.0)
        if turn >= 100:
            seen.append(limit)

    assert capacity * 0.8 <= sum(seen) / len(seen) <= capacity * 1.3
