"""
W3C Trace Context and Baggage: parsing what came, rendering what goes on. Pure.

MCP carries the three values in `_meta`, under the names of the HTTP headers (SEP-414): `traceparent`, `tracestate` and
`baggage`. What does not follow its grammar is treated as absent, as both specifications ask: a bad label is no reason
to fail a call. Sections are those of W3C Trace Context.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, final

import msgspec

from .mcp import MetaKey
from .messages import Json

SAMPLED: Final = 0x01
RANDOM: Final = 0x02
"""Trace flags (section 3.2.2.5, and level 2): the caller records; the trace id is random."""
_FLAGS: Final = ("00", "01", "02", "03")
"""As text; to look it up takes a tenth of the time of writing a number in hexadecimal."""

MAX_STATE_CHARS: Final = 512
"""Characters of `tracestate` that are passed on; section 3.3.1.5 asks for at least as many."""
MAX_STATE_MEMBERS: Final = 32
MAX_BAGGAGE_CHARS: Final = 8192
MAX_BAGGAGE_MEMBERS: Final = 64
"""Limits of section 3.3.1.1, and of W3C Baggage, section 3.3.2."""
_LONG_MEMBER: Final = 128
"""A member longer than this goes first when `tracestate` is too long (section 3.3.1.5)."""

_PARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_KEY: Final = r"(?:[a-z0-9][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13})"
_VALUE: Final = r"[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
_MEMBER: Final = re.compile(f"({_KEY})=({_VALUE})")
_BAGGAGE_VALUE: Final = r"[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]*"
_BAGGAGE_MEMBER: Final = re.compile(
    rf"[!#$%&'*+\-.^_`|~0-9A-Za-z]+[ \t]*=[ \t]*{_BAGGAGE_VALUE}(?:[ \t]*;[\x20-\x2b\x2d-\x7e\t]*)?"
)
_BLANK: Final = " \t"
_TRACEPARENT: Final = MetaKey.TRACEPARENT.value
_TRACESTATE: Final = MetaKey.TRACESTATE.value
_BAGGAGE: Final = MetaKey.BAGGAGE.value


@final
class TraceContext(msgspec.Struct, frozen=True, gc=False):
    """The place of one span in a trace. A struct, for one is made with every request."""

    trace_id: str
    """32 hex digits, not all zero."""
    span_id: str
    """16 hex digits, not all zero."""
    flags: int = 0
    """`SAMPLED` and `RANDOM`; other bits are not passed on."""
    state: str = ""
    """`tracestate`, as it goes on; empty for none."""

    @property
    def sampled(self) -> bool:
        """Whether this trace is recorded."""
        return bool(self.flags & SAMPLED)

    @property
    def traceparent(self) -> str:
        """The value of the header of that name."""
        return f"00-{self.trace_id}-{self.span_id}-{_FLAGS[self.flags & 3]}"


def parse_traceparent(text: str) -> TraceContext | None:
    """
    A `traceparent`; None if it is not one.

    A later version than ours is read as ours, and may have more fields (section 3.2.2).
    """
    match = _PARENT.fullmatch(text.strip(_BLANK))
    if match is None:
        return None
    version, trace_id, span_id, flags, more = match.groups()
    if version == "ff" or (version == "00" and more is not None) or not (trace_id.strip("0") and span_id.strip("0")):
        return None
    return TraceContext(trace_id, span_id, int(flags, 16) & (SAMPLED | RANDOM))


def parse_tracestate(text: str) -> str:
    """
    A `tracestate` fit to be passed on: without empty members and, if need be, shortened; empty if it is not one.

    Several headers are one, joined by commas, in their order (RFC 9110 section 5.3).
    """
    members = [member.strip(_BLANK) for member in text.split(",")]
    members = [member for member in members if member]
    if len(members) > MAX_STATE_MEMBERS:
        return ""
    keys = set()
    for member in members:
        match = _MEMBER.fullmatch(member)
        if match is None or match[1] in keys:
            return ""
        keys.add(match[1])
    if len(",".join(members)) > MAX_STATE_CHARS:
        members = [member for member in members if len(member) <= _LONG_MEMBER]
        while len(",".join(members)) > MAX_STATE_CHARS:
            members.pop()
    return ",".join(members)


def parse_baggage(text: str) -> str:
    """A `baggage` fit to be passed on; empty if it is not one, or larger than anybody must accept."""
    if len(text) > MAX_BAGGAGE_CHARS:
        return ""
    members = [member.strip(_BLANK) for member in text.split(",")]
    if len(members) > MAX_BAGGAGE_MEMBERS or not all(map(_BAGGAGE_MEMBER.fullmatch, members)):
        return ""
    return ",".join(members)


def context_in(carrier: Mapping[str, Json]) -> TraceContext | None:
    """The context that `_meta`, or headers with names in lower case, carry; None where there is none that is valid."""
    text = carrier.get(_TRACEPARENT)
    if not isinstance(text, str):
        return None
    parent = parse_traceparent(text)
    state = carrier.get(_TRACESTATE)
    if parent is None or not isinstance(state, str):
        return parent
    return TraceContext(parent.trace_id, parent.span_id, parent.flags, parse_tracestate(state))


def baggage_in(carrier: Mapping[str, Json]) -> str:
    """The baggage that `_meta` or headers carry; empty for none that is valid."""
    text = carrier.get(_BAGGAGE)
    return parse_baggage(text) if isinstance(text, str) else ""
