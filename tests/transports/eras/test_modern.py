"""Rules of the modern era, without I/O. What a request looks like over HTTP is in `http_source/test_modern_posts`."""

from __future__ import annotations

import pytest

from sluiceway.pipeline.protocol.errors import UnknownMethod
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
