"""The budget: what it gives, what it keeps, and the law that it never gives more."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sluiceway.pipeline.model.budget import TTL_S, Budget


def _taken(budget: Budget, now: float, tries: int = 1000) -> int:
    return sum(budget.withdraw(now) for _ in range(tries))


def test_a_share_of_successes_and_the_reserve_can_be_repeated() -> None:
    """A hundred successes at 20 % are twenty repetitions; the reserve comes on top."""
    budget = Budget(0.2, 1.0)
    for n in range(100):
        budget.deposit(100 + n / 100)

    assert round(budget.balance(100.99), 6) == 21.0
    assert _taken(budget, 100.99) == 21


def test_without_any_success_there_is_one_a_second() -> None:
    """The reserve refills with time, and is never saved up."""
    budget = Budget(0.2, 1.0)

    assert [_taken(budget, now) for now in (0.0, 0.5, 1.0, 1.5, 60.0)] == [1, 0, 1, 0, 1]


def test_a_success_is_forgotten_after_the_ttl() -> None:
    """What succeeded yesterday does not pay for today's storm."""
    for age, left in ((TTL_S - 1, 2), (TTL_S + 1, 0), (1e9, 0)):
        budget = Budget(0.2, 0.0)
        for _ in range(10):
            budget.deposit(1000.0)

        assert _taken(budget, 1000.0 + age) == left


def test_nothing_is_nothing() -> None:
    """A share of zero and no reserve allow no repetition at all."""
    budget = Budget(0.0, 0.0)
    budget.deposit(1.0)

    assert not budget.withdraw(1.0)


def test_the_oldest_tokens_go_first() -> None:
    """A token that is about to expire is used before a fresh one."""
    budget = Budget(0.5, 0.0)
    for now in (10.0, 10.0, 15.0, 15.0):
        budget.deposit(now)

    assert budget.withdraw(15.0)
    assert _taken(budget, 10.0 + TTL_S + 1) == 1


@given(
    share=st.sampled_from([0.0, 0.1, 0.2, 0.5, 1.0]),
    reserve=st.sampled_from([0.0, 0.5, 1.0, 3.0]),
    events=st.lists(st.tuples(st.floats(0, 5), st.booleans()), max_size=300),
)
def test_repetitions_never_exceed_the_law(share: float, reserve: float, events: list[tuple[float, bool]]) -> None:
    """In every stretch: at most share x successes in it and the ttl before it, plus reserve x time, plus the burst."""
    budget, now = Budget(share, reserve), 0.0
    successes: list[float] = []
    repeated: list[float] = []
    burst = max(1.0, reserve) if reserve else 0.0
    for pause, succeeds in events:
        now += pause
        if succeeds:
            budget.deposit(now)
            successes.append(now)
        elif budget.withdraw(now):
            repeated.append(now)
        for start in (0.0, *repeated[-3:]):
            stretch = sum(1 for at in repeated if at >= start)
            earned = sum(1 for at in successes if at > start - TTL_S - 1)
            assert stretch <= share * earned + reserve * (now - start) + burst + 1e-6
