"""Every configuration that ships does what the tests beside it say, and those are tests as editors know them."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema_rs
import pytest
import yaml

from sluiceway.pipeline.config.schema import suite_schema
from sluiceway.pipeline.config.suites import suite_beside
from sluiceway.pipeline.testing.cases.coverage import Coverage
from sluiceway.pipeline.testing.cases.report import render_failure
from sluiceway.pipeline.testing.cases.running import prepared, run_case

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
WHOLE = [path for path in sorted(CONFIGS.glob("*.yaml")) if "\nversion: 1\n" in path.read_text(encoding="utf-8")]
SUITES = sorted(CONFIGS.glob("*_test.yaml"))


def _name(path: Path) -> str:
    return path.name


@pytest.mark.parametrize("path", WHOLE, ids=_name)
def test_every_configuration_has_tests(path):
    """They are beside it."""
    assert suite_beside(path) in SUITES


@pytest.mark.parametrize("path", SUITES, ids=_name)
def test_a_configuration_does_what_its_tests_say(path, monkeypatch):
    """All of them pass, and touch nearly all there is."""
    monkeypatch.chdir(CONFIGS.parent)
    with prepared(path) as suite:
        assert [str(problem) for problem in suite.problems] == []
        assert suite.document is not None
        coverage = Coverage(suite.document)
        failed = [
            render_failure(o) for each in suite.tests if not (o := run_case(each, suite.document, coverage)).passed
        ]

    assert "\n".join(failed) == ""
    assert coverage.share >= 0.75


@pytest.mark.parametrize("path", SUITES, ids=_name)
def test_its_tests_fit_the_schema_of_editors(path):
    """What an editor says is wrong would be wrong, and these are right."""
    text = path.read_text(encoding="utf-8")
    validator = jsonschema_rs.Draft202012Validator(suite_schema())

    assert text.startswith("# yaml-language-server: $schema=./sluiceway_test.schema.json\n# ")
    assert [str(error) for error in validator.iter_errors(yaml.safe_load(text))] == []


def test_the_schema_of_tests_is_the_generated_one():
    """configs/sluiceway_test.schema.json says what the declarations say; `make docs` writes it."""
    written = json.loads((CONFIGS / "sluiceway_test.schema.json").read_text(encoding="utf-8"))

    assert written == suite_schema()
