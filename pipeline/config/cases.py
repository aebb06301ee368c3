"""`tests:`, read and checked: each test with its place."""

from __future__ import annotations

from ..model.cases import Case
from ..model.document import Document
from .case_rules import Declared, case_problems
from .hooks import shown
from .nodes import Node, Scalar, Sequence
from .problems import Problem, Span, has_errors
from .structure import Hint, Structurer
from .tables import filled_cases


def read_cases(
    node: Node | None, document: Document, problems: list[Problem], hint: Hint = lambda _: None
) -> tuple[Declared, ...]:
    """
    The tests of a list, as far as they are sound; what is wrong is added to `problems`.

    Args:
        node: What stands under `tests:`.
        document: What they test. If it has errors, ids are not looked at.
        problems: Receives what is wrong.
        hint: Where an unknown key belongs.
    """
    if node is None or (isinstance(node, Scalar) and node.value is None):
        return ()
    if not isinstance(node, Sequence):
        message = f"tests: is a list of tests, got {shown(node.plain)}"
        problems.append(Problem(rule="config/type", message=message, span=node.span, fix="start each with a dash"))
        return ()
    check_ids = not has_errors(problems)
    structurer = Structurer(problems, hint)
    found: list[Declared] = []
    names: dict[str, Span] = {}
    for item in node.items:
        for each in filled_cases(item, problems):
            case = structurer.structure(each, Case)
            if case is None:
                continue
            declared = Declared(case, each)
            if case.name in names:
                problems.append(
                    Problem(rule="tests/duplicate", message=f"two tests are called {case.name[:80]!r}",
                            span=declared.span(("name",)), others=(("first", names[case.name]),))
                )  # fmt: skip
            names.setdefault(case.name, declared.span(("name",)))
            problems += case_problems(declared, document if check_ids else None)
            found.append(declared)
    return tuple(found)
