"""The law of budgets: never more than what they hold and gain."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sluiceway.transports.http_source.http2.budget import Budget

STEPS = st.lists(
    st.tuples(st.floats(0, 10), st.floats(0, 30), st.floats(0, 20)), max_size=60
)  # seconds since the last, tokens to spend, tokens earned


@given(STEPS, st.floats(1, 100), st.floats(0, 50))
def test_no_more_is_spent_than_there_was(steps: list[tuple[float, float, float]], burst: float, rate: float) -> None:
    """Whatever comes when: the burst, what time brings and what is earned are the bound, and what there is is given."""
    budget, now, spent, gained, left = Budget(burst, rate), 100.0, 0.0, 0.0, burst
    for wait, tokens, earned in steps:
        now += wait
        left = min(burst, left + wait * rate)
        gained += wait * rate
        given_ = budget.spend(now, tokens)
        if given_:
            spent += tokens
            left -= tokens
        else:
            assert left < tokens + 1e-6
        budget.earn(earned)
        left = min(burst, left + earned)
        gained += earned

        assert spent <= burst + gained + 1e-6


def test_it_begins_full_and_fills_with_time() -> None:
    """The first moment is as good as any."""
    budget = Budget(2, 1)

    assert [budget.spend(50.0) for _ in range(3)] == [True, True, False]
    assert [budget.spend(51.0) for _ in range(2)] == [True, False]
    assert [budget.spend(1000.0) for _ in range(3)] == [True, True, False]
