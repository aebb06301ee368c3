"""Every test of the suite runs under the leak oracle."""

import pytest

from sluiceway.pipeline.testing.leaks import LeakOracle, run_clean


@pytest.fixture(autouse=True)
def _leaves_nothing(leak_oracle: LeakOracle) -> None:
    """No child, descriptor, thread or watched entry may be left after a test."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """No task and no timer may be left in the Trio run of a test either. (Comes after pytest-trio's own markers.)"""
    for item in items:
        if item.get_closest_marker("trio") is not None:
            item.add_marker(pytest.mark.trio(run=run_clean), append=False)
