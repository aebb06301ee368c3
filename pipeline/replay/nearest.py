"""What a tape has no answer to, in words: the request, and what the nearest recorded one has different. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from ..protocol.mcp import target_of
from ..protocol.messages import Json, Notification, Request
from .entries import MessageData
from .matching import MISSING, Ignoring, Place, differences, distance

MAX_CANDIDATES: Final = 100
"""Recorded requests that are compared with one that has no answer."""
MAX_PLACES: Final = 5
"""Places that are shown of a difference."""
MAX_SHOWN: Final = 80
"""Characters that are shown of a value."""


def describe_lack(
    request: Request | Notification, sink: str, recorded: Sequence[MessageData], ignoring: Ignoring
) -> str:
    """
    What was asked of a sink that was not when the tape was made.

    Args:
        request: What is asked now.
        sink: Id of the sink.
        recorded: What it was asked then, as far as it is at hand.
        ignoring: What does not count.
    """
    text = f"{sink}: an answer to {request.method} {target_of(request.method, request.params) or ''}".rstrip()
    alike = [each for each in recorded[:MAX_CANDIDATES] if each.method == request.method]
    if not alike:
        return text
    nearest = min(alike, key=lambda each: distance(each.params, request.params, ignoring))
    places = list(differences(nearest.params, request.params, "params", ignoring))
    shown = "; ".join(describe_place(place) for place in places[:MAX_PLACES])
    more = f"; and {len(places) - MAX_PLACES} more" if len(places) > MAX_PLACES else ""
    return f"{text}; the nearest recorded request differs: {shown}{more}" if places else text


def describe_place(place: Place) -> str:
    """One difference: `params.arguments.q: "a" -> "b"`."""
    return f"{place.path}: {render(place.before)} -> {render(place.after)}"


def render(value: Json) -> str:
    """A value in one line, shortened."""
    if value is MISSING:
        return MISSING
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}..."
