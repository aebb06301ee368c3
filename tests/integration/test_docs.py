"""The hand-written pages say what the code says."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from sluiceway.pipeline.cli.markdown import configurations
from sluiceway.pipeline.config import check_text
from sluiceway.pipeline.config.describe import reference
from sluiceway.pipeline.protocol.errors import CODE_TABLES, GatewayError
from sluiceway.pipeline.testing import MUSTS

ROOT = Path(__file__).resolve().parents[2]
DOCS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
TUTORIAL = "tutorial-middleware.md"
"""Its files and configurations are its own; `test_tutorial.py` makes and runs them."""
REFERRING = [page for page in DOCS if page.name != TUTORIAL]
FOLDERS = ("pipeline", "middlewares", "transports", "tests", "configs", "bench")
LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)(?:#([^)\s]+))?\)")


def _concrete(cls: type[GatewayError] = GatewayError) -> Iterator[type[GatewayError]]:
    for sub in cls.__subclasses__():
        if sub.reason and sub.__module__.startswith("sluiceway.pipeline."):  # a subclass of a stage keeps its reason
            yield sub
        yield from _concrete(sub)


def _row(cls: type[GatewayError]) -> str:
    spec, legacy = (CODE_TABLES[table][cls.reason] for table in ("spec", "legacy"))
    meaning = (inspect.getdoc(cls) or "").split("\n\n")[0].replace("\n", " ")
    repeatable = "yes" if cls.retryable else "no"
    return f"| `{cls.reason}` | {cls.http_status} | {spec} | {legacy} | {cls.blame} | {repeatable} | {meaning} |"


def test_the_error_table_is_the_code_table():
    """docs/errors.md has one row for every error the gateway can raise, and no other."""
    expected = sorted(_row(cls) for cls in set(_concrete()))
    written = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")

    assert sorted(line for line in written.splitlines() if line.startswith("| `")) == expected


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    """Relative links in the pages name files that are there."""
    text = page.read_text(encoding="utf-8")

    assert [target for target, _ in LINK.findall(text) if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", REFERRING, ids=lambda page: page.name)
def test_every_configuration_in_a_page_is_sound(page):
    """A reader can copy any of them."""
    blocks = [block.text for block in configurations(page.read_text(encoding="utf-8"))]
    problems = [problem for block in blocks for problem in check_text(block, base=page.parent, env={}).problems]

    assert [str(problem) for problem in problems] == []


@pytest.mark.parametrize("page", REFERRING, ids=lambda page: page.name)
def test_every_module_that_a_page_names_is_there(page):
    """Prose that names a file names one of ours, or says which project's it is."""
    ours = {str(path.relative_to(ROOT)) for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")}
    named = re.findall(r"`((?:[a-z_]+/)*[a-z_]+\.py)`", page.read_text(encoding="utf-8"))

    assert [name for name in named if not any(f"/{path}".endswith(f"/{name}") for path in ours)] == []


def test_every_test_of_the_table_of_cases_is_there():
    """A case whose test was renamed or removed has none."""
    page = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if re.match(r"\| \d+ \|", line)]
    named = [name.partition("::") for row in rows for name in re.findall(r"`([\w/]+\.py(?:::\w+)?)`", row)]
    sources = {path: (ROOT / "tests" / path) for path, _, _ in named}

    assert len(rows) >= 15
    assert all(re.search(r"`[\w/]+\.py", row) for row in rows)
    missing = [
        f"{path}::{test}"
        for path, _, test in named
        if not sources[path].is_file() or f"def {test}" not in sources[path].read_text(encoding="utf-8")
    ]
    assert missing == []


def test_the_rules_for_stage_authors_are_those_that_the_checkers_assert():
    """Every MUST has its id and the checkers' own words, and no id is made up."""
    page = " ".join((ROOT / "docs" / "stage-authors.md").read_text(encoding="utf-8").split())
    written = dict(re.findall(r"- \*\*(M-[A-Z-]+)\*\* (.+?)(?= - | ## |$)", page))

    assert written == {must.id: must.text for must in MUSTS.values()}


def test_no_rule_for_stage_authors_says_must_without_an_id():
    """What no checker asserts is a SHOULD."""
    page = (ROOT / "docs" / "stage-authors.md").read_text(encoding="utf-8")
    rules = re.findall(r"(?ms)^- (.+?)(?=^- |^#|\Z)", page)

    assert [rule for rule in rules if "MUST" in rule and not rule.startswith("**M-")] == []


def test_the_reference_is_the_generated_one():
    """docs/reference.md says what the declarations say; `make docs` writes it."""
    assert (ROOT / "docs" / "reference.md").read_text(encoding="utf-8") == reference()
