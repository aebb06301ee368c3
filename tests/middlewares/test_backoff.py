"""The series of delays: the presets, exactly, and what jitter and cap do to them."""

from __future__ import annotations

import random

import pytest

from sluiceway.middlewares.backoff import PRESETS, Backoff


@pytest.mark.parametrize(
    ("preset", "attempts", "delays"),
    [
        ("seed-turbomcp", 4, [0.1, 0.2, 0.4]),
        ("seed-2025", 4, [1.0, 2.0, 4.0]),
    ],
)
def test_the_presets_give_the_series_they_are_named_after(preset: str, attempts: int, delays: list[float]) -> None:
    """100, 200, 400 ms without a cap; 1, 2, 4 s below a cap of 10 s."""
    backoff, rng = PRESETS[preset], random.Random(0)

    assert backoff.max_attempts == attempts
    assert [backoff.delay_s(n, rng) for n in range(1, attempts)] == delays


def test_the_cap_of_the_second_series_holds_and_the_first_has_none() -> None:
    """10 s for ever, and doubling for ever."""
    rng = random.Random(0)

    assert [PRESETS["seed-2025"].delay_s(n, rng) for n in (4, 5, 9)] == [8.0, 10.0, 10.0]
    assert PRESETS["seed-turbomcp"].delay_s(11, rng) == 102.4


def test_full_jitter_is_anything_up_to_the_delay() -> None:
    """10,000 samples lie between nothing and everything, half of it on average."""
    backoff, rng = Backoff(3, 1.0, 2.0, 10.0, "full"), random.Random(1)
    samples = [backoff.delay_s(1, rng) for _ in range(10_000)]

    assert 0.0 <= min(samples) < 0.01
    assert 0.99 < max(samples) <= 1.0
    assert abs(sum(samples) / 10_000 - 0.5) < 0.01


def test_slight_jitter_is_fifteen_percent_to_both_sides() -> None:
    """10,000 samples within 0.85 and 1.15, 1.0 on average."""
    backoff, rng = Backoff(3, 1.0, 2.0, 10.0, "slight"), random.Random(1)
    samples = [backoff.delay_s(1, rng) for _ in range(10_000)]

    assert 0.85 <= min(samples) < 0.86
    assert 1.14 < max(samples) <= 1.15
    assert abs(sum(samples) / 10_000 - 1.0) < 0.005


def test_the_cap_holds_after_the_jitter() -> None:
    """No wait is longer than the longest."""
    backoff, rng = Backoff(5, 1.0, 2.0, 1.0, "slight"), random.Random(1)

    assert max(backoff.delay_s(n, rng) for n in range(1, 5) for _ in range(1000)) == 1.0
