"""What a run of the Autobahn cases is judged by."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

RUN = runpy.run_path(str(Path(__file__).with_name("run.py")))


def verdict(behavior: str, close: str = "OK") -> dict[str, Any]:
    """What the suite says of one case."""
    return {"behavior": behavior, "close": close, "result": "r", "close_result": "c", "code": 1000}


@pytest.mark.parametrize(
    ("case", "said", "wrong"),
    [
        ("1.1.1", verdict("OK"), []),
        ("1.1.1", verdict("NON-STRICT"), ["1.1.1: NON-STRICT: r"]),
        ("1.1.1", verdict("OK", "UNCLEAN"), ["1.1.1: closing UNCLEAN (1000): c"]),
        ("4.2.3", verdict("NON-STRICT"), []),
        ("4.2.3", verdict("FAILED"), ["4.2.3: FAILED: r"]),
        ("4.2.3", verdict("NON-STRICT", "NON-STRICT"), ["4.2.3: closing NON-STRICT (1000): c"]),
        ("7.13.1", verdict("INFORMATIONAL", "INFORMATIONAL"), []),
        ("7.13.1", verdict("BROKEN"), ["7.13.1: BROKEN: r"]),
    ],
)
def test_only_listed_cases_may_differ_and_only_as_listed(case: str, said: dict[str, Any], wrong: list[str]) -> None:
    """In what they do and in how they close."""
    assert wrong == RUN["judge"]({case: said}, {case})


def test_a_case_that_did_not_run_is_a_failure() -> None:
    """Nothing is left out unnoticed."""
    assert ["9.1.1: it did not run to its end"] == RUN["judge"]({}, {"9.1.1"})
