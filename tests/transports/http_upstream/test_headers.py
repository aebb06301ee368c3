"""Header lines of requests to an upstream: made from what goes out, and remembered within bounds."""

from __future__ import annotations

import pytest

from sluiceway.pipeline.model.session import Client
from sluiceway.pipeline.protocol.mcp import LATEST, Era
from sluiceway.pipeline.protocol.messages import Request
from sluiceway.transports.http_upstream import headers
from sluiceway.transports.http_upstream.headers import modern_headers

CLIENT = Client(era=Era.MODERN, version=LATEST, transport="http")


def lines_for(tool: str) -> list[str]:
    """The header lines of a call."""
    return modern_headers(Request(1, "tools/call", {"name": tool}), CLIENT).decode().splitlines()


@pytest.fixture(autouse=True)
def remembered(monkeypatch: pytest.MonkeyPatch) -> dict[object, bytes]:
    """What is remembered: nothing yet."""
    known: dict[object, bytes] = {}
    monkeypatch.setattr(headers, "_known_lines", known)
    return known


def test_lines_say_what_goes_out_each_time():
    """Also when they were sent before."""
    expected = [f"mcp-protocol-version: {LATEST}", "mcp-method: tools/call"]

    for tool in ("echo", "add", "echo"):
        assert lines_for(tool) == [*expected, f"mcp-name: {tool}"]


def test_only_so_many_lines_are_remembered(remembered):
    """Those that were made first make room."""
    for number in range(headers._MAX_KNOWN + 1):
        lines_for(str(number))

    assert len(remembered) == headers._MAX_KNOWN
    assert (LATEST, "tools/call", "0") not in remembered
    assert (LATEST, "tools/call", "1") in remembered


def test_long_lines_are_not_remembered(remembered):
    """Clients choose the names."""
    assert lines_for("x" * 600)[-1] == f"mcp-name: {'x' * 600}"
    assert remembered == {}
