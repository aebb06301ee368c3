"""What several workers cannot share, and what each has for itself."""

from __future__ import annotations

import pytest

from sluiceway.pipeline.config import check_text

GATEWAY = """
version: 1
stores: {file: {sqlite: {path: ./state.db}}, here: {memory: {}}}
sources: {web: {http: {bind: "127.0.0.1:8080"}}}
pipelines: {main: {chain: [%s], sink: demo}}
sinks: {demo: {embedded: {}}}
run: {workers: %s}
"""


def found(chain: str, workers: object = 2) -> list[str]:
    """What is said about workers."""
    problems = check_text(GATEWAY % (chain, workers)).problems
    return [f"{p.level} {p.span.line}: {p.message}; {p.reason}" for p in problems if p.rule.startswith("workers/")]


@pytest.mark.parametrize(
    ("chain", "said"),
    [
        ("rate_limit: {rate: 5/s}", "warning 5: 'rate_limit' keeps its state in memory"),
        ("rate_limit: {rate: 5/s, store: here}", "warning 5: 'rate_limit' keeps its state in store 'here'"),
        ("dedup", "warning 5: 'dedup' keeps its state in memory"),
        ("cache: {stores: [here]}", "info 5: 'cache' keeps its state in store 'here'"),
        ("concurrency_limit: {max_in_flight: 5}", "info 5: 'concurrency_limit' keeps its state in memory"),
    ],
)
def test_state_that_each_worker_has_for_itself_is_said(chain: str, said: str) -> None:
    """Once for each stage, with what follows from it; and not where there is one process."""
    assert [each.partition(", of which")[0] for each in found(chain)] == [said]
    assert all(each.partition("; ")[2] for each in found(chain))
    assert found(chain, "auto") == found(chain)
    assert found(chain, 1) == []


@pytest.mark.parametrize(
    "chain", ["request_id", "rate_limit: {rate: 5/s, store: file}", "dedup: {store: file, enabled: false}"]
)
def test_what_is_shared_or_kept_nowhere_or_off_is_not(chain: str) -> None:
    """A file that all workers open is one state."""
    assert found(chain) == []


def test_a_source_that_serves_one_process_is_an_error() -> None:
    """There is one standard input."""
    text = GATEWAY.replace('http: {bind: "127.0.0.1:8080"}', "stdio: {}")

    problems = [p for p in check_text(text % ("", 2)).problems if p.rule == "workers/source"]

    assert [(p.level, p.message) for p in problems] == [("error", "source web (stdio) serves one process")]
    assert [p for p in check_text(text % ("", 1)).problems if p.rule == "workers/source"] == []
