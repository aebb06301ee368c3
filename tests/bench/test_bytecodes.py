"""What a call through a gateway costs, counted: bytecodes are the same on a busy machine."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"
MODULES = ("bytecodes", "steady", "idle", "figures", "gateways", "load", "setup", "stdio_server")
SPREAD = 0.02
"""By how much two counts of the same calls may differ."""


@pytest.fixture
def bytecodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Gives the bench; nothing of it stays loaded."""
    monkeypatch.syspath_prepend(str(BENCH))
    yield importlib.import_module("bytecodes")
    for name in MODULES:
        sys.modules.pop(name, None)
    sys.path[:] = [place for place in sys.path if not place.startswith(str(BENCH))]


@pytest.mark.parametrize("case", ["full-modern", "full-legacy", "bare-modern", "stdio-modern"])
def test_a_call_costs_no_more_bytecodes_than_it_may(case: str, bytecodes: Any) -> None:
    """Alone, and as one of sixteen; who adds to the path of every call sees it here, and not a year later."""
    if sys.version_info[:2] != bytecodes.PYTHON:
        pytest.skip("the bounds are of the bytecodes of another version")

    with bytecodes.counting(case) as count:
        alone, among_sixteen = (count(connections).bytecodes for connections in bytecodes.CONNECTIONS)

    most_alone, most_among_sixteen = bytecodes.BOUNDS[case]
    assert alone <= most_alone
    assert among_sixteen <= most_among_sixteen


def test_the_same_calls_count_the_same(bytecodes: Any) -> None:
    """A count that moved by itself would be no bound; and it is of the gateway, all of whose parts have their share."""
    with bytecodes.counting("full-modern") as count:
        first, second = count(1, 100), count(1, 100)

    assert abs(first.bytecodes - second.bytecodes) < SPREAD * first.bytecodes
    assert {"protocol", "stages", "pipeline", "http in", "http out", "sockets and pipes"} < set(first.by_room())
