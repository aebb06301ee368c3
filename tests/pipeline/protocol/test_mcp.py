"""MCP as data, checked against the published schemas."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sluiceway.pipeline.protocol.mcp import (
    LATEST,
    LATEST_LEGACY,
    LEGACY_VERSIONS,
    METHODS,
    MODERN_VERSIONS,
    Era,
    Kind,
    era_of_version,
    meta_of,
    method_of,
    quiet_meta,
    target_of,
)

SCHEMAS = Path(__file__).parents[2] / "data" / "mcp-schema"


def _methods(revision: str, union: str) -> set[str]:
    schema = json.loads((SCHEMAS / f"{revision}.json").read_text(encoding="utf-8"))
    definitions: dict[str, Any] = schema.get("$defs") or schema["definitions"]
    named = definitions[union]
    members = named.get("anyOf", [named])
    found = (definitions[member["$ref"].rpartition("/")[2]] if "$ref" in member else member for member in members)
    return {definition["properties"]["method"]["const"] for definition in found}


@pytest.mark.parametrize("revision", LEGACY_VERSIONS)
def test_every_legacy_client_message_has_a_row(revision: str) -> None:
    """Requests and notifications of each revision are in the table as legacy."""
    for name in _methods(revision, "ClientRequest") | _methods(revision, "ClientNotification"):
        assert METHODS[name].legacy, name


@pytest.mark.parametrize("revision", MODERN_VERSIONS)
def test_every_modern_client_message_has_a_row(revision: str) -> None:
    """And the other way round: what the schema lacks is not marked modern, except the tasks extension."""
    names = _methods(revision, "ClientRequest") | _methods(revision, "ClientNotification")

    assert {n for n, row in METHODS.items() if row.modern and not n.startswith("tasks/")} == names


def test_notifications_are_never_calls() -> None:
    """The name decides the kind."""
    for name, row in METHODS.items():
        assert (row.kind is Kind.NOTIFY) == name.startswith("notifications/"), name


def test_a_version_belongs_to_one_era_or_none() -> None:
    """Guessing is not allowed."""
    assert era_of_version(LATEST) is Era.MODERN
    assert era_of_version(LATEST_LEGACY) is Era.LEGACY
    assert era_of_version("2026-01-01") is None


def test_an_unknown_method_is_treated_with_care() -> None:
    """Relayed, never repeated; a notification by its name."""
    call, notice = method_of("acme/do"), method_of("notifications/acme")

    assert (call.kind, call.repeatable, call.target) == (Kind.CALL, False, None)
    assert notice.kind is Kind.NOTIFY
    assert method_of("tools/call").target == "name"


def test_meta_is_an_object_or_nothing() -> None:
    """A malformed one reads as empty."""
    assert meta_of({"_meta": {"a": 1}}) == {"a": 1}
    assert meta_of({"_meta": 5}) == {}
    assert meta_of({}) == {}


def test_a_target_is_a_string_under_the_methods_own_key() -> None:
    """Tool and prompt names, uris, task ids."""
    assert target_of("tools/call", {"name": "x"}) == "x"
    assert target_of("resources/read", {"uri": "a://b"}) == "a://b"
    assert target_of("tools/call", {"name": 5}) is None
    assert target_of("tools/list", {"name": "x"}) is None
    assert target_of("acme/do", {"name": "x"}) is None


def test_a_request_of_ones_own_reports_to_nobody() -> None:
    """Everything else of `_meta` stays; what is no object is nothing."""
    assert quiet_meta({"_meta": {"progressToken": 1, "traceparent": "x"}}) == {"traceparent": "x"}
    assert quiet_meta({"_meta": 1}) == {}
