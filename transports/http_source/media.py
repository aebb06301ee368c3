"""What a request's body is and what its response may be: Content-Type, Content-Encoding, Accept (RFC 9110)."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

JSON: Final = "application/json"
EVENTS: Final = "text/event-stream"

_UTF8: Final = frozenset({"utf-8", "utf8"})


@lru_cache(maxsize=256)
def is_json(content_type: str | None, content_encoding: str | None = None) -> bool:
    """Whether a body is plain JSON in UTF-8: nothing else is read, for what is inspected must be what is forwarded."""
    if content_type is None or (content_encoding or "identity").strip().lower() != "identity":
        return False
    kind, *parameters = content_type.split(";")
    if kind.strip().lower() != JSON:
        return False
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset" and value.strip().strip('"').lower() not in _UTF8:
            return False
    return True


@lru_cache(maxsize=256)
def accepts(accept: str | None, media_type: str) -> bool:
    """
    Whether an `Accept` header lists a media type, also by `*/*` or `application/*`.

    An absent header lists nothing: MCP requires it (2025-03-26 and later), and both SDKs' servers insist too.
    """
    wanted = {media_type, media_type.partition("/")[0] + "/*", "*/*"}
    best, quality = -1, 0.0
    for item in (accept or "").split(","):
        name, *parameters = (part.strip().lower() for part in item.split(";"))
        if name in wanted:
            specific = (name == media_type) + (name != "*/*")
            if specific > best:
                best, quality = specific, _quality(parameters)
    return quality > 0


@lru_cache(maxsize=256)
def prefers_events(accept: str | None) -> bool:
    """
    Whether a client would rather have an event stream than plain JSON, or takes nothing else.

    Of two types that are named and equally liked, the first one counts as preferred. RFC 9110 gives the order no
    meaning, so a server may choose; both SDKs' clients name JSON first, and get the cheaper answer. For sessions only:
    their streams can be resumed, those of 2026-07-28 cannot.
    """
    if not accepts(accept, JSON):
        return True
    rank: dict[str, tuple[float, int]] = {}
    for position, item in enumerate((accept or "").split(",")):
        name, *parameters = (part.strip().lower() for part in item.split(";"))
        if name in (JSON, EVENTS):
            rank.setdefault(name, (_quality(parameters), -position))
    return len(rank) == 2 and rank[EVENTS] > rank[JSON]


def quality_of(accept_encoding: str | None, coding: str) -> float:
    """How much an `Accept-Encoding` header likes a coding, 0 to 1; one that it does not list is not liked."""
    liked = {
        name.strip().lower(): _quality([part.strip().lower() for part in parameters])
        for name, *parameters in (item.split(";") for item in (accept_encoding or "").split(","))
    }
    return liked.get(coding, liked.get("*", 0.0))


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return float(parameter[2:])
            except ValueError:
                return 0.0
    return 1.0
