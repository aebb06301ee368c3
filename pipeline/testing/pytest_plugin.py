"""
Fixtures of the test kit, for every project that has Sluiceway installed.

Imports nothing of ours at module level: pytest loads its plugins before coverage starts, and what is imported by then
is never measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .fakes import FakeSink
    from .harness import PipelineHarness
    from .leaks import LeakOracle


@pytest.fixture
def leak_oracle(request: pytest.FixtureRequest) -> Iterator[LeakOracle]:
    """
    Fails the test at its end if it left a child process, descriptor, thread, or entry of a watched table behind.

    Fixtures that are set up after this one are torn down before it looks. A test that failed is not looked at: its
    traceback keeps things alive.
    """
    from .leaks import LeakOracle

    failed_before = request.session.testsfailed
    oracle = LeakOracle()
    yield oracle
    if request.session.testsfailed == failed_before:
        oracle.check()


@pytest.fixture
def gateway_harness() -> type[PipelineHarness]:
    """
    `PipelineHarness`: `async with gateway_harness.from_yaml("gateway.yaml", sinks={...}) as gateway:`.

    A test in which time passes asks for `autojump_clock` too; pytest-trio takes clocks from the test's own arguments.
    """
    from .harness import PipelineHarness

    return PipelineHarness


@pytest.fixture
def fake_sink() -> FakeSink:
    """A fresh `FakeSink` that holds its requests until the test answers them."""
    from .fakes import FakeSink

    return FakeSink()
