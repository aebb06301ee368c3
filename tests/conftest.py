"""Every test of the suite runs under the leak oracle."""

import logging
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import HealthCheck, settings

from sluiceway.pipeline.testing.leaks import LeakOracle, run_clean

settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")  # a law says nothing of how fast a busy machine is


@pytest.fixture(autouse=True)
def _leaves_nothing(leak_oracle: LeakOracle) -> None:
    """No child, descriptor, thread or watched entry may be left after a test."""


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    """What one test decided about logs must not be written into the output of the next one."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.fixture(autouse=True)
def _standard_streams_are_the_test_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A `stdio` source that served in this process would take descriptors 0 and 1 away from pytest."""

    def refuse() -> None:
        raise AssertionError("a stdio source must not serve in the process of the tests; put a FakeSource in its place")

    monkeypatch.setattr("sluiceway.transports.stdio_source.standard_streams", refuse)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """No task and no timer may be left in the Trio run of a test either. (Comes after pytest-trio's own markers.)"""
    for item in items:
        if item.get_closest_marker("trio") is not None:
            item.add_marker(pytest.mark.trio(run=run_clean), append=False)
