"""Goal R1 in small: `python bench/fuzz.py --connections 1000000` is the whole of it."""

import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).resolve().parents[2] / "bench" / "fuzz.py"


@pytest.mark.timeout(200)
def test_no_input_ends_a_worker_or_stays_with_it() -> None:
    """Connections with rubbish and almost-requests: the worker answers, and holds nothing when they have gone."""
    outcome = subprocess.run(
        [sys.executable, str(FUZZ), "--connections", "2500", "--seed", "7"], capture_output=True, text=True, timeout=190
    )

    assert "the worker lives, and nothing is left" in outcome.stdout, outcome.stdout + outcome.stderr
    assert outcome.returncode == 0
