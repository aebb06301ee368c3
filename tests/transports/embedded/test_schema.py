"""Signatures to JSON Schema and back."""

from __future__ import annotations

import dataclasses
import enum
from typing import Annotated, Any, Literal, TypedDict

import attrs
import msgspec
import pytest

from sluiceway.transports.embedded import InvalidParams, Text, ToolResult
from sluiceway.transports.embedded.schema import form_schema, object_schema, output_schema, parameters_of


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


@attrs.frozen
class Point:
    x: int
    y: int = 0


@dataclasses.dataclass
class Line:
    start: Point
    end: Point
    color: Color = Color.RED


class Options(TypedDict, total=False):
    bold: bool


class Node(msgspec.Struct):
    value: int
    next: Node | None = None


class Database:
    """Not JSON."""


def nobody(_: Any) -> bool:
    return False


def test_a_described_string_makes_the_schema_that_clients_know() -> None:
    """A required, described text argument gives exactly the usual schema (S3-TC-03)."""

    def search(query: Annotated[str, msgspec.Meta(description="What to look for")]) -> str:
        return query

    expected = {
        "type": "object",
        "properties": {"query": {"type": "string", "description": "What to look for"}},
        "required": ["query"],
        "additionalProperties": False,
    }

    assert expected == parameters_of(search, nobody).schema


def test_a_function_without_arguments_takes_an_empty_object() -> None:
    """A tool without arguments says so, and refuses any (S3-SY-02)."""

    def nothing() -> None: ...

    parameters = parameters_of(nothing, nobody)

    assert {"type": "object", "properties": {}, "additionalProperties": False} == parameters.schema
    with pytest.raises(InvalidParams, match="unknown field `x`"):
        parameters.convert({"x": 1})


def test_nested_types_arrive_as_themselves() -> None:
    """attrs, dataclass, enum, TypedDict, Literal and defaults are described, checked and converted."""

    def draw(
        line: Line, options: Options, mode: Literal["fast", "fine"] = "fast", label: str | None = None
    ) -> None: ...

    parameters = parameters_of(draw, nobody)
    values = parameters.convert({"line": {"start": {"x": 1}, "end": {"x": 2, "y": 3}}, "options": {"bold": True}})

    assert {"Line", "Point", "Color", "Options"} == set(parameters.schema["$defs"])
    assert ["line", "options"] == parameters.schema["required"]
    assert {
        "line": Line(Point(1), Point(2, 3)),
        "options": {"bold": True},
        "mode": "fast",
        "label": None,
    } == values


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({}, "missing required field `n`"),
        ({"n": "1"}, "n: Expected `int`, got `str`"),
        ({"n": 0}, "n: Expected `int` >= 1"),
        ({"n": 1, "p": {"x": "a"}}, "p.x: Expected `int`, got `str`"),
    ],
)
def test_a_bad_argument_is_named(arguments: dict[str, Any], problem: str) -> None:
    """Whatever is wrong, the text names the parameter (S3-TC-02)."""

    def take(n: Annotated[int, msgspec.Meta(ge=1)], p: Point | None = None) -> None: ...

    with pytest.raises(InvalidParams, match=problem.replace("(", r"\(")):
        parameters_of(take, nobody).convert(arguments)


def test_text_is_read_as_what_is_wanted_where_only_text_can_be_sent() -> None:
    """Prompt and uri arguments are text; a number is read out of it."""

    def take(n: int) -> None: ...

    assert {"n": 7} == parameters_of(take, nobody).convert({"n": "7"}, strict=False)


def test_injected_parameters_are_not_in_the_schema() -> None:
    """What the server provides is nobody's argument."""

    def query(sql: str, db: Database) -> None: ...

    parameters = parameters_of(query, lambda hint: hint is Database)

    assert ["sql"] == list(parameters.schema["properties"])
    assert {"db": Database} == parameters.injected


def test_signatures_that_cannot_be_served_are_refused_with_the_remedy() -> None:
    """Missing hints, star arguments and unknown types are refused when the function is registered."""

    def bare(x): ...  # type: ignore[no-untyped-def]

    def starred(*args: int) -> None: ...

    def unknown(db: Database) -> None: ...

    for function, problem in ((bare, "needs a type annotation"), (starred, "name each"), (unknown, r"server\.provide")):
        with pytest.raises(TypeError, match=problem):
            parameters_of(function, nobody)


def test_a_type_that_contains_itself_keeps_its_definition() -> None:
    """A recursive type stands at the root and under `$defs`, where it refers to itself."""
    schema = object_schema(Node)

    assert "object" == schema["type"]
    assert {"Node"} == set(schema["$defs"])


def test_only_objects_of_a_declared_shape_have_an_output_schema() -> None:
    """Text, content and lists have none; classes and dicts have one."""

    def point() -> Point: ...  # type: ignore[empty-body]

    def mapping() -> dict[str, int]: ...  # type: ignore[empty-body]

    def text() -> str: ...  # type: ignore[empty-body]

    def content() -> Text: ...  # type: ignore[empty-body]

    def whole() -> ToolResult: ...  # type: ignore[empty-body]

    def items() -> list[Point]: ...  # type: ignore[empty-body]

    def anything() -> Any: ...

    def foreign() -> Database: ...  # type: ignore[empty-body]

    found = [output_schema(each) for each in (point, mapping, text, content, whole, items, anything, foreign)]

    assert ["object", "object"] == [each["type"] for each in found[:2] if each]
    assert [None] * 6 == found[2:]


@attrs.frozen
class Form:
    name: str
    color: Color
    size: Literal["s", "m"] = "s"
    sure: bool = False


def test_a_form_is_flat() -> None:
    """Choices become text with an enum, references are resolved, and nested objects are refused."""
    schema = form_schema(Form)

    assert ["name", "color"] == schema["required"]
    assert {"name": "string", "color": "string", "size": "string", "sure": "boolean"} == {
        name: member["type"] for name, member in schema["properties"].items()
    }
    with pytest.raises(TypeError, match="start: a form asks"):
        form_schema(Line)
