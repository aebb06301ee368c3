"""The least of a list that still does what the whole list does."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sluiceway.pipeline.replay.reducing import least


@given(st.integers(1, 60), st.sets(st.integers(0, 59), max_size=5))
def test_what_it_takes_is_left_and_nothing_else(size: int, needed: set[int]) -> None:
    """Whatever it takes, and wherever that stands."""
    items = list(range(size))
    wanted = needed & set(items)

    assert sorted(wanted) == least(items, lambda some: wanted <= set(some))


@given(st.integers(0, 40), st.integers(1, 7))
def test_no_single_item_can_go_of_what_is_left(size: int, modulus: int) -> None:
    """Also where less is not always less."""

    def holds(some: list[int]) -> bool:
        return sum(some) % modulus == sum(range(size)) % modulus

    left = least(range(size), holds)

    assert holds(left)
    assert not any(holds(left[:at] + left[at + 1 :]) for at in range(len(left)))


def test_few_questions_are_asked_where_little_matters() -> None:
    """Two of a thousand are found in much less than a thousand squared."""
    asked = 0

    def holds(some: list[int]) -> bool:
        nonlocal asked
        asked += 1
        return {17, 918} <= set(some)

    assert [17, 918] == least(range(1000), holds)
    assert asked < 100
