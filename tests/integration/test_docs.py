"""The hand-written pages say what the code says."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from sluiceway.pipeline.protocol.errors import CODE_TABLES, GatewayError

ROOT = Path(__file__).resolve().parents[2]
DOCS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)(?:#([^)\s]+))?\)")


def _concrete(cls: type[GatewayError] = GatewayError) -> Iterator[type[GatewayError]]:
    for sub in cls.__subclasses__():
        if sub.reason and sub.__module__.startswith("sluiceway."):
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
