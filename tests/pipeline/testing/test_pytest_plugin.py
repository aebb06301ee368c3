"""The oracle's fixture, seen from the outside: a pytest run of its own."""

import subprocess
import sys

TESTS = """
import os

def test_leaves_a_descriptor_and_passes(leak_oracle):
    os.dup(1)

def test_leaves_a_descriptor_and_fails(leak_oracle):
    os.dup(1)
    assert False, "the reason"

def test_leaves_an_entry(leak_oracle):
    table = {}
    leak_oracle.watch("sessions", table.__len__)
    table["a"] = 1

def test_leaves_nothing(leak_oracle, fake_sink, gateway_harness):
    os.close(os.dup(1))
"""


def test_a_test_that_passes_is_looked_at_and_one_that_fails_is_not(tmp_path):
    """A failing test is reported for its own reason only."""
    (tmp_path / "test_it.py").write_text(TESTS)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-rfE",
        "-p",
        "no:randomly",
        "-p",
        "no:cacheprovider",
        "test_it.py",
    ]

    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert "1 failed, 3 passed, 2 errors" in run.stdout
    assert "FAILED test_it.py::test_leaves_a_descriptor_and_fails" in run.stdout
    assert "ERROR test_it.py::test_leaves_a_descriptor_and_passes" in run.stdout
    assert "sessions: 1 entries, 0 before" in run.stdout
