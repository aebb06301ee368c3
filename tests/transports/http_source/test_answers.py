"""Complete responses."""

from __future__ import annotations

import pytest

from sluiceway.pipeline.protocol.errors import CapacityExceeded
from sluiceway.transports.http_source.answers import error_answer


@pytest.mark.parametrize(("seconds", "said"), [(0.0, "1"), (0.2, "1"), (1.0, "1"), (1.2, "2"), (2.5, "3"), (4.5, "5")])
def test_who_is_told_to_wait_is_never_told_too_little(seconds: float, said: str) -> None:
    """`Retry-After` has whole seconds (RFC 9110 section 10.2.3): those in which the wait is over, and at least one."""
    answer = error_answer(CapacityExceeded("full", retry_after_s=seconds))

    assert (503, said) == (answer.status, answer.headers["retry-after"])
