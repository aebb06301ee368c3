"""
Response header fields that say what a client still gets.

`RateLimit` and `RateLimit-Policy` follow draft-ietf-httpapi-ratelimit-headers: `"id";q=60;w=60` is a quota of 60 units
in a window of 60 seconds, `"id";r=59;t=1` says that 59 remain, and that it is the whole quota again in a second. Stages
add to what stages outside of them wrote. `X-RateLimit-*` has no standard; its reset is in seconds from now.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Literal, TypeAlias, final

from sluiceway.pipeline.model.gcra import NS_PER_S, Limit, State, Window

Style: TypeAlias = Literal["ratelimit", "x-ratelimit", "none"]


@final
class Fields:
    """
    The fields of one limit.

    Args:
        style: Which fields; none at all is allowed.
        name: Of the policy; ASCII without quotes and backslashes (RFC 9651 section 3.3.3).
        limit: What it is about.
    """

    def __init__(self, style: Style, name: str, limit: Limit) -> None:
        windows = limit.windows
        self.name = name
        """Of the policy."""
        self._limit = limit
        self._style = style
        self._names = [f'"{name}"'] if len(windows) == 1 else [f'"{name}/{n}"' for n, _ in enumerate(windows, 1)]
        self._policy = ", ".join(map(_quota, self._names, windows))

    def write(self, headers: MutableMapping[str, str], state: State, now_ns: int) -> None:
        """Add them to the headers of a response; of several windows, the one that leaves least."""
        style = self._style
        if style == "none":
            return
        number, remaining, reset_ns = self._limit.room(state, now_ns)
        reset_s = -(-reset_ns // NS_PER_S)
        if style == "ratelimit":
            left = f"{self._names[number]};r={remaining};t={reset_s}"
            if "ratelimit" in headers:
                headers["ratelimit"] += f", {left}"
                headers["ratelimit-policy"] += f", {self._policy}"
            else:
                headers["ratelimit"] = left
                headers["ratelimit-policy"] = self._policy
            return
        before = headers.get("x-ratelimit-remaining")
        if before is None or remaining < int(before):
            headers["x-ratelimit-limit"] = str(self._limit.windows[number].burst)
            headers["x-ratelimit-remaining"] = str(remaining)
            headers["x-ratelimit-reset"] = str(reset_s)


def _quota(name: str, window: Window) -> str:
    """A burst, and the time in which it is there again: what the rate is, whatever words it was written in."""
    whole_s, rest = divmod(window.tolerance, window.ticks * NS_PER_S)
    return f"{name};q={window.burst}" if rest else f"{name};q={window.burst};w={whole_s}"  # the draft has whole seconds
