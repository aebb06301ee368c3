"""Sentences about options that differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from ...config.declarations import flow
from ...protocol.messages import Json
from .change import Area, Change
from .plain import Leaf, Sides
from .wording import Words

NOTHING: Final = "nothing"
"""What an option is that says nothing."""


def options(path: str, area: Area, sides: Sides, old: Any, new: Any, words: Mapping[str, Words]) -> Iterator[Change]:
    """
    A sentence for each option that differs.

    Args:
        path: Of the component.
        area: What its options are about.
        sides: Compares.
        old: Its options in the old configuration, in force.
        new: And in the new one.
        words: Phrases for options that have one.
    """
    for leaf in sides.leaves(old, new):
        phrase = words.get(leaf.option)
        if phrase is not None and phrase.is_set and leaf.kind == "order":
            continue
        yield Change(path, area, _sentence(leaf, phrase), leaf.path, leaf.old, leaf.new)


def shown(value: Json) -> str:
    """A value as it would be written; text as it is, for nobody reads a sentence as YAML."""
    return value if isinstance(value, str) else NOTHING if value is None else flow(value)


def _sentence(leaf: Leaf, words: Words | None) -> str:
    """In words if there are any for this kind of difference, else by name."""
    template = "" if words is None or leaf.path != _place(leaf) else _template(leaf, words)
    if template:
        return template.format(old=shown(leaf.old), new=shown(leaf.new), item=shown(leaf.item))
    match leaf.kind:
        case "added":
            return f"option {leaf.path}: {_item(leaf, leaf.new)} was added"
        case "removed":
            return f"option {leaf.path}: {_item(leaf, leaf.old)} was removed"
        case "order":
            return f"option {leaf.path}: the order is {shown(leaf.new)}, and was {shown(leaf.old)}"
        case _ if leaf.old == leaf.new:  # both are masked
            return f"option {leaf.path}: it has another value"
        case _:
            return f"option {leaf.path}: {_value(leaf.old)} -> {_value(leaf.new)}"


def _place(leaf: Leaf) -> str:
    """Where the phrases of an option are about: itself, or an item of it."""
    return f"{leaf.option}.{leaf.key}" if leaf.key else leaf.option


def _template(leaf: Leaf, words: Words) -> str:
    match leaf.kind:
        case "added":
            return words.added
        case "removed":
            return words.removed
        case "order":
            return ""
    if words.values:
        return words.values.get(shown(leaf.new), "")
    if leaf.old is None:
        return words.set or words.changed
    if leaf.new is None:
        return words.unset or words.changed
    return words.changed


def _item(leaf: Leaf, value: Json) -> str:
    """The item of a list; of a mapping its value, for the path has its key."""
    return "it" if leaf.key and value in ({}, None) else shown(value)


def _value(value: Json) -> str:
    return "not set" if value is None else flow(value)
