"""Connect, call, vanish: minutes of it here; `python bench/soak.py --seconds 3600` is the hour."""

import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).resolve().parents[2] / "bench" / "soak.py"


@pytest.mark.timeout(400)
def test_visitors_who_vanish_leave_nothing() -> None:
    """Descriptors, children, threads and memory of a gateway are the same after some rounds and after more of them."""
    outcome = subprocess.run(
        [sys.executable, str(SOAK), "--visits", "1500"], capture_output=True, text=True, timeout=380
    )

    assert outcome.stdout.endswith("nothing is left\n"), outcome.stdout + outcome.stderr
    assert outcome.returncode == 0
