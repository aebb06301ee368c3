"""
Tables of cases: one test written once, run for each row.

Done on nodes, before anything has a type: `<name>` as a whole value becomes the row's value, whatever it is; inside a
text or a key it becomes text. So a place in a filled case is still a place in the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from attrs import evolve

from .nodes import Broken, Mapping, Node, Scalar, Sequence
from .problems import Problem, unknown

MAX_ROWS: Final = 1000
"""Most rows of one table."""
_BLANK: Final = re.compile(r"<([A-Za-z_][A-Za-z0-9_]*)>")


def filled_cases(case: Node, problems: list[Problem]) -> Iterator[Node]:
    """The case for each row of its `cases:`, without them; the case itself if it has none."""
    rows = case.get("cases") if isinstance(case, Mapping) else None
    if not isinstance(case, Mapping) or not isinstance(rows, Sequence):
        yield case  # a table that is no list is the converter's to refuse
        return
    template = case.without(["cases"])
    blanks = _blanks(template)
    if len(rows.items) > MAX_ROWS:
        message = f"{len(rows.items)} rows; a table has at most {MAX_ROWS}"
        problems.append(Problem(rule="tests/table", message=message, span=rows.span))
        return
    for number, row in enumerate(rows.items, 1):
        if not isinstance(row, Mapping):
            problems.append(Problem(rule="tests/table", message="a row is a mapping of names to values", span=row.span))
            continue
        for name, entry in row.entries.items():
            if name not in blanks:
                message = unknown("name", name, sorted(blanks), listed="in the case")
                problems.append(
                    Problem(rule="tests/table", message=message, span=entry.key, fix=f"write <{name}> where it belongs")
                )
        yield _named(_filled(template, row), template, number)


def _named(case: Node, template: Mapping, number: int) -> Node:
    """A row's case has a name of its own, even if the name has no blank."""
    name = case.get("name") if isinstance(case, Mapping) else None
    was = template.get("name")
    if not isinstance(case, Mapping) or not isinstance(name, Scalar) or not isinstance(was, Scalar):
        return case
    if name.value != was.value:
        return case
    entry = evolve(case.entries["name"], value=evolve(name, value=f"{name.value} [{number}]"))
    return evolve(case, entries={**case.entries, "name": entry})


def _blanks(node: Node) -> set[str]:
    """Names of all blanks in a case."""
    if isinstance(node, Scalar):
        return set(_BLANK.findall(node.value)) if isinstance(node.value, str) else set()
    if isinstance(node, Sequence):
        return set().union(*map(_blanks, node.items))
    inside = (_blanks(entry.value) | set(_BLANK.findall(key)) for key, entry in node.entries.items())
    return set().union(*inside)


def _filled(node: Node, row: Mapping) -> Node:
    if isinstance(node, Scalar):
        return _filled_scalar(node, row)
    if isinstance(node, Sequence):
        return evolve(node, items=tuple(_filled(item, row) for item in node.items))
    return evolve(
        node,
        entries={
            _filled_text(key, row): evolve(entry, value=_filled(entry.value, row))
            for key, entry in node.entries.items()
        },
    )


def _filled_scalar(node: Scalar, row: Mapping) -> Node:
    if not isinstance(node.value, str) or "<" not in node.value:
        return node
    whole = _BLANK.fullmatch(node.value)
    value = row.get(whole[1]) if whole else None
    return evolve(node, value=_filled_text(node.value, row)) if value is None else value


def _filled_text(text: str, row: Mapping) -> str:
    def value_of(blank: re.Match[str]) -> str:
        value = row.get(blank[1])
        if not isinstance(value, Scalar) or isinstance(value.value, Broken):
            return blank[0]
        if value.value is None or isinstance(value.value, bool):
            return {None: "null", True: "true", False: "false"}[value.value]
        return str(value.value)

    return _BLANK.sub(value_of, text)
