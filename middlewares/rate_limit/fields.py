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
Says: TypeAlias = Callable[[State, int], str]


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


def _standard_writer(name: str, limit: Limit) -> Write:
    windows = limit.windows
    names = [f'"{name}"'] if len(windows) == 1 else [f'"{name}/{n}"' for n, _ in enumerate(windows, 1)]
    policy = ", ".join(map(_quota, names, windows))
    says = _left_of_one(f"{names[0]};r=", windows[0]) if len(windows) == 1 else _left_of_several(names, limit)

    def write(headers: MutableMapping[str, str], state: State, now_ns: int) -> None:
        left = says(state, now_ns)
        if "ratelimit" in headers:
            headers["ratelimit"] += f", {left}"
            headers["ratelimit-policy"] += f", {policy}"
        else:
            headers["ratelimit"] = left
            headers["ratelimit-policy"] = policy

    return write


def _left_of_several(names: Sequence[str], limit: Limit) -> Says:
    def left(state: State, now_ns: int) -> str:
        number, remaining, reset_ns = limit.room(state, now_ns)
        return f"{names[number]};r={remaining};t={-(-reset_ns // NS_PER_S)}"

    return left


def _left_of_one(start: str, window: Window) -> Says:
    """What `Limit.room` says of the only window, in seconds: half the time, and it is written for every request."""
    ticks, interval, tolerance, burst = window.ticks, window.interval, window.tolerance, window.burst
    ticks_per_s = ticks * NS_PER_S

    def left(state: State, now_ns: int) -> str:
        ahead = (state if isinstance(state, int) else state[0]) - now_ns * ticks
        if ahead <= 0:
            return f"{start}{burst};t=0"
        rest = tolerance - ahead
        return f"{start}{rest // interval if rest > 0 else 0};t={-(-ahead // ticks_per_s)}"

    return left


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
