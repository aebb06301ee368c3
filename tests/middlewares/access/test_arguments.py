"""Tests of arguments: three outcomes, and no spelling of a value that slips between them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sluiceway.middlewares.access.arguments import MISSING, Condition, compile_tests, every

LAW = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""Other sessions run on the same machine: how long an example takes says nothing."""

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
TESTS = [
    Condition(one_of=("a", 1, True, None)),
    Condition(none_of=("a", 1, False)),
    Condition(glob="a*"),
    Condition(prefix=("a", "b")),
    Condition(under="/srv"),
    Condition(ge=1, lt=5),
    Condition(max_length=3),
]


@pytest.mark.parametrize(
    ("test", "value", "outcome"),
    [
        (Condition(one_of=("a", 1)), "a", True),
        (Condition(one_of=("a", 1)), 1.0, True),
        (Condition(one_of=("a", 1)), True, False),
        (Condition(one_of=(True,)), 1, False),
        (Condition(one_of=(None,)), None, True),
        (Condition(one_of=("a",)), {"a": 1}, None),
        (Condition(none_of=("a",)), "b", True),
        (Condition(none_of=("a",)), "a", False),
        (Condition(none_of=("a",)), ["b", "a"], False),
        (Condition(none_of=("a",)), [["a"]], None),
        (Condition(glob=("x-*", "y")), "x-1", True),
        (Condition(glob="x-*"), "ax-1", False),
        (Condition(glob="x-*"), 1, None),
        (Condition(prefix="SELECT "), "SELECT 1", True),
        (Condition(prefix="SELECT "), "select 1", False),
        (Condition(under="/srv"), "/srv", True),
        (Condition(under="/srv/"), "/srv/a/b", True),
        (Condition(under="/srv"), "/srv2/a", False),
        (Condition(under="/srv"), "/srv/../etc/passwd", False),
        (Condition(under="/srv"), "/srv/./a", False),
        (Condition(under="/srv"), "/srv/a..b/.c", True),
        (Condition(under="/srv"), "/srv/..\\etc", False),
        (Condition(under="/srv"), "/srv/a\0b", False),
        (Condition(under="/srv"), "srv/a", False),
        (Condition(under=("/a", "/b")), ["/a/1", "/b/2"], True),
        (Condition(under=("/a", "/b")), ["/a/1", "/c/2"], False),
        (Condition(under="/"), "/any", True),
        (Condition(under="/"), "any", False),
        (Condition(ge=0, le=100), 100, True),
        (Condition(ge=0, le=100), -1, False),
        (Condition(gt=0, lt=1), 1, False),
        (Condition(le=100), "50", None),
        (Condition(le=100), True, None),
        (Condition(le=100), [], None),
        (Condition(max_length=2), "abc", False),
        (Condition(max_length=2), "ab", True),
        (Condition(prefix="a", max_length=2), "ab", True),
        (Condition(prefix="a", max_length=2), "b", False),
        (Condition(prefix="a", le=1), "a", None),
        (Condition(present=True), None, True),
        (Condition(present=True), MISSING, False),
        (Condition(present=False), MISSING, True),
        (Condition(present=False), 1, False),
        (Condition(le=1), MISSING, False),
        (Condition(le=1, optional=True), MISSING, True),
        (Condition(le=1, optional=True), 2, False),
    ],
)
def test_a_value_passes_or_fails_or_cannot_be_told(test: Condition, value: Any, outcome: bool | None) -> None:
    """None is no answer: who allows takes it for a no, who denies for a yes."""
    assert outcome is test.compile()(value)


@pytest.mark.parametrize(
    ("bound", "passing"), [("ge", [2, 3]), ("gt", [3]), ("le", [1, 2]), ("lt", [1])]
)  # fmt: skip
def test_every_bound_is_a_bound(bound: str, passing: list[int]) -> None:
    """ge, gt, le and lt 2."""
    options: dict[str, Any] = {bound: 2}
    check = Condition(**options).compile()

    assert passing == [value for value in (1, 2, 3) if check(value)]


@LAW
@given(st.sampled_from(TESTS), JSON)
def test_a_list_passes_as_all_its_items_do(test: Condition, value: Any) -> None:
    """Nothing gets through in company."""
    check = test.compile()

    expected = every(check(item) if not isinstance(item, list) else None for item in [value])
    assert expected is check([value])


def test_arguments_are_found_by_name_and_by_pointer() -> None:
    """RFC 6901 where the name begins with a slash; a name with dots is a name."""
    holds = compile_tests({"/a/b~1c/~0": Condition(le=1), "x.y": Condition(present=True)})

    assert holds({"a": {"b/c": {"~": 1}}, "x.y": 0})
    assert holds({"a": {"b/c": {"~": 2}}, "x.y": 0}) is False
    assert holds({"a": [], "x.y": 0}) is False
    assert holds({"a": {"b/c": {"~": 1}}, "x": {"y": 0}}) is False
    assert holds(None) is False
    assert holds({"a": {"b/c": {"~": "1"}}, "x.y": 0}) is None
    assert holds({"a": {"b/c": {"~": "1"}}}) is False


@pytest.mark.parametrize("arguments", ["text", 1, [], True])
def test_arguments_that_are_no_object_cannot_be_told(arguments: Any) -> None:
    """Neither allowed nor let off."""
    assert compile_tests({"a": Condition(present=False)})(arguments) is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "without any test"),
        ({"optional": True}, "without any test"),
        ({"present": True, "le": 1}, "stands alone"),
        ({"present": False, "optional": True}, "stands alone"),
        ({"one_of": [[1]]}, r"not \[1\]"),
        ({"none_of": [{}]}, "not {}"),
    ],
)
def test_a_test_that_says_nothing_or_two_things_is_an_error(options: dict[str, Any], said: str) -> None:
    """An option that would be ignored is refused."""
    with pytest.raises(ValueError, match=said):
        Condition(**options)
