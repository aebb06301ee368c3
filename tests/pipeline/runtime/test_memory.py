"""The collector of cycles while a gateway runs."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from sluiceway.pipeline.runtime.memory import THRESHOLDS, settle, short_pauses


class Knot:
    """An object that holds itself: only the collector can end it."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def _nothing_stays_aside() -> Iterator[None]:
    """Other tests' garbage is collected as ever."""
    yield
    gc.unfreeze()


def test_what_is_there_is_put_aside() -> None:
    """A pass through everything looks at next to nothing afterwards."""
    kept = [Knot() for _ in range(1_000)]
    settle()

    assert len(kept) == 1_000
    assert gc.get_freeze_count() > 1_000
    assert len(gc.get_objects()) < 1_000


def test_what_is_no_longer_used_goes_before() -> None:
    """Garbage is not put aside for ever."""
    gone = weakref.ref(Knot())
    settle()

    assert gone() is None


def test_what_became_garbage_since_goes_the_next_time() -> None:
    """A former configuration does not stay for as long as the process does."""
    former = Knot()
    gone = weakref.ref(former)
    settle()
    del former
    gc.collect()
    still = gone() is not None
    settle()

    assert still
    assert gone() is None


def test_the_collector_comes_seldom_in_the_block_only() -> None:
    """Also when the block fails, everything is as it was."""
    before, inside = gc.get_threshold(), []

    def fail() -> None:
        settle()
        inside.append(gc.get_threshold())
        raise LookupError

    with pytest.raises(LookupError), short_pauses():
        fail()

    assert inside == [THRESHOLDS]
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0
