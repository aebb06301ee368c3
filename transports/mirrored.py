"""
Arguments that clients mirror into `Mcp-Param-*` headers (`x-mcp-header`, SEP-2243; 2026-07-28, streamable-http).

Only the tool's schema says what is mirrored, so whoever compares header and body, or makes the headers, must know it.
An annotation that the spec forbids makes clients drop the tool.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from collections.abc import Iterator, Mapping
from typing import Final, final

from attrs import frozen

from sluiceway.pipeline.protocol.errors import HeaderMismatch
from sluiceway.pipeline.protocol.messages import Json

ANNOTATION: Final = "x-mcp-header"
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_TYPES: Final = ("string", "integer", "boolean")
_SENTINEL: Final = ("=?base64?", "?=")


@final
@frozen
class Mirrored:
    """One argument and its header."""

    path: tuple[str, ...]
    """Keys from the root of the arguments."""
    header: str
    """In lower case."""


def mirrored_of(schema: Mapping[str, Json]) -> tuple[Mirrored, ...]:
    """
    The annotated arguments of an input schema.

    Raises:
        ValueError: An annotation breaks a rule of the spec; the text names it.
    """
    found = tuple(_reachable(schema, ()))
    if sum(1 for _ in _annotations(schema)) != len(found):
        raise ValueError(f"{ANNOTATION} may stand only on properties reached through `properties` alone")
    if len({each.header for each in found}) != len(found):
        raise ValueError(f"two properties have the same {ANNOTATION}")
    return found


def _reachable(schema: Mapping[str, Json], path: tuple[str, ...]) -> Iterator[Mirrored]:
    properties = schema.get("properties")
    for key, member in (properties if isinstance(properties, dict) else {}).items():
        if not isinstance(member, dict):
            continue
        here = (*path, key)
        if ANNOTATION in member:
            name = member[ANNOTATION]
            if not isinstance(name, str) or not _TOKEN.fullmatch(name):
                raise ValueError(f"{'.'.join(here)}: {ANNOTATION} {name!r} is not a header name")
            if member.get("type") not in _TYPES:
                raise ValueError(f"{'.'.join(here)}: {ANNOTATION} needs a type of {', '.join(_TYPES)}")
            yield Mirrored(here, f"mcp-param-{name.lower()}")
        yield from _reachable(member, here)


def _annotations(schema: Json) -> Iterator[None]:
    if isinstance(schema, dict):
        if ANNOTATION in schema and not isinstance(schema[ANNOTATION], dict):
            yield None
        for member in schema.values():
            yield from _annotations(member)
    elif isinstance(schema, list):
        for member in schema:
            yield from _annotations(member)


def check_mirrored(mirrored: tuple[Mirrored, ...], arguments: Json, headers: Mapping[str, str]) -> None:
    """
    Compare the headers of a modern HTTP request with its arguments.

    Args:
        mirrored: Of the tool that is called.
        arguments: As sent, not yet validated.
        headers: Names in lower case.

    Raises:
        HeaderMismatch: A header is missing, superfluous, malformed, or says something else than the body.
    """
    for each in mirrored:
        value = _value_at(arguments, each.path)
        header = headers.get(each.header)
        if value is None and header is None:
            continue
        if value is None or header is None:
            lacking = "the header" if header is None else "the argument"
            raise HeaderMismatch(f"{each.header} and the argument {'.'.join(each.path)} differ: {lacking} is missing")
        if not _same(_decode(each.header, header.strip()), value):
            raise HeaderMismatch(f"{each.header} and the argument {'.'.join(each.path)} differ")


def mirror(mirrored: tuple[Mirrored, ...], arguments: Json) -> dict[str, str]:
    """The headers of a call with these arguments, values as text; arguments that are absent have none."""
    values = {each.header: _value_at(arguments, each.path) for each in mirrored}
    return {name: _text(value) for name, value in values.items() if isinstance(value, str | int | float)}


def _text(value: str | float) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _value_at(arguments: Json, path: tuple[str, ...]) -> Json:
    for key in path:
        if not isinstance(arguments, dict):
            return None
        arguments = arguments.get(key)
    return arguments


def _decode(name: str, header: str) -> str:
    prefix, suffix = _SENTINEL
    if not (header.startswith(prefix) and header.endswith(suffix)):
        return header
    try:
        return b64decode(header[len(prefix) : -len(suffix)], validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise HeaderMismatch(f"{name} is not valid base64 of UTF-8") from error


def _same(header: str, value: Json) -> bool:
    """Numbers are compared as numbers (`42.0` is 42), as the spec asks."""
    if isinstance(value, bool):
        return header == ("true" if value else "false")
    if isinstance(value, int | float):
        try:
            number = float(header)
        except ValueError:
            return False
        return bool(number == value)
    return bool(header == value)
