"""The official conformance suite against the embedded fixture, through the gateway."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.conformance
@pytest.mark.timeout(600)
@pytest.mark.parametrize("server", ["run", "hypercorn"])
def test_the_official_suite_passes_in_both_eras(server: str) -> None:
    """Every scored scenario of 2025-11-25 and 2026-07-28 passes, with a plain chain and with every stage on."""
    script = Path(__file__).with_name("run.py")
    done = subprocess.run(
        [sys.executable, str(script), "--server", server], capture_output=True, text=True, check=False
    )

    assert 0 == done.returncode, done.stdout + done.stderr
