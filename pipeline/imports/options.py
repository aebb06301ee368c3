"""Command lines of other programs, taken apart: which words are options, which are values."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Final, final

from attrs import define, field

MANY: Final = -1
"""The arity of an option that takes all words up to the next option."""


@final
@define
class Words:
    """A command line taken apart."""

    options: dict[str, list[list[str]]] = field(factory=dict)
    """The values of each option, once for each time it was given."""
    unknown: list[str] = field(factory=list)
    """Options that nobody knows, without their values."""
    rest: list[str] = field(factory=list)
    """What is no option: from the first such word on, or behind `--`."""

    def last(self, name: str) -> str | None:
        """The value of an option that has one; the last if it was repeated, None if it is absent."""
        values = self.options.get(name)
        return values[-1][0] if values and values[-1] else None

    def all(self, name: str) -> list[list[str]]:
        """The values of every time an option was given."""
        return self.options.get(name, [])


def take_apart(words: list[str], arity: Mapping[str, int], aliases: Mapping[str, str]) -> Words:
    """
    Tell options from values.

    Args:
        words: What follows the program's name.
        arity: How many words an option takes; `MANY` for as many as there are.
        aliases: Other names of options.
    """
    found, at = Words(), 0
    while at < len(words):
        word, at = words[at], at + 1
        if word == "--":
            found.rest += words[at:]
            break
        if not word.startswith("-") or word == "-":
            found.rest.append(word)
            if "://" not in word:  # a command: what follows is its own; behind an address come more options
                found.rest += words[at:]
                break
            continue
        flag, equals, text = word.partition("=")
        name = aliases.get(flag, flag)
        if name not in arity:
            found.unknown.append(flag)
            continue
        values, at = ([text], at) if equals else _values(words, at, arity[name])
        found.options.setdefault(name, []).append(values)
    return found


def _values(words: list[str], at: int, arity: int) -> tuple[list[str], int]:
    if arity != MANY:
        return words[at : at + arity], at + arity
    end = at
    while end < len(words) and not words[end].startswith("-"):
        end += 1
    return words[at:end], end


def command_lines(text: str) -> Iterator[list[str]]:
    """The lines of a shell script as words; comments, and what no shell would take, are left out."""
    for line in text.replace("\\\r\n", " ").replace("\\\n", " ").splitlines():
        try:
            words = shlex.split(line, comments=True)
        except ValueError:
            continue
        if words:
            yield words
