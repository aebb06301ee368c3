"""The official conformance suite through the gateway, in front of its own server and one of the official SDK."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.conformance
@pytest.mark.timeout(600)
@pytest.mark.parametrize("legs", ["embedded*", "stdio*", "http*", "suite*", "legacy-*", "modern-*"])
def test_the_official_suite_passes_in_both_eras(legs: str) -> None:
    """Every scored scenario of 2025-11-25 and 2026-07-28 passes, and every check comes out as it does directly."""
    script = Path(__file__).with_name("run.py")
    done = subprocess.run([sys.executable, str(script), "--leg", legs], capture_output=True, text=True, check=False)

    assert 0 == done.returncode, done.stdout + done.stderr
