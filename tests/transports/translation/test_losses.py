"""What is said about losses is what is written down about them."""

from __future__ import annotations

from pathlib import Path

import pytest

from sluiceway.pipeline.config import from_data
from sluiceway.pipeline.config.explain import explain
from sluiceway.pipeline.protocol.mcp import Era
from sluiceway.transports.translation.losses import TABLE, losses, remarks

PAGE = Path(__file__).resolve().parents[3] / "docs" / "eras.md"


def test_the_page_has_every_row_and_no_other():
    """docs/eras.md says what the table says, in its order."""
    text = PAGE.read_text(encoding="utf-8")
    legacy, modern = text.split("## Modern clients at a legacy upstream")
    for era, part in ((Era.LEGACY, legacy), (Era.MODERN, modern)):
        rows = [
            line for line in part.splitlines() if line.startswith("| ") and not line.startswith(("| part", "| ---"))
        ]
        kept = sorted(TABLE[era], key=lambda row: row.lost)
        assert rows == [f"| {row.what} | {row.becomes} |" for row in kept]


@pytest.mark.parametrize("era", list(Era))
def test_losses_are_one_line_each(era):
    """For people, without markup."""
    lines = list(losses(era))

    assert len(lines) == sum(row.lost for row in TABLE[era])
    assert not any("`" in line or "\n" in line for line in lines)


@pytest.mark.parametrize(
    ("era", "translate", "first"),
    [
        ("legacy", True, ["modern clients are served by translating here; what they lose:"]),
        ("modern", True, ["legacy clients are served by translating here; what they lose:"]),
        ("modern", False, ["legacy clients are refused here, with an error that says so"]),
        (
            "auto",
            True,
            [
                f"{client} clients are served by translating if the upstream speaks {other} revisions only; "
                "what they lose:"
                for client, other in (("legacy", "modern"), ("modern", "legacy"))
            ],
        ),
    ],
)
def test_remarks_are_about_those_whose_era_may_be_missing(era, translate, first):
    """A sink that knows what its upstream speaks has nothing to say about the others."""
    assert [line for line in remarks(era, translate) if not line.startswith("  ")] == first


@pytest.mark.parametrize(
    "sink",
    [
        {"http": {"url": "http://up.example/mcp", "era": "modern"}},
        {"stdio": {"command": ["server"], "era": "modern"}},
        {"websocket": {"url": "ws://up.example/mcp", "era": "modern"}},
        {"sse": {"url": "http://up.example/sse"}},
        {"embedded": {}},
    ],
)
def test_explain_says_what_is_lost(sink):
    """At the sink whose upstream it is; a server in the gateway has both eras."""
    document = from_data({
        "version": 1,
        "sources": {"s": {"stdio": {}}},
        "pipelines": {"main": {"sink": "up"}},
        "sinks": {"up": sink},
    })  # fmt: skip
    text = explain(document, "sinks.up")
    client = Era.MODERN if "sse" in sink else Era.LEGACY

    assert all(f"    {line}\n" in text for line in losses(client)) is ("embedded" not in sink)
    assert f"{client} clients are served by translating here" in text or "embedded" in sink
