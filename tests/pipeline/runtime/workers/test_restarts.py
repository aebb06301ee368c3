"""How long to wait for the next worker, and when to give up."""

from __future__ import annotations

import random

from sluiceway.pipeline.runtime.workers.restarts import MAX_DEATHS, PAUSE_S, WINDOW_S, Restarts


def test_pauses_double_up_to_the_longest_and_end_with_giving_up() -> None:
    """The first is replaced at once; jitter halves a pause at most."""
    restarts = Restarts(random.Random(1))

    pauses = [restarts.note_death(float(number)) for number in range(MAX_DEATHS + 1)]

    assert pauses[0] == 0.0
    assert pauses[-1] is None
    for number, pause in enumerate(pauses[1:-1]):
        full = min(PAUSE_S[1], PAUSE_S[0] * 2.0**number)
        assert pause is not None
        assert full / 2 <= pause <= full
    assert restarts.total == MAX_DEATHS + 1


def test_deaths_are_forgotten() -> None:
    """One now and then is no pattern."""
    restarts = Restarts(random.Random(1))

    assert [restarts.note_death(number * (WINDOW_S + 1)) for number in range(3 * MAX_DEATHS)] == [0.0] * 3 * MAX_DEATHS
