"""
Configurations inside Markdown: fenced blocks marked `yaml` or `yml` that declare a `version:` of their own.

A block keeps its lines: what stands before it is replaced by empty lines, so that every place a message names is a
place of the Markdown file (CommonMark 0.31, section 4.5).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, final

from attrs import frozen

_OPENING: Final = re.compile(r"( {0,3}|\s+)(`{3,}|~{3,})\s*([^\s`]*)[^`]*")
_LANGUAGES: Final = frozenset({"yaml", "yml"})


@final
@frozen
class Block:
    """One configuration in a Markdown file."""

    line: int
    """The line of its first line of content, 1-based."""
    text: str
    """The block, padded with empty lines so that its lines have their numbers in the file."""


def configurations(markdown: str) -> Iterator[Block]:
    """The blocks that are whole configurations; YAML without `version:` at its left edge is an illustration."""
    lines = markdown.split("\n")
    number = 0
    while number < len(lines):
        opening = _OPENING.fullmatch(lines[number])
        number += 1
        if opening is None:
            continue
        start, fence = number, opening[2]
        closing = re.compile(rf"\s*{re.escape(fence[0])}{{{len(fence)},}}\s*")
        while number < len(lines) and not closing.fullmatch(lines[number]):
            number += 1
        if opening[3].lower() in _LANGUAGES:
            block = lines[start:number]
            if _is_configuration(block):
                yield Block(start + 1, "\n" * start + "\n".join(block) + "\n")
        number += 1


def _is_configuration(block: list[str]) -> bool:
    """Whether `version:` stands at the block's own left edge."""
    indents = [len(line) - len(line.lstrip()) for line in block if line.strip()]
    edge = min(indents, default=0)
    return any(line[edge:].startswith("version:") for line in block)
