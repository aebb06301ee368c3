"""Arguments mirrored into `Mcp-Param-*` headers."""

from __future__ import annotations

from typing import Any

import pytest

from sluiceway.pipeline.protocol.errors import HeaderMismatch
from sluiceway.transports.embedded import Server, Tool
from sluiceway.transports.mirrored import check_mirrored, mirrored_of

STRING = {"type": "string", "x-mcp-header": "Region"}


def schema(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


MIRRORED = mirrored_of(
    schema(
        region=STRING,
        size={"type": "integer", "x-mcp-header": "Size"},
        deep=schema(flag={"type": "boolean", "x-mcp-header": "Flag"}),
    )
)


@pytest.mark.parametrize(
    ("arguments", "headers"),
    [
        ({}, {}),
        ({"region": None}, {}),
        ({"region": "us"}, {"mcp-param-region": "us"}),
        ({"region": "us"}, {"mcp-param-region": "  us "}),
        ({"region": "Hello"}, {"mcp-param-region": "=?base64?SGVsbG8=?="}),
        ({"region": "SGVsbG8="}, {"mcp-param-region": "SGVsbG8="}),
        ({"region": "=?base64?SGVsbG8="}, {"mcp-param-region": "=?base64?SGVsbG8="}),
        ({"size": 42}, {"mcp-param-size": "42.0"}),
        ({"deep": {"flag": True}}, {"mcp-param-flag": "true"}),
        ({"deep": "not an object"}, {"mcp-param-unknown": "x"}),
    ],
)
def test_equal_values_pass(arguments: dict[str, Any], headers: dict[str, str]) -> None:
    """A header says what the argument says, encoded or not; numbers are compared as numbers."""
    check_mirrored(MIRRORED, arguments, headers)


@pytest.mark.parametrize(
    ("arguments", "headers"),
    [
        ({"region": "us"}, {}),
        ({}, {"mcp-param-region": "us"}),
        ({"region": "us"}, {"mcp-param-region": "eu"}),
        ({"region": "us"}, {"mcp-param-region": "US"}),
        ({"region": "Hello"}, {"mcp-param-region": "=?base64?SGVsbG8?="}),
        ({"region": "Hello"}, {"mcp-param-region": "=?base64?SGVs!!!bG8=?="}),
        ({"region": "x"}, {"mcp-param-region": "=?base64?/w==?="}),
        ({"size": 42}, {"mcp-param-size": "many"}),
        ({"deep": {"flag": True}}, {"mcp-param-flag": "True"}),
    ],
)
def test_any_difference_is_refused(arguments: dict[str, Any], headers: dict[str, str]) -> None:
    """Missing, superfluous, malformed and different headers are HeaderMismatch (SEP-2243)."""
    with pytest.raises(HeaderMismatch):
        check_mirrored(MIRRORED, arguments, headers)


def test_the_refusal_says_what_is_missing() -> None:
    """A header without its argument and an argument without its header are told apart."""
    with pytest.raises(HeaderMismatch, match="the argument is missing"):
        check_mirrored(MIRRORED, {}, {"mcp-param-region": "us"})
    with pytest.raises(HeaderMismatch, match="the header is missing"):
        check_mirrored(MIRRORED, {"region": "us"}, {})


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (schema(a={"type": "string", "x-mcp-header": "no spaces"}), "not a header name"),
        (schema(a={"type": "string", "x-mcp-header": 7}), "not a header name"),
        (schema(a={"type": "number", "x-mcp-header": "A"}), "needs a type"),
        (schema(a=STRING, b={"type": "string", "x-mcp-header": "REGION"}), "the same"),
        (schema(a={"type": "array", "items": STRING}), "through `properties`"),
        ({"type": "object", "allOf": [schema(a=STRING)]}, "through `properties`"),
        ({"type": "object", "properties": {"a": True, "b": {"prefixItems": [STRING]}}}, "through `properties`"),
    ],
)
def test_annotations_the_spec_forbids_are_refused_at_registration(bad: dict[str, Any], problem: str) -> None:
    """Clients would drop such a tool without a word, so its author hears of it first."""

    class Bad(Tool):
        name = "bad"
        schema = bad

    with pytest.raises(ValueError, match=problem):
        Server("s").add_tool(Bad())
