"""What a plain scalar means: the core schema of YAML 1.2 (yaml.org/spec/1.2.2, section 10.3.2) and nothing more."""

from __future__ import annotations

import re
from typing import Final

_MAX_NUMBER: Final = 64
"""Longest number, in characters. Python itself refuses integers of more than 4,300 digits."""
_NULL: Final = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL: Final = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT: Final = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT: Final = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
_DOT: Final = re.compile(r"\.(?=[in])")
"""Python writes infinities and NaN without the dot."""


def resolve_scalar(text: str) -> str | int | float | bool | None:
    """
    What a plain scalar means in the YAML 1.2 core schema (yaml.org/spec/1.2.2, section 10.3.2).

    Raises:
        ValueError: It is a number too long to be meant.
    """
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if _INT.fullmatch(text):
        if len(text) > _MAX_NUMBER:
            raise ValueError(f"a number of {len(text)} digits; at most {_MAX_NUMBER} characters are read as a number")
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
    if _FLOAT.fullmatch(text):
        return float(_DOT.sub("", text.lower()))
    return text
