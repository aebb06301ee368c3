"""The window of samples, against a sorted list."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from sluiceway.middlewares.latencies import Latencies


@given(
    size=st.integers(1, 20),
    samples=st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.5, 1.0, 9.0]), min_size=1, max_size=60),
    share=st.floats(0.001, 1.0),
)
def test_a_quantile_is_that_of_the_latest_samples(size: int, samples: list[float], share: float) -> None:
    """At least this share of them is not longer, and none that is shorter has as many below it."""
    latencies = Latencies(size)
    for sample in samples:
        latencies.add(sample)
    kept = sorted(samples[-size:])

    assert len(latencies) == len(kept)
    assert latencies.quantile(share) == kept[max(0, math.ceil(share * len(kept)) - 1)]


def test_the_extremes_are_the_least_and_the_greatest() -> None:
    """Nearly nothing, and everything."""
    latencies = Latencies(100)
    for n in range(1, 101):
        latencies.add(float(n))

    assert [latencies.quantile(share) for share in (0.001, 0.5, 0.95, 1.0)] == [1.0, 50.0, 95.0, 100.0]
