"""Delta debugging: the least of a list that still does what the whole list does. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def least(items: Sequence[T], holds: Callable[[list[T]], bool]) -> list[T]:
    """
    Leave out as many items as possible, large pieces first; what is left cannot do without any single one.

    Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input" (2002), with complements only. Asks about
    n log n lists for n items, if few of them matter, and n squared at worst.

    Args:
        items: All of them; it holds for them.
        holds: Whether it holds for some of them, which are in their order.
    """
    left = list(items)
    if left and holds([]):
        return []
    pieces = 2
    while len(left) > 1:
        size = -(-len(left) // pieces)
        for start in range(0, len(left), size):
            rest = left[:start] + left[start + size :]
            if rest and holds(rest):
                left, pieces = rest, max(pieces - 1, 2)
                break
        else:
            if pieces >= len(left):
                break
            pieces = min(2 * pieces, len(left))
    return left
