"""
`${VAR}` in values.

    ${NAME}             the variable; an error if it is not set
    ${NAME:-default}    the variable, or a default if it is unset or empty
    ${NAME:?message}    the variable, or an error that says `message` if it is unset or empty
    $$                  one dollar sign

Done in text values that were already parsed, never in keys and never in the text of the file, so a variable cannot
inject structure. The result is text that takes the type of the field it is for: a text field gets `0123` unchanged, a
number field reads it. A dollar sign before anything but `{` or `$` is itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping as Environment
from typing import Final

from attrs import define, evolve, field

from .nodes import BROKEN, Entry, Mapping, Node, Scalar, Sequence
from .problems import Problem, Span

_TOKEN: Final = re.compile(r"\$\$|\$\{([^}]*)(\}?)")
_NAME: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?:(:[-?])(.*))?", re.DOTALL)


class _Bad(Exception):
    """One `${...}` cannot be replaced; the text says why."""

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(message)
        self.rule = rule


@define(eq=False)
class _Interpolator:
    environment: Environment[str, str]
    problems: list[Problem] = field(factory=list)
    done: dict[int, Node] = field(factory=dict)
    """Results by identity: what aliases share is done, and reported, once."""

    def node(self, node: Node) -> Node:
        if id(node) not in self.done:
            self.done[id(node)] = self.replaced(node)
        return self.done[id(node)]

    def replaced(self, node: Node) -> Node:
        if isinstance(node, Scalar):
            return self.scalar(node)
        if isinstance(node, Sequence):
            return evolve(node, items=tuple(map(self.node, node.items)))
        entries = {key: Entry(entry.key, self.node(entry.value)) for key, entry in node.entries.items()}
        return evolve(node, entries=entries)

    def scalar(self, node: Scalar) -> Scalar:
        if not isinstance(node.value, str) or "$" not in node.value:
            return node
        substituted = False

        def replacement(match: re.Match[str]) -> str:
            nonlocal substituted
            if match[0] == "$$":
                return "$"
            substituted = True
            return self.variable(match)

        try:
            return evolve(node, value=_TOKEN.sub(replacement, node.value), interpolated=substituted)
        except _Bad as bad:
            self.report(bad.rule, str(bad), node.span)
            return evolve(node, value=BROKEN)

    def variable(self, match: re.Match[str]) -> str:
        parts = _NAME.fullmatch(match[1])
        if not match[2]:
            raise _Bad("env/syntax", f"'{match[0][:40]}' is never closed")
        if parts is None:
            raise _Bad("env/syntax", f"'{match[0][:40]}' is not an interpolation")
        name, operator, operand = parts.groups()
        value = self.environment.get(name)
        if value is not None and (value or operator is None):
            return value
        if operator == ":-":
            return str(operand)
        if operator == ":?" and operand:
            raise _Bad("env/missing", f"environment variable {name} is not set: {operand}")
        raise _Bad("env/missing", f"environment variable {name} is {'not set' if value is None else 'empty'}")

    def report(self, rule: str, message: str, span: Span) -> None:
        fix = "write ${NAME}, ${NAME:-default} or ${NAME:?message}; $$ is a dollar sign" if rule == "env/syntax" else ""
        self.problems.append(Problem(rule=rule, message=message, span=span, fix=fix))


def interpolate(root: Node, environment: Environment[str, str]) -> tuple[Node, list[Problem]]:
    """
    Replace every `${...}` in the values of a tree; top-level `x-` keys are left alone.

    Returns:
        The new tree, of exactly the old shape, and what could not be replaced (those values are `BROKEN`).
    """
    work = _Interpolator(environment)
    if not isinstance(root, Mapping):
        return work.node(root), work.problems
    entries = {
        key: entry if key.startswith("x-") else Entry(entry.key, work.node(entry.value))
        for key, entry in root.entries.items()
    }
    return evolve(root, entries=entries), work.problems
