"""Tests of arguments: three outcomes, and no spelling of a value that slips between them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluiceway.middlewares.access.arguments import MISSING, Test, compile_tests, every

Test.__test__ = False  # type: ignore[attr-defined]  # no test class, whatever its name

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
TESTS = [
    Test(one_of=("a", 1, True, None)),
    Test(none_of=("a", 1, False)),
    Test(glob="a*"),
    Test(prefix=("a", "b")),
    Test(under="/srv"),
    Test(ge=1, lt=5),
    Test(max_length=3),
]


@pytest.mark.parametrize(
    ("test", "value", "outcome"),
    [
        (Test(one_of=("a", 1)), "a", True),
        (Test(one_of=("a", 1)), 1.0, True),
        (Test(one_of=("a", 1)), True, False),
        (Test(one_of=(True,)), 1, False),
        (Test(one_of=(None,)), None, True),
        (Test(one_of=("a",)), {"a": 1}, None),
        (Test(none_of=("a",)), "b", True),
        (Test(none_of=("a",)), "a", False),
        (Test(none_of=("a",)), ["b", "a"], False),
        (Test(none_of=("a",)), [["a"]], None),
        (Test(glob=("x-*", "y")), "x-1", True),
        (Test(glob="x-*"), "ax-1", False),
        (Test(glob="x-*"), 1, None),
        (Test(prefix="SELECT "), "SELECT 1", True),
        (Test(prefix="SELECT "), "select 1", False),
        (Test(under="/srv"), "/srv", True),
        (Test(under="/srv/"), "/srv/a/b", True),
        (Test(under="/srv"), "/srv2/a", False),
        (Test(under="/srv"), "/srv/../etc/passwd", False),
        (Test(under="/srv"), "/srv/./a", False),
        (Test(under="/srv"), "/srv/a..b/.c", True),
        (Test(under="/srv"), "/srv/..\\etc", False),
        (Test(under="/srv"), "/srv/a\0b", False),
        (Test(under="/srv"), "srv/a", False),
        (Test(under=("/a", "/b")), ["/a/1", "/b/2"], True),
        (Test(under=("/a", "/b")), ["/a/1", "/c/2"], False),
        (Test(under="/"), "/any", True),
        (Test(under="/"), "any", False),
        (Test(ge=0, le=100), 100, True),
        (Test(ge=0, le=100), -1, False),
        (Test(gt=0, lt=1), 1, False),
        (Test(le=100), "50", None),
        (Test(le=100), True, None),
        (Test(le=100), [], None),
        (Test(max_length=2), "abc", False),
        (Test(max_length=2), "ab", True),
        (Test(prefix="a", max_length=2), "ab", True),
        (Test(prefix="a", max_length=2), "b", False),
        (Test(prefix="a", le=1), "a", None),
        (Test(present=True), None, True),
        (Test(present=True), MISSING, False),
        (Test(present=False), MISSING, True),
        (Test(present=False), 1, False),
        (Test(le=1), MISSING, False),
        (Test(le=1, optional=True), MISSING, True),
        (Test(le=1, optional=True), 2, False),
    ],
)
def test_a_value_passes_or_fails_or_cannot_be_told(test: Test, value: Any, outcome: bool | None) -> None:
    """None is no answer: who allows takes it for a no, who denies for a yes."""
    assert outcome is test.compile()(value)


@pytest.mark.parametrize(
    ("bound", "passing"), [("ge", [2, 3]), ("gt", [3]), ("le", [1, 2]), ("lt", [1])]
)  # fmt: skip
def test_every_bound_is_a_bound(bound: str, passing: list[int]) -> None:
    """ge, gt, le and lt 2."""
    options: dict[str, Any] = {bound: 2}
    check = Test(**options).compile()

    assert passing == [value for value in (1, 2, 3) if check(value)]


@given(st.sampled_from(TESTS), JSON)
def test_a_list_passes_as_all_its_items_do(test: Test, value: Any) -> None:
    """Nothing gets through in company."""
    check = test.compile()

    expected = every(check(item) if not isinstance(item, list) else None for item in [value])
    assert expected is check([value])


def test_arguments_are_found_by_name_and_by_pointer() -> None:
    """RFC 6901 where the name begins with a slash; a name with dots is a name."""
    holds = compile_tests({"/a/b~1c/~0": Test(le=1), "x.y": Test(present=True)})

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
    assert compile_tests({"a": Test(present=False)})(arguments) is None


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
        Test(**options)
