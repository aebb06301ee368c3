"""`${VAR}`: what it becomes, what is refused, and that it never changes structure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluiceway.pipeline.config import Checked
from sluiceway.pipeline.config.interpolate import interpolate
from sluiceway.pipeline.config.nodes import Mapping, Node, Scalar, tree_of
from sluiceway.pipeline.config.problems import SourceText

SOURCE = SourceText("t", Path.cwd())
ENVIRONMENT = {"A": "one", "EMPTY": "", "N": "0123", "STRUCTURE": "{a: [1, 2]}\nb: 3", "SELF": "${A}"}


def of(value: Any) -> tuple[Any, list[str]]:
    """A value after interpolation, and what was wrong."""
    root, problems = interpolate(tree_of(value, SOURCE), ENVIRONMENT)
    return root.plain, [f"{problem.rule}: {problem.message}" for problem in problems]


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("${A}", "one"),
        ("<${A}|${A}>", "<one|one>"),
        ("${EMPTY}", ""),
        ("${EMPTY:-x}", "x"),
        ("${GONE:-}", ""),
        ("${GONE:-a:-b}", "a:-b"),
        ("${GONE:-two\nlines}", "two\nlines"),
        ("${A:-x}", "one"),
        ("${A:?needed}", "one"),
        ("$${A}", "${A}"),
        ("$$$${A}", "$${A}"),
        ("$$${A}", "$one"),
        ("$5 ^x$ $A", "$5 ^x$ $A"),
        ("${STRUCTURE}", "{a: [1, 2]}\nb: 3"),
        ("${SELF}", "${A}"),
    ],
)
def test_a_variable_becomes_its_text(text: str, result: str) -> None:
    """Defaults stand for unset and empty, `$$` is a dollar, values are not looked into again."""
    assert (result, []) == of(text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("${GONE}", "env/missing: environment variable GONE is not set"),
        ("${EMPTY:?say it}", "env/missing: environment variable EMPTY is not set: say it"),
        ("${EMPTY:?}", "env/missing: environment variable EMPTY is empty"),
        ("${", "env/syntax: '${' is never closed"),
        ("a ${A", "env/syntax: '${A' is never closed"),
        ("${}", "env/syntax: '${}' is not an interpolation"),
        ("${1A}", "env/syntax: '${1A}' is not an interpolation"),
        ("${A-x}", "env/syntax: '${A-x}' is not an interpolation"),
        ("${A:+x}", "env/syntax: '${A:+x}' is not an interpolation"),
    ],
)
def test_what_cannot_be_replaced_is_a_problem(text: str, problem: str) -> None:
    """The message names the variable and never shows a value."""
    assert [problem] == of([text])[1]


def test_only_values_are_interpolated() -> None:
    """Keys, numbers and the top-level `x-` keys stay as they are."""
    data = {"${A}": 5, "x-note": {"price": "${GONE}"}, "b": {"x-c": "${A}"}, "d": [True, None]}

    assert ({"${A}": 5, "x-note": {"price": "${GONE}"}, "b": {"x-c": "one"}, "d": [True, None]}, []) == of(data)


def test_a_shared_value_is_reported_once() -> None:
    """An alias does not repeat the problem of its anchor."""
    shared = Scalar("${GONE}", tree_of("", SOURCE).span)
    entries = Mapping({}, shared.span)
    from sluiceway.pipeline.config.nodes import Entry

    entries.entries.update(a=Entry(shared.span, shared), b=Entry(shared.span, shared))

    assert 1 == len(interpolate(entries, {})[1])


def test_a_variable_takes_the_type_of_its_field(toy_chain: Callable[..., Checked], tmp_path: Path) -> None:
    """Text stays `0123`, a number is read, a duration needs its unit, a path starts at the file."""
    env = {"N": "0123", "F": "true", "D": "0", "C": "", "L": "2", "W": "off", "S": "3KiB", "P": "x/y", "R": "0.25"}
    checked = toy_chain(
        "[every_toy: {text: '${N}', number: '${L}', flag: '${F}', count: '${C}', level: '${L}', size: '${S}',"
        " path: '${P}', ratio: '${R}', numbers: ['${N}'], anything: {a: '${N}'}},"
        " every_toy: {count: '${N}', level: '${W}'}]",
        env,
    )
    config, other = (stage.config for stage in checked.require().pipelines["main"].chain)

    assert ("0123", 2.0, True, None, 2, 3072) == (
        config.text, config.number, config.flag, config.count, config.level, config.size,
    )  # fmt: skip
    assert (tmp_path / "x/y", 0.25, [123], {"a": "0123"}) == (
        config.path, config.ratio, config.numbers, config.anything,
    )  # fmt: skip
    assert (123, "off") == (other.count, other.level)


def test_a_variable_of_the_wrong_type_is_a_problem(toy_chain: Callable[..., Checked]) -> None:
    """The value is read as its field, strictly."""
    checked = toy_chain(
        "[every_toy: {flag: '${A}', number: '${B}', level: '${C}', count: '${D}', ratio: '${A}'}]",
        {"A": "yes", "B": "1:30", "C": "3", "D": "9" * 70},
    )
    expected = ["config/type", "config/type", "config/value", "config/type", "config/unit"]

    assert expected == [problem.rule for problem in checked.problems]


def shape(node: Node) -> Any:
    """A tree without its values."""
    if isinstance(node, Scalar):
        return None
    if isinstance(node, Mapping):
        return {key: shape(entry.value) for key, entry in node.entries.items()}
    return [shape(item) for item in node.items]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.sampled_from(list("${}AB:-?x"))),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=10,
)


@given(JSON, st.dictionaries(st.sampled_from(["A", "B"]), st.text(max_size=20)))
def test_interpolation_never_changes_structure(data: Any, environment: dict[str, str]) -> None:
    """Whatever the variables hold, lists and mappings stay what they were."""
    before = tree_of(data, SOURCE)

    after, _ = interpolate(before, environment)

    assert shape(before) == shape(after)
