"""What a connection's client said once need not be looked at again."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import asdict

from sluiceway.pipeline.protocol.errors import GatewayError, HeaderMismatch
from sluiceway.pipeline.protocol.messages import Request
from sluiceway.transports.eras import modern
from sluiceway.transports.http_source.request import HttpRequest, ScopeRequest
from sluiceway.transports.http_source.said import Said

VERSION = "io.modelcontextprotocol/protocolVersion"
CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
INFO = "io.modelcontextprotocol/clientInfo"

CLAIMED = {VERSION: "2026-07-28", CAPABILITIES: {}}
METHODS = st.sampled_from(["tools/call", "tools/list", "resources/read", "initialize", "x/y"])
PARAMS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["a", "b", 5, None]),
        "uri": st.sampled_from(["a", "b"]),
        "_meta": st.sampled_from(
            [
                CLAIMED, {**CLAIMED, "progressToken": 1}, {}, 5,
                {**CLAIMED, INFO: {"name": "x"}},
                {**CLAIMED, INFO: 5},
                {**CLAIMED, VERSION: "2025-11-25"},
                {**CLAIMED, VERSION: 5},
                {**CLAIMED, CAPABILITIES: {"roots": {}}},
                {**CLAIMED, CAPABILITIES: None},
            ]
        ),
    },
)  # fmt: skip
HEADERS = st.fixed_dictionaries(
    {modern.VERSION_HEADER: st.sampled_from(["2026-07-28", "2025-11-25"]), "mcp-method": METHODS},
    optional={"mcp-name": st.sampled_from(["a", "b", "=?base64?YQ==?="]), "mcp-param-x": st.just("=?base64?x?=")},
)


def posted(headers: dict[str, str]) -> HttpRequest:
    """A request with these headers, whose body nobody reads."""

    async def receive() -> dict[str, object]:
        raise AssertionError("nothing is read")

    fields = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"method": "POST", "path": "/mcp", "headers": fields, "client": ("192.0.2.1", 1)}
    return ScopeRequest(scope, receive, None)


@settings(max_examples=500)
@given(METHODS, PARAMS, METHODS, PARAMS, HEADERS)
def test_who_says_the_same_again_would_pass_again_as_the_same_client(
    method: str, params: dict[str, object], other: str, others: dict[str, object], headers: dict[str, str]
) -> None:
    """Else it is looked at."""
    request = posted(headers)
    one, two = Request(1, method, params), Request(2, other, others)
    try:
        said = Said(one, request)
    except GatewayError:
        return
    if not said.is_said_by(two, request.head):
        assert (method, params) != (other, others)
        return
    afresh = Said(two, request)

    assert asdict(afresh.client) == asdict(said.client)


SAID = {modern.VERSION_HEADER: "2026-07-28", "mcp-method": "tools/call", "mcp-name": "a"}


@pytest.mark.parametrize(
    "more", [{}, {"progressToken": 7}, {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}]
)
def test_a_token_or_a_trace_makes_no_other_client(more: dict[str, object]) -> None:
    """They are of the request."""
    request = posted(SAID)
    said = Said(Request(1, "tools/call", {"name": "a", "_meta": CLAIMED}), request)

    assert said.is_said_by(Request(2, "tools/call", {"name": "a", "_meta": {**CLAIMED, **more}}), request.head)


@pytest.mark.parametrize(
    ("method", "name", "more"),
    [
        ("tools/call", "b", {}),
        ("prompts/get", "a", {}),
        ("tools/call", "a", {VERSION: "2025-11-25"}),
        ("tools/call", "a", {CAPABILITIES: {"roots": {}}}),
        ("tools/call", "a", {INFO: {"name": "x"}}),
    ],
)
def test_whatever_else_is_said_is_looked_at(method: str, name: str, more: dict[str, object]) -> None:
    """A header, or the client, could disagree."""
    request = posted(SAID)
    said = Said(Request(1, "tools/call", {"name": "a", "_meta": CLAIMED}), request)

    assert not said.is_said_by(Request(2, method, {"name": name, "_meta": {**CLAIMED, **more}}), request.head)


@pytest.mark.parametrize("key", [CAPABILITIES, INFO])
@pytest.mark.parametrize(("first", "then"), [(1, True), (True, 1.0), (0, -0.0), ([{"a": False}], [{"a": 0}])])
def test_what_is_equal_in_python_only_is_looked_at(key: str, first: object, then: object) -> None:
    """Upstreams are told what the client declared, and would take it for something else."""
    request = posted(SAID)
    one, other = ({"name": "a", "_meta": {**CLAIMED, key: {"x": value}}} for value in (first, then))
    said = Said(Request(1, "tools/call", one), request)

    assert said.is_said_by(Request(2, "tools/call", one), request.head)
    assert not said.is_said_by(Request(2, "tools/call", other), request.head)


def test_another_head_is_looked_at() -> None:
    """It may carry another credential."""
    request, other = posted(SAID), posted(SAID)
    message = Request(1, "tools/call", {"name": "a", "_meta": CLAIMED})

    assert Said(message, request).is_said_by(message, request.head)
    assert not Said(message, request).is_said_by(message, other.head)


def test_what_disagrees_with_its_head_is_not_remembered() -> None:
    """It is refused."""
    with pytest.raises(HeaderMismatch):
        Said(Request(1, "tools/call", {"name": "b", "_meta": CLAIMED}), posted(SAID))
