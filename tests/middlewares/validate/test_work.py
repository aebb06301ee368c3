"""The steps of schemas: an upper bound, found in no time."""

from __future__ import annotations

import pytest

from sluiceway.middlewares.validate.work import Work, depth_of, values_in

MOST = 10**6


def doubling(levels: int) -> dict:
    """A schema whose references double at every level."""
    twice = {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(levels)}
    return {"$defs": {**twice, f"d{levels}": {"type": "string"}}, "$ref": "#/$defs/d0"}


TREE = {"properties": {"children": {"items": {"$ref": "#"}}}}
BUSH = {"properties": {"left": {"$ref": "#"}, "right": {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}}}


@pytest.mark.parametrize(("levels", "depth"), [(3, 0), (10, 5)])
def test_references_that_double_count_double(levels, depth):
    """Whatever the value: they apply to the same one."""
    steps = Work(doubling(levels), MOST).steps(depth)

    assert 2**levels < steps < 5 * 2**levels


@pytest.mark.parametrize("levels", [24, 200])
def test_what_would_never_end_is_counted_at_once(levels):
    """Counting stops at the bound."""
    assert Work(doubling(levels), MOST).steps(0) == MOST + 1


def test_a_schema_that_contains_itself_costs_as_much_as_the_value_is_deep():
    """A tree is cheap at any depth; one that branches is not."""
    assert Work(TREE, MOST).steps(64) < 300
    assert Work(BUSH, MOST).steps(3) < 100
    assert Work(BUSH, MOST).steps(64) == MOST + 1


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"allOf": [{"$ref": "#"}]},
        {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
        {"$ref": "#/nowhere/3/x"},
        {"$ref": "https://example.com/other"},
        {"$dynamicRef": "#node"},
        {"items": [True, False, {"$ref": "#/items/2"}], "dependencies": {"a": ["b"], "c": {"type": "null"}}},
        True,
    ],
)
def test_circles_and_references_to_nowhere_come_to_an_end(schema):
    """Few steps, whatever they mean."""
    assert Work(schema, MOST).steps(9) < 50


def test_a_reference_is_followed_as_it_is_written():
    """JSON pointers with escapes, through objects and lists (RFC 6901)."""
    schema = {"a/b": [{"c~d %": doubling(5)["$defs"]["d5"]}], "$ref": "#/a~1b/0/c~0d%20%25"}

    assert Work(schema, MOST).steps(0) == 2


@pytest.mark.parametrize(
    ("value", "depth", "values"), [("x", 0, 1), ({}, 1, 1), ([1, {"a": [2]}], 3, 5), ({"a": 1, "b": {"c": []}}, 3, 4)]
)
def test_depth_and_number_of_values(value, depth, values):
    """Containers count for both; counting stops where it is told to."""
    assert (depth_of(value), values_in(value, 100)) == (depth, values)
    assert values_in(value, 1) <= 1 + values
