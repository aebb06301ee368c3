"""What a figure is that a case expects, and what may have been meant by one that there is not."""

from __future__ import annotations

import pytest

from sluiceway.pipeline.model.figures import Figure
from sluiceway.pipeline.testing.cases.checks import ABSENT, figure

SNAPSHOT = (
    Figure("calls_total", 2.0, "counter", "Calls.", {"end": "served", "sink": "a"}),
    Figure("calls_total", 3.0, "counter", "Calls.", {"end": "served", "sink": "b"}),
)


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [
        ("calls_total", 5.0, ""),
        ('sluiceway_calls_total{sink="b"}', 3.0, ""),
        (
            'calls_total{sink="c"}',
            ABSENT,
            'there is calls_total{end="served",sink="a"}, calls_total{end="served",sink="b"}',
        ),
        ("calls_totl", ABSENT, "did you mean calls_total?"),
        ("calls total", ABSENT, 'write name, or name{label="value"}'),
    ],
)
def test_a_figure_is_the_sum_of_its_samples_or_what_there_is_is_told(name: str, value: object, hint: str) -> None:
    """By name, and by the labels that are given."""
    assert figure(name, SNAPSHOT) == (value, hint)
