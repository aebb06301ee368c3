"""Published JSON Schemas of MCP, for tests of what we build."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path

import jsonschema_rs
import pytest

SCHEMAS = Path(__file__).parents[2] / "data" / "mcp-schema"


@functools.cache
def _validator(revision: str, definition: str) -> jsonschema_rs.Validator:
    schema = json.loads((SCHEMAS / f"{revision}.json").read_text(encoding="utf-8"))
    place = "$defs" if "$defs" in schema else "definitions"
    return jsonschema_rs.validator_for({**schema, "$ref": f"#/{place}/{definition}"})


@pytest.fixture
def validate_message() -> Callable[..., None]:
    """`validate_message(json_text, revision, definition="JSONRPCMessage")` raises unless the text is one."""

    def validate(message: bytes, revision: str, definition: str = "JSONRPCMessage") -> None:
        _validator(revision, definition).validate(json.loads(message))

    return validate
