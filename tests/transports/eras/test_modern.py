"""Rules of the modern era, without I/O. What a request looks like over HTTP is in `http_source/test_modern_posts`."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluiceway.pipeline.protocol.errors import GatewayError, InvalidParams, UnknownMethod
from sluiceway.pipeline.protocol.mcp import Era
from sluiceway.pipeline.protocol.messages import Notification, Request, Response, Result
from sluiceway.transports.eras import modern

CLAIM = {"_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}}
VERSION = modern.VERSION_HEADER


@pytest.mark.parametrize(
    ("message", "headers", "era"),
    [
        (Request(1, "tools/list", CLAIM), {}, Era.MODERN),
        (Request(1, "initialize", CLAIM), {VERSION: "2025-11-25"}, Era.MODERN),
        (Request(1, "tools/list", {"_meta": {"io.modelcontextprotocol/protocolVersion": None}}), {}, Era.MODERN),
        (Request(1, "tools/list"), {VERSION: "2026-07-28"}, Era.MODERN),
        (Request(1, "tools/list"), {VERSION: "2025-11-25"}, Era.LEGACY),
        (Request(1, "tools/list"), {VERSION: "2099-01-01"}, Era.LEGACY),
        (Request(1, "initialize"), {}, Era.LEGACY),
        (Request(1, "tools/list", {"_meta": 5}), {}, Era.LEGACY),
        (Notification("notifications/initialized"), {}, Era.LEGACY),
        (Notification("x", CLAIM), {}, Era.MODERN),
        (Response(1, Result()), {}, Era.LEGACY),
        (Response(1, Result()), {VERSION: "2026-07-28"}, Era.MODERN),
    ],
)
def test_the_body_decides_the_era_then_the_header(message, headers, era):
    """A claim in the body is modern whatever it says; a modern header alone too; all else is legacy."""
    assert era is modern.era_of(message, headers)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain", "plain"), ("=?base64?aMOkbGxv?=", "hällo"), ("=?base64??=", ""), ("=?base64?", "=?base64?"),
        ("=?base64?=", "=?base64?="), ("=?base64?x?=", None), ("=?base64?/w==?=", None), ("=?base64?ä?=", None),
        ("=?BASE64?eA==?=", "=?BASE64?eA==?="), ("=?base64?d29ybGQ=?=", "world"), ("=?base64?d29ybGR=?=", None),
    ],
)  # fmt: skip
def test_header_values_are_decoded(value, text):
    """The sentinel is exact; what it carries must be canonical base64 of UTF-8."""
    assert text == modern.decode_header_value(value)


def test_a_target_that_is_no_string_is_left_to_the_pipeline():
    """There is nothing to mirror; the params are what is wrong."""
    meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}
    request = Request(1, "tools/call", {"_meta": meta, "name": 5})

    modern.check_request(request, {VERSION: "2026-07-28", "mcp-method": "tools/call"})


def test_a_removed_method_is_told_so_and_needs_no_name_header():
    """`Mcp-Name` is a rule for the methods there are: `tasks/result` is gone, with or without it (-32601)."""
    meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}
    request = Request(1, "tasks/result", {"_meta": meta, "taskId": "t1"})

    with pytest.raises(UnknownMethod):
        modern.check_request(request, {VERSION: "2026-07-28", "mcp-method": "tasks/result"})


CLAIMED = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}
METHODS = st.sampled_from(["tools/call", "tools/list", "resources/read", "initialize", "x/y"])
PARAMS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["a", "b", 5, None]),
        "uri": st.sampled_from(["a", "b"]),
        "_meta": st.sampled_from(
            [
                CLAIMED, {**CLAIMED, "more": 1}, {}, 5,
                {**CLAIMED, "io.modelcontextprotocol/protocolVersion": "2025-11-25"},
                {**CLAIMED, "io.modelcontextprotocol/protocolVersion": 5},
                {**CLAIMED, "io.modelcontextprotocol/clientCapabilities": None},
            ]
        ),
    },
)  # fmt: skip
HEADERS = st.fixed_dictionaries(
    {VERSION: st.sampled_from(["2026-07-28", "2025-11-25"]), "mcp-method": METHODS},
    optional={"mcp-name": st.sampled_from(["a", "b", "=?base64?YQ==?="]), "mcp-param-x": st.just("=?base64?x?=")},
)


@settings(max_examples=500)
@given(METHODS, PARAMS, METHODS, PARAMS, HEADERS, st.sampled_from([(), ("mcp-name",), ("accept",)]))
def test_equal_claims_with_equal_headers_pass_alike(method, params, other, others, headers, repeated):
    """So who passed once need not be checked again; None claims nothing, and is always checked."""
    one, two = Request(1, method, params), Request(2, other, others)
    claims = modern.claims_of(one)
    if claims != modern.claims_of(two):
        return

    def outcome(request):
        try:
            modern.check_request(request, headers, repeated)
        except GatewayError as error:
            return type(error)
        return None

    if claims is None:
        assert (InvalidParams, InvalidParams) == (outcome(one), outcome(two))
    else:
        assert outcome(one) == outcome(two)
