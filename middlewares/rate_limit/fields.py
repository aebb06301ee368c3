"""
Response header fields that say what a client still gets.

`RateLimit` and `RateLimit-Policy` follow draft-ietf-httpapi-ratelimit-headers: `"id";q=60;w=60` is a quota of 60 units
in a window of 60 seconds, `"id";r=59;t=1` says that 59 remain, and that it is the whole quota again in a second. Stages
add to what stages outside of them wrote. `X-RateLimit-*` has no standard; its reset is in seconds from now.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, Sequence
from typing import Literal, TypeAlias, final

from sluiceway.pipeline.model.gcra import NS_PER_S, Limit, State, Window

Style: TypeAlias = Literal["ratelimit", "x-ratelimit", "none"]
Write: TypeAlias = Callable[[MutableMapping[str, str], State, int], None]


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
        self.name = name
        """Of the policy."""
        writers = {"ratelimit": _standard_writer, "x-ratelimit": _x_writer, "none": _no_writer}
        self.write: Write = writers[style](name, limit)
        """
        Add them to the headers of a response, for a key's state and the time in nanoseconds; of several windows, the
        one that leaves least.
        """
        only = style == "ratelimit" and len(limit.windows) == 1
        self.start = f'"{name}";r=' if only else None
        """How the only field that `write` would add begins; None if that is another style, or there are several."""
        self.policy = _policy(name, limit)
        """The value of `RateLimit-Policy`."""


def _standard_writer(name: str, limit: Limit) -> Write:
    policy, left_of = _policy(name, limit), limit.room
    names = _names(name, limit)

    def write(headers: MutableMapping[str, str], state: State, now_ns: int) -> None:
        number, remaining, reset_ns = left_of(state, now_ns)
        left = f"{names[number]};r={remaining};t={-(-reset_ns // NS_PER_S)}"
        if "ratelimit" in headers:
            headers["ratelimit"] += f", {left}"
            headers["ratelimit-policy"] += f", {policy}"
        else:
            headers["ratelimit"] = left
            headers["ratelimit-policy"] = policy

    return write


def _names(name: str, limit: Limit) -> Sequence[str]:
    several = len(limit.windows) > 1
    return [f'"{name}/{n}"' if several else f'"{name}"' for n, _ in enumerate(limit.windows, 1)]


def _policy(name: str, limit: Limit) -> str:
    return ", ".join(map(_quota, _names(name, limit), limit.windows))


def _x_writer(_name: str, limit: Limit) -> Write:
    def write(headers: MutableMapping[str, str], state: State, now_ns: int) -> None:
        number, remaining, reset_ns = limit.room(state, now_ns)
        before = headers.get("x-ratelimit-remaining")
        if before is None or remaining < int(before):
            headers["x-ratelimit-limit"] = str(limit.windows[number].burst)
            headers["x-ratelimit-remaining"] = str(remaining)
            headers["x-ratelimit-reset"] = str(-(-reset_ns // NS_PER_S))

    return write


def _no_writer(_name: str, _limit: Limit) -> Write:
    return lambda _headers, _state, _now_ns: None


def _quota(name: str, window: Window) -> str:
    """A burst, and the time in which it is there again: what the rate is, whatever words it was written in."""
    whole_s, rest = divmod(window.tolerance, window.ticks * NS_PER_S)
    return f"{name};q={window.burst}" if rest else f"{name};q={window.burst};w={whole_s}"  # the draft has whole seconds
