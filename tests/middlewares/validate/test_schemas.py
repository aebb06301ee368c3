"""Schemas of strangers: checked in bounded time, or not at all."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluiceway.middlewares.validate.schemas import MAX_ERRORS, Schema, Schemas, UnusableSchema, Wrong

PERSON = {
    "type": "object",
    "properties": {"age": {"type": "integer", "minimum": 18}, "name": {"type": "string", "minLength": 3}},
    "required": ["age", "name"],
    "additionalProperties": False,
}


def test_all_wrong_fields_are_listed_and_no_value():
    """With their places; what was sent may be a secret."""
    wrong = Schema(PERSON).check({"age": "hunter2", "name": "x", "more~/": "hunter3"})

    assert {each.path for each in wrong} == {"/age", "/name", ""}
    assert "hunter" not in str(wrong)
    assert Schema(PERSON).check({"age": 18, "name": "Ana"}) == []
    assert Wrong("/a~1b/0", "the value is not of type \"null\"") in Schema(
        {"properties": {"a/b": {"items": {"type": "null"}}}}
    ).check({"a/b": [1]})  # fmt: skip


def test_the_list_is_bounded():
    """However much is wrong."""
    assert len(Schema({"items": {"type": "null"}}).check([1] * 1000)) == MAX_ERRORS


@pytest.mark.parametrize(
    ("definition", "why"),
    [
        ({"$ref": "https://example.com/schema.json"}, "is not fetched"),
        ({"$ref": "file:///etc/passwd"}, "is not fetched"),
        ({"properties": {"a": {"pattern": "(?=a)b"}}}, "regex"),
        ({"type": 5}, "not valid"),
        ({"$ref": "#/nowhere"}, "does not exist"),
        ({"$schema": "https://example.com/own"}, "meta-schema"),
        ({"properties": {str(n): {"type": "string"} for n in range(10_000)}}, "more than 5000 values"),
    ],
)
def test_a_schema_that_cannot_be_used_says_why(definition, why):
    """Case 48: nothing is fetched, nothing backtracks, nothing is too large."""
    with pytest.raises(UnusableSchema, match=why):
        Schema(definition)


def test_a_pattern_that_would_backtrack_does_not():
    """Case 48: the engine is linear in the text."""
    schema = Schema({"properties": {"a": {"pattern": "^(a+)+$"}}})

    assert [each.path for each in schema.check({"a": "a" * 50_000 + "!"})] == ["/a"]


def doubling(levels: int) -> dict:
    """A schema whose references double at every level."""
    twice = {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(levels)}
    field = {"properties": {"a": {"$ref": "#/$defs/d0"}, "b": True}, "required": ["c"]}
    return {"$defs": {**twice, f"d{levels}": {"type": "string"}}, **field}


def test_a_check_that_would_never_end_is_not_begun():
    """Two hundred doublings are more steps than there are atoms."""
    with pytest.raises(UnusableSchema, match="more than 1000000 steps"):
        Schema(doubling(200)).check({"a": 1})


def test_what_can_be_checked_but_not_explained_is_named():
    """The member, without the reason; and what is missing."""
    schema = Schema(doubling(10))

    assert schema.check({"a": 1, "b": 2, "c": 3}) == [Wrong("/a", "does not fit its schema")]
    assert schema.check({"a": "x", "c": 3}) == []
    assert schema.check({"a": "x"}) == [Wrong("", '"c" is a required property')]
    assert Schema({**doubling(10), "maxProperties": 1}).check({"a": "x", "c": 1}) == [
        Wrong("", "does not fit the schema")
    ]


def test_a_long_list_against_an_expensive_schema_is_not_checked():
    """Each element takes its steps."""
    schema = Schema({**doubling(14), "items": {"$ref": "#/$defs/d0"}})

    assert schema.check(["x"]) == []
    with pytest.raises(UnusableSchema, match="can take more than"):
        schema.check(["x"] * 1000)


def test_a_chain_of_references_ends_in_an_error_and_not_the_process():
    """Recursion of Python is caught, that of the validator's stack cannot be: so it must not happen at this size."""
    program = (
        "from sluiceway.middlewares.validate.schemas import Schema, UnusableSchema\n"
        "defs = {f'd{n}': {'$ref': f'#/$defs/d{n + 1}'} for n in range(2400)}\n"
        "deep = {'type': 'null'}\n"
        "for _ in range(500): deep = {'not': deep}\n"
        "for schema in ({'$defs': defs, '$ref': '#/$defs/d0'}, deep):\n"
        "    try:\n"
        "        print(Schema(schema).check(1))\n"
        "    except UnusableSchema as error:\n"
        "        print('unusable', error)\n"
    )
    outcome = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert (outcome.returncode, outcome.stdout.count("unusable")) == (0, 2), outcome.stdout + outcome.stderr


def test_schemas_are_kept_by_what_they_say():
    """An equal one is the same; only so many are kept, and what cannot be used is known to be so."""
    schemas = Schemas(2)
    one = schemas.ready(PERSON)

    assert schemas.ready(PERSON) is one
    assert schemas.ready({**PERSON}) is one
    for _ in range(2):
        with pytest.raises(UnusableSchema):
            schemas.ready({"type": 5})
    schemas.ready({"type": "object"})
    assert len(schemas) == 2
    assert schemas.ready(PERSON) is not one


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["age", "name", "x"]), inner, max_size=3)
    ),
)


@given(JSON)
def test_what_is_listed_is_wrong_and_what_is_not_fits(value):
    """The list is empty exactly if the plain answer is yes."""
    import jsonschema_rs

    assert (Schema(PERSON).check(value) == []) == jsonschema_rs.is_valid(PERSON, value)


def test_what_is_no_object_is_wrong_as_a_whole_where_nothing_can_be_explained():
    """Its members cannot be named: it has none."""
    assert Schema({**doubling(10), "type": "object"}).check(["c"]) == [Wrong("", "does not fit the schema")]


def test_the_same_schema_in_ever_new_objects_takes_no_more_room():
    """An upstream that is asked again and again answers with equal definitions, which are other objects."""
    schemas = Schemas(2)
    for _ in range(10):
        schemas.ready({"type": "object"})

    assert (len(schemas), len(schemas._names)) == (1, 2)
