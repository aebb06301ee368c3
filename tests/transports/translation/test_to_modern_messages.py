"""What is said in one era as the other understands it: tables."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sluiceway.pipeline.protocol.errors import UpstreamProtocolError
from sluiceway.pipeline.protocol.mcp import LATEST, LATEST_LEGACY, MetaKey
from sluiceway.pipeline.protocol.messages import ErrorReply, Notification, Request, Result
from sluiceway.transports.translation.to_modern_messages import (
    choose_version,
    has_legacy,
    introduction,
    legacy_error,
    legacy_notification,
    legacy_result,
    modern_capabilities,
    modern_params,
    negotiate,
)

INFO = {"name": "s", "version": "2"}


@pytest.mark.parametrize(
    ("requested", "version"),
    [
        ("2024-11-05", "2024-11-05"),
        ("2025-03-26", "2025-03-26"),
        ("2025-06-18", "2025-06-18"),
        ("2025-11-25", "2025-11-25"),
        ("2024-10-07", LATEST_LEGACY),
        (LATEST, LATEST_LEGACY),
        ("2031-01-01", LATEST_LEGACY),
    ],
)
def test_a_client_gets_the_revision_it_asks_for_or_the_latest(requested: str, version: str) -> None:
    """Only legacy ones can be negotiated by a handshake."""
    assert negotiate(requested) == version


@pytest.mark.parametrize(
    ("supported", "chosen", "legacy"),
    [
        ([LATEST], LATEST, False),
        ([LATEST, "2025-11-25"], LATEST, True),
        (["2099-01-01", LATEST], LATEST, False),
        (["2099-01-01"], None, False),
        ("rubbish", None, False),
        (None, None, False),
    ],
)
def test_what_an_upstream_supports_is_read_from_its_discovery(supported: Any, chosen: str | None, legacy: bool) -> None:
    """The version to speak with it, and whether it knows handshakes."""
    discovered = {"supportedVersions": supported}

    assert (choose_version(discovered), has_legacy(discovered)) == (chosen, legacy)


@pytest.mark.parametrize(
    ("declared", "modern"),
    [
        ({}, {}),
        ({"roots": {"listChanged": True}, "sampling": {"tools": {}}}, {"roots": {}, "sampling": {"tools": {}}}),
        ({"tasks": {"list": {}}, "elicitation": {"url": {}}}, {"elicitation": {"url": {}}}),
        ({"roots": "?", "experimental": {"x": {}}, "new": 1}, {"roots": "?", "experimental": {"x": {}}, "new": 1}),
    ],
)
def test_a_clients_capabilities_are_declared_as_they_are_known_now(declared: Any, modern: Any) -> None:
    """Its own and no others: without tasks and changes of roots, everything else untouched."""
    assert modern_capabilities(declared) == modern


@pytest.mark.parametrize(
    ("discovered", "answer"),
    [
        (
            {"_meta": {MetaKey.SERVER_INFO.value: INFO}, "capabilities": {"tools": {}}, "instructions": "Ask."},
            {"capabilities": {"tools": {}}, "instructions": "Ask.", "serverInfo": INFO},
        ),
        ({"serverInfo": INFO, "_meta": {"k": 1}, "new": 1}, {"serverInfo": INFO, "_meta": {"k": 1}, "new": 1}),
        ({"capabilities": "?"}, {"serverInfo": {"name": "up", "version": "unknown"}}),
    ],
)
def test_a_discovery_is_an_introduction(discovered: Any, answer: Any) -> None:
    """Capabilities, instructions and name are kept, hints for caches and the list of versions are not."""
    whole = {"supportedVersions": [LATEST], "resultType": "complete", "ttlMs": 5, "cacheScope": "public", **discovered}

    assert introduction(whole, "2025-06-18", "up") == {"capabilities": {}, "protocolVersion": "2025-06-18", **answer}


def test_params_gain_metadata_and_lose_what_means_something_else_now() -> None:
    """Keys of the client's own `_meta` stay, as do members nobody knows."""
    params = {"name": "n", "task": {"ttl": 1}, "requestState": "x", "inputResponses": {}, "new": [1],
              "_meta": {"progressToken": 7, "k": "v"}}  # fmt: skip

    assert modern_params(params, {"a": 1}) == {
        "name": "n",
        "new": [1],
        "_meta": {"progressToken": 7, "k": "v", "a": 1},
    }
    assert modern_params({"_meta": "rubbish"}, {"a": 1}) == {"_meta": {"a": 1}}


