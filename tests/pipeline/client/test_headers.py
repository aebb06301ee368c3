"""Headers that repeat parts of a modern request."""

import pytest

from sluiceway.pipeline.client.headers import annotated, encode_value, param_headers, standard_headers
from sluiceway.pipeline.protocol.messages import Notification, Request


@pytest.mark.parametrize(
    ("value", "header"),
    [
        ("tools/call", "tools/call"),
        ("a b", "a b"),
        ("", ""),
        (" a", "=?base64?IGE=?="),
        ("ä", "=?base64?w6Q=?="),
        ("a\r\nx: y", "=?base64?YQ0KeDogeQ==?="),
        ("=?base64?YQ==?=", "=?base64?PT9iYXNlNjQ/WVE9PT89?="),
    ],
)
def test_a_value_is_wrapped_when_http_cannot_carry_it(value, header):
    """Edge spaces, non-ASCII, line ends, and what looks wrapped already."""
    assert header == encode_value(value)


def test_a_request_names_its_version_its_method_and_its_target():
    """A resource's name is its uri; a method without a target has none."""
    read = standard_headers(Request(1, "resources/read", {"uri": "demo://ü"}), "2026-07-28")
    listing = standard_headers(Notification("tools/list"), "2026-07-28")

    assert {
        "mcp-protocol-version": "2026-07-28",
        "mcp-method": "resources/read",
        "mcp-name": "=?base64?ZGVtbzovL8O8?=",
    } == read
    assert {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/list"} == listing


SCHEMA = {
    "type": "object",
    "properties": {
        "region": {"type": "string", "x-mcp-header": "Region"},
        "count": {"type": "integer", "x-mcp-header": "Count"},
        "dry": {"type": "boolean", "x-mcp-header": "Dry"},
        "price": {"type": "number", "x-mcp-header": "Price"},
        "bad": {"type": "string", "x-mcp-header": "no spaces"},
        "plain": {"type": "string"},
        "odd": True,
        "where": {"type": "object", "properties": {"zone": {"type": "string", "x-mcp-header": "Zone"}}},
        "many": {"type": "array", "items": {"properties": {"x": {"type": "string", "x-mcp-header": "X"}}}},
    },
}


def test_only_text_integers_and_booleans_reached_through_properties_are_annotated():
    """Numbers, bad names, and what sits under `items` do not count (SEP-2243)."""
    assert [
        (("region",), "Region"),
        (("count",), "Count"),
        (("dry",), "Dry"),
        (("where", "zone"), "Zone"),
    ] == list(annotated(SCHEMA))
    assert not list(annotated(None))


def test_annotated_arguments_become_headers_unless_absent_or_null():
    """A nested value that is not there is no error."""
    arguments = {"region": "eu", "count": 3, "dry": False, "where": {"zone": "ä"}, "plain": "x"}

    assert {
        "mcp-param-region": "eu",
        "mcp-param-count": "3",
        "mcp-param-dry": "false",
        "mcp-param-zone": "=?base64?w6Q=?=",
    } == param_headers(SCHEMA, arguments)
    assert {"mcp-param-dry": "true"} == param_headers(SCHEMA, {"region": None, "dry": True, "where": "nowhere"})
