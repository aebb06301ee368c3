"""Peak EWMA."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluiceway.transports.balance.latency import TAU_S, PeakEwma


def test_a_slow_reply_counts_at_once_and_fast_ones_slowly():
    """Up in one step, down in many."""
    latency = PeakEwma()
    latency.observe(0.01, 0.0)
    latency.observe(1.0, 1.0)
    assert latency.at(1.0) == 1.0
    latency.observe(0.01, 2.0)

    assert latency.at(2.0) == pytest.approx(0.906, abs=0.001)


def test_it_fades_and_converges():
    """What nobody observes is forgotten; what is observed often is what it is."""
    latency = PeakEwma()
    latency.observe(1.0, 0.0)
    assert latency.at(TAU_S) == pytest.approx(0.368, abs=0.001)
    for second in range(1, 101):
        latency.observe(0.05, float(second))

    assert latency.at(100.0) == pytest.approx(0.05, rel=0.01)


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 1000)), min_size=1, max_size=50))
def test_it_is_never_outside_what_was_observed(observed):
    """At the moment of an observation."""
    latency, now = PeakEwma(), 0.0
    assert not latency.is_known
    for seconds, step in observed:
        now += step
        latency.observe(seconds, now)

        assert seconds - 1e-9 <= latency.at(now) <= max(each for each, _ in observed) + 1e-9
    assert latency.is_known
