"""Patterns: what fits, what does not, and where."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluiceway.pipeline.model.patterns import ABSENT, Mismatch, fits, mismatches, mistakes

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text("abc.", max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1, max_size=2), inner, max_size=3)
    ),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("pattern", "actual"),
    [
        (1, 1.0),
        ("a*c", "abbc"),
        ({"a": 1}, {"a": 1, "b": 2}),
        ({"a.b": 1}, {"a": {"b": 1}}),
        ({"a.b": 1}, {"a.b": 1}),
        ({"a.1.b": 2}, {"a": [0, {"b": 2}]}),
        ([1, "x*"], [1, "xyz"]),
        ({"$exact": {"a": [1]}}, {"a": [1.0]}),
        ({"$exact": "a*"}, "a*"),
        ({"a": {"$absent": True}}, {}),
        ({"a": {"$absent": False}}, {"a": None}),
        ({"$matches": "[0-9]+"}, "123"),
        ({"$contains": "b"}, "abc"),
        ({"$contains": {"a": 1}}, [{"a": 2}, {"a": 1, "b": 1}]),
        ({"$any": [1, 2]}, 2),
        ({"$not": 1}, 2),
        ({"$at_least": 1, "$at_most": 3}, 2),
        ({"$length": 2}, "ab"),
        ({"$type": "integer"}, 1),
        ({"$type": "null"}, None),
        ({}, {"a": 1}),
        ([], []),
    ],
)
def test_it_fits(pattern, actual):
    """There is no mismatch."""
    assert list(mismatches(pattern, actual)) == []


@pytest.mark.parametrize(
    ("pattern", "actual"),
    [
        (1, True),
        (True, 1),
        ("a*", 1),
        ("a*c", "abd"),
        (None, ABSENT),
        ({"a": 1}, [1]),
        ({}, "text"),
        ([1], [1, 2]),
        ({"a.5": 1}, {"a": [1]}),
        ({"a.b": 1}, {"a": 1}),
        ({"$exact": {"a": 1}}, {"a": 1, "b": 2}),
        ({"$exact": "a*"}, "ab"),
        ({"$exact": 1}, True),
        ({"$exact": [1]}, [1, 2]),
        ({"a": {"$absent": True}}, {"a": None}),
        ({"$matches": "[0-9]+"}, "12a"),
        ({"$contains": "d"}, "abc"),
        ({"$contains": "d"}, 5),
        ({"$any": [1, 2]}, 3),
        ({"$not": 1}, 1),
        ({"$at_least": 1}, "2"),
        ({"$length": 2}, 2),
        ({"$type": "object"}, []),
        ({"$type": "number"}, True),
    ],
)
def test_it_does_not_fit(pattern, actual):
    """There is at least one mismatch."""
    assert not fits(pattern, actual)


def test_a_mismatch_says_where_in_the_value_and_where_in_the_pattern():
    """A key with dots is one step of the pattern, and several of the value."""
    found = list(mismatches({"data.list": [1, {"$at_least": 5}]}, {"data": {"list": [1, 2]}}))

    assert found == [Mismatch(("data", "list", 1), {"$at_least": 5}, 2, ("data.list", 1, "$at_least"))]


@given(JSON)
def test_every_value_fits_itself_exactly_and_loosely(value):
    """A pattern without globs is the value it describes."""
    assert fits({"$exact": value}, value)
    assert fits(value, value)


@given(JSON, JSON)
def test_what_fits_exactly_fits_loosely(one, other):
    """`$exact` is the stricter one."""
    assert not fits({"$exact": one}, other) or fits(one, other)


@pytest.mark.parametrize(
    ("pattern", "path", "word"),
    [
        ({"a": {"$absnt": True}}, ("a", "$absnt"), "did you mean '$absent'?"),
        ({"$schema": "x"}, ("$schema",), "$exact"),
        ([{"$any": 1}], (0, "$any"), "a list"),
        ({"$any": [{"$length": "2"}]}, ("$any", 0, "$length"), "whole number"),
        ({"$at_least": "1"}, ("$at_least",), "a number"),
        ({"$absent": 1}, ("$absent",), "true or false"),
        ({"$type": "text"}, ("$type",), "string"),
        ({"$matches": "("}, ("$matches",), "regular expression"),
        ({"$matches": 1}, ("$matches",), "regular expression"),
    ],
)
def test_a_pattern_that_cannot_be_matched_is_a_mistake(pattern, path, word):
    """It says where, and what would be right."""
    ((where, sentence),) = mistakes(pattern)

    assert where == path
    assert word in sentence
