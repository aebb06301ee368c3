"""Suites as text, run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sluiceway.pipeline.testing.cases.coverage import Coverage
from sluiceway.pipeline.testing.cases.report import SuiteResult
from sluiceway.pipeline.testing.cases.running import prepared, run_case

GATEWAY = """\
version: 1
sources: {local: {http: {bind: "127.0.0.1:8080"}}}
stores: {kept: {sqlite: {path: /nowhere/at/all.db}}}
pipelines:
  main:
    timeout: 30s
    chain: [request_id]
    sink: files
sinks:
  files: {http: {url: "http://127.0.0.1:1/mcp"}}
"""

Run = Callable[..., SuiteResult]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run tests, given as what stands under `tests:`; of a configuration given as text, or the simplest."""
    monkeypatch.chdir(tmp_path)

    def run_tests(tests: str, gateway: str = GATEWAY, coverage: list[Coverage] | None = None) -> SuiteResult:
        Path("gateway.yaml").write_text(gateway, encoding="utf-8")
        path = Path("gateway_test.yaml")
        path.write_text(f"tests:\n{tests}", encoding="utf-8")
        with prepared(path) as suite:
            if suite.document is None:
                return SuiteResult(str(path), problems=suite.problems)
            seen = Coverage(suite.document)
            if coverage is not None:
                coverage.append(seen)
            return SuiteResult(str(path), [run_case(each, suite.document, seen) for each in suite.tests])

    return run_tests
