"""Back-off, the intensity limit and quarantine, as arithmetic."""

import random
from itertools import pairwise

import pytest

from sluiceway.transports.restarts import RestartConfig, Restarts


class Longest(random.Random):
    """No luck with jitter."""

    def uniform(self, a: float, b: float) -> float:
        """The longest pause there is."""
        return b


def record(*, rng: random.Random | None = None, **config: float) -> Restarts:
    """An empty record."""
    return Restarts(RestartConfig(**config), rng or Longest())


def test_a_first_start_does_not_wait():
    """Nothing has died yet."""
    restarts = record()

    assert (restarts.wait_s(0.0), restarts.is_quarantined(0.0)) == (0.0, False)


def test_pauses_double_up_to_a_minute():
    """1, 2, 4 .. 60 s, each death following its start at once."""
    restarts = record(max=100)
    now, pauses = 0.0, []
    for _ in range(9):
        restarts.died(now, 0.0)
        pauses.append(restarts.wait_s(now))
        now += pauses[-1]

    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_jitter_is_full_and_seeded():
    """Anything from nothing to the whole pause, the same again with the same seed."""

    def pauses(seed: int) -> list[float]:
        rng = random.Random(seed)
        found = []
        for _ in range(200):
            restarts = record(rng=rng)
            restarts.died(0.0, 0.0)
            found.append(restarts.wait_s(0.0))
        return found

    assert pauses(1) == pauses(1)
    assert min(pauses(1)) < 0.05
    assert max(pauses(1)) > 0.95
    assert any(a > b for a, b in pairwise(pauses(1)))


def test_too_many_deaths_in_the_period_are_a_quarantine():
    """The fifth of five."""
    restarts = record(max=5, within=60.0, quarantine=30.0, rng=random.Random(1))
    for second in range(4):
        restarts.died(second, 0.0)

    assert (restarts.recent, restarts.is_quarantined(3.0)) == (4, False)

    restarts.died(4.0, 0.0)

    assert restarts.is_quarantined(4.0)
    assert restarts.wait_s(4.0) == 30.0
    assert not restarts.is_quarantined(34.0)


def test_deaths_before_the_period_do_not_count():
    """Four in one minute and one in the next are no loop."""
    restarts = record(max=5, within=60.0)
    for second in (0, 1, 2, 3, 60, 62):
        restarts.died(second, 0.0)

    assert not restarts.is_quarantined(62.0)
    assert restarts.recent == 3


def test_one_death_after_a_quarantine_is_another():
    """On probation there are no five tries."""
    restarts = record(max=2, quarantine=60.0)
    restarts.died(0.0, 0.0)
    restarts.died(1.0, 0.0)
    restarts.died(70.0, 9.0)

    assert restarts.is_quarantined(70.0)
    assert restarts.wait_s(70.0) == 60.0


def test_a_death_during_the_quarantine_does_not_prolong_it():
    """It is one of a server that had been started before."""
    restarts = record(max=1, quarantine=60.0)
    restarts.died(0.0, 0.0)
    restarts.died(50.0, 50.0)

    assert restarts.not_before == 60.0


@pytest.mark.parametrize(("lived_s", "pause_s", "quarantined"), [(59.9, 60.0, True), (60.0, 1.0, False)])
def test_a_minute_of_health_clears_the_record(lived_s, pause_s, quarantined):
    """Both the length of the pause and the probation."""
    restarts = record(max=2, quarantine=60.0)
    restarts.died(0.0, 0.0)
    restarts.died(1.0, 0.0)
    restarts.died(200.0, lived_s)

    assert (restarts.wait_s(200.0), restarts.is_quarantined(200.0)) == (pause_s, quarantined)
