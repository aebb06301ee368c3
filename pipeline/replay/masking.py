"""
What is taken out of a message before it is written down.

Values whose key looks secret are replaced by `***:` and a fingerprint. It is keyed with a secret that lives as long as
the recording and is written nowhere: equal values stay equal on one tape, so that a replay decides alike, and nobody
can try out values against it. Secrets of the configuration are replaced wherever they turn up.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from hashlib import blake2s
from typing import Final, final

from ..model.when import matcher
from ..protocol.messages import Json, encode_json
from ..telemetry.redaction import MASK, SENSITIVE_KEYS, Redaction

KEPT_HEADERS: Final = (
    "accept", "accept-*", "content-encoding", "content-length", "content-type", "host", "mcp-method", "mcp-name",
    "mcp-protocol-version", "origin", "traceparent", "tracestate", "user-agent", "x-correlation-id", "x-request-id",
)  # fmt: skip
"""Globs of headers that tell nothing of anybody's credentials."""

PLAIN_KEYS: Final = frozenset({"progressToken", "maxTokens"})
"""MCP's own names that look secret and are not."""

SCHEMAS: Final = frozenset({"inputSchema", "outputSchema", "requestedSchema"})
"""What MCP calls the schemas in tools and questions: keys in them are names of fields, their values no secrets."""

_SIGNS: Final = (b"://", b"\\u", b"\\/")
"""A uri may have a password; an escape may hide a letter of a key, or a uri."""

SHORTEST_SECRET: Final = 6
"""Characters; a shorter secret of the configuration would be found everywhere."""


_FINGERPRINT: Final = re.compile(re.escape(MASK) + r":[0-9a-f]{12}")


def is_masked(value: Json) -> bool:
    """Whether a value stands in for a secret: a fingerprint, or the bare mask of something that has none."""
    return isinstance(value, str) and (value == MASK or _FINGERPRINT.fullmatch(value) is not None)


@final
class Masking:
    """
    Args:
        key: Of the fingerprints; random, up to 32 bytes.
        keys: Globs of keys to mask, beside `SENSITIVE_KEYS`.
        headers: Globs of headers to keep, beside `KEPT_HEADERS`. One that looks secret is never kept.
    """

    def __init__(self, key: bytes, keys: Iterable[str] = (), headers: Iterable[str] = ()) -> None:
        self.keys = (*SENSITIVE_KEYS, *keys)
        self.kept_headers = (*KEPT_HEADERS, *headers)
        self._key = key
        self._redaction = Redaction(self.keys)
        self._keeps = matcher(self.kept_headers)
        self._words = _words_of(self.keys)
        self._hidden: set[str] = set()
        self._secrets: re.Pattern[bytes] | None = None

    def hide(self, secrets: Iterable[str]) -> None:
        """From now on, replace these texts, too, wherever they turn up."""
        self._hidden.update(secrets)
        self._secrets = _any_of(self._hidden)

    def fingerprint(self, value: str | bytes) -> str:
        """What stands in for a secret; a fingerprint stays what it is, so that a tape can be recorded again."""
        if isinstance(value, str) and is_masked(value):
            return value
        data = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
        return f"{MASK}:{blake2s(data, key=self._key, digest_size=6).hexdigest()}"

    def is_clean(self, text: bytes) -> bool:
        """Whether a JSON text is sure to have nothing that is masked; false if that takes a closer look."""
        words = self._words
        if words is None:
            return False
        for sign in _SIGNS:
            if sign in text:
                return False
        plain = text.lower().translate(None, b"-_")
        for word in words:  # noqa: SIM110  # half the time that `any` takes, and it is done for every message
            if word in plain:
                return False
        return True

    def value(self, value: Json, *, schemas: bool = False) -> Json:
        """
        A copy of a JSON value without what looks secret. Nothing is shortened.

        Args:
            value: The value; it is not changed.
            schemas: Whether it comes from where MCP has schemas, whose keys hide nothing.
        """
        return self._copy(value, False, schemas)

    def object(self, value: Mapping[str, Json], *, schemas: bool = False) -> dict[str, Json]:
        """Likewise, of a JSON object."""
        hides, copy = self._redaction.hides, self._copy
        return {
            k: v if schemas and k in SCHEMAS else copy(v, k not in PLAIN_KEYS and hides(k), schemas)
            for k, v in value.items()
        }

    def _copy(self, value: Json, hidden: bool, schemas: bool) -> Json:
        if isinstance(value, str):
            if hidden:
                return self.fingerprint(value)
            return self._redaction.uri(value) if "://" in value else value
        if isinstance(value, dict):
            if not hidden:
                return self.object(value, schemas=schemas)
            return {k: self._copy(v, True, schemas) for k, v in value.items()}
        if isinstance(value, list):
            return [self._copy(item, hidden, schemas) for item in value]
        return self.fingerprint(encode_json(value)) if hidden and not isinstance(value, bool | None) else value

    def headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Those headers that are kept."""
        hides, keeps, uri = self._redaction.hides, self._keeps, self._redaction.uri
        return {k: uri(v) for k, v in headers.items() if keeps(k) and not hides(k)}

    def text(self, text: bytes) -> bytes:
        """The JSON text of an entry without secrets of the configuration."""
        return text if self._secrets is None else self._secrets.sub(MASK.encode(), text)


def _words_of(keys: Iterable[str]) -> tuple[bytes, ...] | None:
    """What a text must have for any of some globs to match a key in it; None if that cannot be said."""
    words = [key.lower().replace("-", "").replace("_", "").strip("*") for key in keys]
    if not all(word and word.isascii() and "*" not in word for word in words):
        return None
    return tuple(word.encode() for word in words)


def _any_of(secrets: Iterable[str]) -> re.Pattern[bytes] | None:
    """Finds each of some texts as they stand in JSON; the longest first, for one may begin with another."""
    long = {secret for secret in secrets if len(secret) >= SHORTEST_SECRET}
    written = {encode_json(secret)[1:-1] for secret in long}
    return re.compile(b"|".join(map(re.escape, sorted(written, key=len, reverse=True)))) if written else None
