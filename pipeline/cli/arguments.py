"""Arguments of a tool as people type them: one JSON object, or `key=value` words. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from ..protocol.messages import EMPTY, Json
from .exits import usage


def is_object(words: Sequence[str]) -> bool:
    """Whether the words are one JSON object, which needs no schema to be understood."""
    return len(words) == 1 and words[0].lstrip().startswith("{")


def parse_arguments(words: Sequence[str], schema: Mapping[str, Json] = EMPTY) -> dict[str, Json]:
    """
    The arguments object of a call.

    `key=value` takes the type that the tool's schema declares; without a declaration, what reads as JSON is JSON and
    the rest is text. `key:=value` is always JSON.

    Args:
        words: What was typed.
        schema: The tool's `inputSchema`.

    Raises:
        Failure: A word cannot be understood.
    """
    if is_object(words):
        value: dict[str, Json] = _json(words[0], "the arguments")
        return value
    properties = schema.get("properties")
    declared: Mapping[str, Json] = properties if isinstance(properties, dict) else EMPTY
    found: dict[str, Json] = {}
    for word in words:
        key, separator, text = word.partition("=")
        if not separator or not key:
            raise usage(f"{word!r} is neither a JSON object nor key=value")
        name = key.removesuffix(":")
        if name in found:
            raise usage(f"{name!r} is given twice")
        found[name] = _json(text, name) if key.endswith(":") else _typed(text, name, declared.get(name))
    return found


def _typed(text: str, name: str, declared: Json) -> Json:
    types = declared.get("type") if isinstance(declared, dict) else None
    allowed = [types] if isinstance(types, str) else types if isinstance(types, list) else []
    if allowed == ["string"]:
        return text
    try:
        return json.loads(text)
    except ValueError:
        if allowed and "string" not in allowed:
            raise usage(f"{name!r} must be {' or '.join(allowed)}, not {text!r}") from None
        return text


def _json(text: str, name: str) -> Json:
    try:
        return json.loads(text)
    except ValueError as error:
        raise usage(f"{name!r} is not JSON: {error}") from error
