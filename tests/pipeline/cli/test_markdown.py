"""Configurations inside Markdown."""

import pytest

from sluiceway.pipeline.cli.markdown import Block, configurations


def test_a_block_keeps_its_line_numbers():
    """Whatever stands before it is replaced by empty lines."""
    assert [Block(4, "\n\n\nversion: 1\nx-a: 2\n")] == list(
        configurations("# Title\n\n```yaml\nversion: 1\nx-a: 2\n```\ntext\n")
    )


@pytest.mark.parametrize(
    "markdown",
    [
        "```yaml\nchain: [trace]\n```",
        "```yaml\nrun:\n  version: 1\n```",
        "```json\nversion: 1\n```",
        "```\nversion: 1\n```",
        "version: 1",
        "`````\n```yaml\nversion: 1\n```\n`````",
        "~~~text\n```yaml\nversion: 1\n```\n~~~",
        "``yaml\nversion: 1\n``",
        "```yaml\n```",
    ],
)
def test_what_is_no_whole_configuration_is_left_alone(markdown):
    """Fragments, other languages, and blocks inside blocks."""
    assert list(configurations(markdown)) == []


@pytest.mark.parametrize(
    ("markdown", "line"),
    [
        ("```yaml\nversion: 1\n```", 2),
        ("~~~yml\nversion: 1\n~~~", 2),
        ('```YAML title="gateway.yaml"\nversion: 1\n```', 2),
        ("- item\n\n  ```yaml\n  version: 1\n  ```", 4),
        ("````yaml\n# ```\nversion: 1\n````", 2),
        ("```yaml\nversion: 1", 2),
    ],
)
def test_every_form_of_fence_is_known(markdown, line):
    """Tildes, info strings, list items, longer fences, a missing end (CommonMark 0.31, section 4.5)."""
    (block,) = configurations(markdown)

    assert line == block.line
    assert "version: 1" in block.text.splitlines()[-1]


def test_every_block_is_found():
    """Each with its own place."""
    markdown = "```yaml\nversion: 1\n```\n\n```yaml\nversion: 2\n```\n"

    assert [2, 6] == [block.line for block in configurations(markdown)]
