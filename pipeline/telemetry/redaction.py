"""
Values from outside, made fit for a log line: secrets masked, size bounded.

Masking goes by the name of the key, because the gateway cannot know what a value means. Names are compared without
case, `-` and `_`, so that `apiKey`, `api_key` and `API-Key` are one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, final
from urllib.parse import unquote

import msgspec

from ..model.when import matcher
from ..protocol.messages import Json

SENSITIVE_KEYS: Final = (
    "*password*", "*passwd*", "*passphrase*", "*secret*", "*token*", "*api_key*", "*private_key*", "*credential*",
    "*authorization*", "*cookie*", "*session_id*", "*request_state*",
)  # fmt: skip
"""Globs of keys whose values are not for logs, whatever they are."""

MASK: Final = "***"
"""What stands in for a masked value."""

MAX_CHARS: Final = 200
"""Characters of one string."""
MAX_VALUES: Final = 100
"""Values of one tree, containers included; what comes after is left out."""
MAX_DEPTH: Final = 8
"""Levels of containers; what lies deeper is left out."""
MAX_KNOWN: Final = 1024
"""Names of keys, up to `MAX_CHARS` long, of which it is remembered whether they are masked."""
LEFT_OUT: Final = "..."
"""What stands in for what was left out."""

_USERINFO: Final = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*://)[^\s/?#@]*@")
_ARGUMENT: Final = re.compile(r"(?<=[?&;#])([^=&;#\s]+)=([^&;#\s]*)")
_canonical = msgspec.json.Encoder(order="deterministic").encode


def clip(text: str, max_chars: int = MAX_CHARS) -> str:
    """The text itself, or its beginning and how many characters are missing."""
    return text if len(text) <= max_chars else f"{text[:max_chars]}{LEFT_OUT}(+{len(text) - max_chars})"


def digest(value: Json) -> str:
    """A short fingerprint: equal for equal JSON values, whatever the order of their keys."""
    return f"sha256:{hashlib.sha256(_canonical(value)).hexdigest()[:16]}"


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


@final
class Redaction:
    """
    Masks and shortens JSON values.

    Args:
        keys: Globs of keys whose values are masked; `SENSITIVE_KEYS` or a list of your own.
    """

    def __init__(self, keys: Iterable[str] = SENSITIVE_KEYS) -> None:
        self._is_sensitive = matcher(tuple(map(_plain, keys)))
        self._known = lru_cache(MAX_KNOWN)(self._hides)  # the same few names come again and again

    def hides(self, key: str) -> bool:
        """Whether values of this key are masked."""
        return self._known(key) if len(key) <= MAX_CHARS else self._hides(key)

    def _hides(self, key: str) -> bool:
        return self._is_sensitive(_plain(key))

    def uri(self, text: str) -> str:
        """A uri without its password and without the arguments whose names are masked; anything else as it is."""
        if "://" not in text:
            return text
        text = _USERINFO.sub(rf"\1{MASK}@", text)
        return _ARGUMENT.sub(self._argument, text) if "=" in text else text

    def _argument(self, match: re.Match[str]) -> str:
        return f"{match[1]}={MASK}" if self.hides(unquote(match[1])) else match[0]

    def __call__(self, value: Json) -> Json:
        """A copy of a value that is safe to log and at most some 20 kB long. The value itself is not changed."""
        return self._copy(value, MAX_DEPTH, [MAX_VALUES])

    def _copy(self, value: Json, depth: int, left: list[int]) -> Json:
        left[0] -= 1
        if isinstance(value, str):
            if "://" in value:
                value = self.uri(value)
            return value if len(value) <= MAX_CHARS else clip(value)
        if not isinstance(value, dict | list):
            return value
        if depth == 0 or left[0] <= 0:
            return LEFT_OUT
        if isinstance(value, list):
            items = [self._copy(item, depth - 1, left) for item in value[: left[0]]]
            return items if len(items) == len(value) else [*items, LEFT_OUT]
        copy: dict[str, Json] = {}
        for key, item in value.items():
            if left[0] <= 0:
                copy[LEFT_OUT] = LEFT_OUT
                break
            copy[key if len(key) <= MAX_CHARS else clip(key)] = (
                MASK if self.hides(key) else self._copy(item, depth - 1, left)
            )
        return copy
