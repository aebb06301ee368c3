"""A table with a bound."""

from __future__ import annotations

from sluiceway.pipeline.model.remembered import Remembered


def test_what_was_kept_longest_ago_falls_out() -> None:
    """Looking at something does not keep it; keeping it again does."""
    table = Remembered[str, int](2)
    table.keep("a", 1)
    table.keep("b", 2)
    table.keep("a", 3)

    table.keep("c", 4)

    assert list(table.items()) == [("a", 3), ("c", 4)]


def test_an_entry_kept_again_takes_no_second_place() -> None:
    """Nothing falls out for it."""
    table = Remembered[str, int](2)
    for number in range(5):
        table.keep("a", number)
        table.keep("b", number)

    assert dict(table) == {"a": 4, "b": 4}