@pytest.mark.parametrize(
    ("method", "modern", "legacy"),
    [
        ("tools/call", {"content": [], "resultType": "complete"}, {"content": []}),
        ("tools/call", {"content": []}, {"content": []}),
        ("tools/call", {"structuredContent": {"a": 1}, "resultType": "complete"}, {"structuredContent": {"a": 1}}),
        ("tools/call", {"structuredContent": [1], "content": [], "resultType": "complete"}, {"content": []}),
        ("tools/call", {"structuredContent": 5, "content": []}, {"content": []}),
        ("x/y", {"structuredContent": 5, "resultType": "complete"}, {"structuredContent": 5}),
        (
            "resources/read",
            {"contents": [], "ttlMs": 5, "cacheScope": "public", "_meta": {"k": 1}, "resultType": "complete"},
            {"contents": [], "ttlMs": 5, "cacheScope": "public", "_meta": {"k": 1}},
        ),
        (
            "tools/list",
            {
                "tools": [
                    {"name": "a", "outputSchema": {"type": "object"}},
                    {"name": "b", "outputSchema": {"type": "array"}},
                    {"name": "c", "outputSchema": {"anyOf": []}, "title": "C"},
                    {"name": "d"},
                ],
                "nextCursor": "",
                "resultType": "complete",
            },
            {
                "tools": [
                    {"name": "a", "outputSchema": {"type": "object"}},
                    {"name": "b"},
                    {"name": "c", "title": "C"},
                    {"name": "d"},
                ],
                "nextCursor": "",
            },
        ),
        ("tools/list", {"tools": "outputSchema"}, {"tools": "outputSchema"}),
    ],
)
def test_a_complete_result_loses_what_a_legacy_client_could_not_read(method: str, modern: Any, legacy: Any) -> None:
    """The type of the result, and structure that is no object; everything else stays."""
    assert legacy_result("up", method, Result(modern)) == Result(legacy)


def test_the_text_of_a_results_members_is_not_touched() -> None:
    """Numbers and unknown members come out as the upstream wrote them."""
    raw = b'{"resultType":"complete", "content":[ {"n": 1.50, "big": 123456789012345678901234567890} ]}'

    translated = legacy_result("up", "tools/call", Result(raw=raw))

    assert translated is not None
    assert b'[ {"n": 1.50, "big": 123456789012345678901234567890} ]' in translated.body.raw
    assert "resultType" not in json.loads(translated.body.raw)


def test_a_result_that_asks_for_input_is_none_yet() -> None:
    """It is not the client's to see."""
    assert legacy_result("up", "tools/call", Result({"resultType": "input_required", "requestState": "s"})) is None


@pytest.mark.parametrize("kind", ["task", 7, None])
def test_a_result_of_another_type_fails(kind: object) -> None:
    """A client of an older revision cannot have asked for it, and could not read it."""
    with pytest.raises(UpstreamProtocolError, match="resultType"):
        legacy_result("up", "tools/call", Result({"resultType": kind}))


@pytest.mark.parametrize(
    ("method", "error", "code"),
    [
        ("resources/read", ErrorReply(-32602, "no", {"uri": "a:b"}, http_status=400), -32002),
        ("resources/read", ErrorReply(-32602, "no"), -32602),
        ("resources/read", ErrorReply(-32603, "no", {"uri": "a:b"}), -32603),
        ("tools/call", ErrorReply(-32602, "no", {"uri": "a:b"}), -32602),
        ("tools/call", ErrorReply(-32601, "no", http_status=404), -32601),
        ("tools/call", ErrorReply(-32021, "no", {"requiredCapabilities": {}}, http_status=400), -32021),
    ],
)
def test_errors_have_the_codes_of_the_clients_era(method: str, error: ErrorReply, code: int) -> None:
    """A resource that is not there had a code of its own; the status of the other era's HTTP goes."""
    translated = legacy_error(Request(1, method), error)

    assert translated == ErrorReply(code, "no", error.data)
    assert translated.http_status is None


def test_a_subscriptions_notification_is_a_sessions() -> None:
    """It names no subscription any more; the rest of its `_meta` stays."""
    tagged = {MetaKey.SUBSCRIPTION_ID.value: 9}

    assert legacy_notification(Notification("n", {"uri": "a", "_meta": tagged})) == Notification("n", {"uri": "a"})
    assert legacy_notification(Notification("n", {"_meta": {**tagged, "k": 1}})) == Notification(
        "n", {"_meta": {"k": 1}}
    )
    untagged = Notification("n", {"uri": "a"})
    assert legacy_notification(untagged) is untagged
