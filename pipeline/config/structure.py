"""
From nodes to typed values: the converter's exception groups become problems with places.

All problems of a value are found at once. cattrs notes on each exception which attribute, item or key it is about; the
notes from the outside in are the path of the node, and the node knows where it stands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from attrs import define, evolve, field
from cattrs import Converter
from cattrs.errors import (
    BaseValidationError,
    ClassValidationError,
    ForbiddenExtraKeysError,
    IterableValidationError,
    IterableValidationNote,
)

from .declarations import Group, flow, options_of, walk
from .hooks import Mismatch, Silent, strict_converter
from .nodes import Mapping, Node, Path, Scalar, key_of, node_at, place_of
from .problems import Problem, closest, unknown

Hint: TypeAlias = Callable[[str], str | None]
"""Where a key belongs that is unknown where it stands: a sentence, or None."""


@define(eq=False)
class Structurer:
    """Makes typed values of nodes, and problems of what does not fit."""

    problems: list[Problem]
    hint: Hint = field(default=lambda _: None)
    converter: Converter = field(factory=strict_converter)

    def structure(self, node: Node, cls: type, *, beside: Iterable[str] = ()) -> Any | None:
        """
        An instance of an attrs class of options, or None after reporting what is wrong.

        Args:
            node: A mapping, or nothing at all for one without keys.
            cls: The class.
            beside: Keys of others that stand in the same mapping; they are left alone, and named as allowed.
        """
        if isinstance(node, Scalar) and node.value is None:
            node = Mapping({}, node.span)
        if isinstance(node, Mapping):
            node = node.without(beside)
        try:
            value: Any = self.converter.structure(node.plain, cls)
        except Silent:
            return None
        except (Mismatch, BaseValidationError) as error:
            self.problems += _Walk(node, tuple(beside), self.hint).problems_of(error, (), cls)
            return None
        self.deprecations(cls, value, node)
        return value

    def deprecations(self, cls: type, value: Any, node: Node) -> None:
        """Warn about options that were given although they are deprecated."""
        for option, _value, path in walk(Group(cls), value):
            if option.info.deprecated and node_at(node, path) is not None:
                self.problems.append(
                    Problem(rule="config/deprecated", level="warning", message=f"{option.name!r} is deprecated",
                            span=key_of(node, path), fix=f"use {option.info.deprecated}")
                )  # fmt: skip


@define(eq=False)
class _Walk:
    """Walks an exception group by its notes, keeping the path."""

    node: Node
    beside: tuple[str, ...]
    hint: Hint

    def problems_of(self, error: Exception, path: Path, cls: Any) -> list[Problem]:
        if isinstance(error, ClassValidationError):
            return self.of_class(error, path)
        if isinstance(error, IterableValidationError):
            return [p for each, note in error.group_exceptions()[0] for p in self.of_item(each, note, path)]
        if isinstance(error, Silent):
            return []
        span = place_of(self.node, path)
        if isinstance(error, Mismatch):
            message = str(error)
            return [Problem(rule=error.rule, message=message, span=span, fix=error.fix, hide=error.hide)]
        return [Problem(rule="config/invalid", message=str(error) or type(error).__name__, span=span)]

    def of_item(self, error: Exception, note: IterableValidationNote, path: Path) -> list[Problem]:
        below = (*path, note.index)
        problems = self.problems_of(error, below, None)
        if "mapping key" in note:  # cattrs tells a bad key from a bad value in the text of its note only
            return [evolve(problem, span=key_of(self.node, below)) for problem in problems]
        return problems

    def of_class(self, error: ClassValidationError, path: Path) -> list[Problem]:
        problems: list[Problem] = []
        missing: list[str] = []
        extra: list[str] = []
        with_notes, others = error.group_exceptions()
        for each, note in with_notes:
            if isinstance(each, KeyError) and each.args == (note.name,):
                missing.append(note.name)
            else:
                problems += self.problems_of(each, (*path, note.name), note.type)
        for each in others:
            if isinstance(each, ForbiddenExtraKeysError):
                extra += each.extra_fields
            else:
                problems += self.problems_of(each, path, None)
        for key in sorted(extra):
            meant = closest(key, missing)
            if meant is not None:
                missing.remove(meant)
            problems.append(self.extra_key(str(key), meant, path, error.cl))
        return problems + [self.missing_key(name, path, error.cl) for name in missing]

    def extra_key(self, key: str, meant: str | None, path: Path, cls: type) -> Problem:
        span = key_of(self.node, (*path, key))
        allowed = [option.name for option in options_of(cls)] + list(self.beside if not path else ())
        if meant is not None:
            message = f"unknown key {key!r}; rename it to {meant!r}"
            return Problem(rule="config/unknown-key", message=message, span=span, fix=f"rename {key!r} to {meant!r}")
        if (where := self.hint(key)) is not None and key not in allowed:
            return Problem(rule="config/misplaced-key", message=where, span=span)
        return Problem(rule="config/unknown-key", message=unknown("key", key, allowed), span=span)

    def missing_key(self, name: str, path: Path, cls: type) -> Problem:
        info = next(option.info for option in options_of(cls) if option.name == name)
        example = f"; for example {name}: {flow(info.example)}" if info.example is not None else ""
        message = f"{name!r} is required: {info.doc}"
        return Problem(
            rule="config/missing-key", message=message, span=place_of(self.node, path), fix=f"add {name}{example}"
        )
