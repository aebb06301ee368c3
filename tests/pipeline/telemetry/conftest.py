"""What several tests of telemetry have in common."""

from __future__ import annotations

import time

import pytest


class Now:
    """A date that tests move; near the real one, which files have."""

    at = float(int(time.time()))

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def now() -> Now:
    """The date."""
    return Now()
