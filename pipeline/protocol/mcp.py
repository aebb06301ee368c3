"""
MCP as data: versions, methods, `_meta` keys, error codes.

The only module that knows MCP's names. Stages ask the method table instead of comparing strings.
Sources: the schemas of the five published revisions, and the changelog of 2026-07-28.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, Final

from attrs import frozen

if TYPE_CHECKING:
    from .messages import Json  # messages know their methods

LEGACY_VERSIONS: Final = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
"""Revisions with an `initialize` handshake, oldest first."""
MODERN_VERSIONS: Final = ("2026-07-28",)
"""Stateless revisions: every request carries its version and the client's capabilities."""
ASSUMED_VERSION: Final = "2025-03-26"
"""What a legacy HTTP request without `MCP-Protocol-Version` speaks (2025-06-18, basic/transports)."""
BATCH_VERSION: Final = "2025-03-26"
"""The only revision with JSON-RPC batches."""


class Era(StrEnum):
    """The two families of revisions (2026-07-28, basic/versioning)."""

    LEGACY = "legacy"
    MODERN = "modern"


class MetaKey(StrEnum):
    """Keys of `_meta` that the gateway reads or writes."""

    VERSION = "io.modelcontextprotocol/protocolVersion"
    CLIENT_CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
    CLIENT_INFO = "io.modelcontextprotocol/clientInfo"
    SERVER_INFO = "io.modelcontextprotocol/serverInfo"
    LOG_LEVEL = "io.modelcontextprotocol/logLevel"
    SUBSCRIPTION_ID = "io.modelcontextprotocol/subscriptionId"
    PROGRESS_TOKEN = "progressToken"  # noqa: S105  # not a password
    TRACEPARENT = "traceparent"
    TRACESTATE = "tracestate"
    BAGGAGE = "baggage"
    TIMEOUT = "io.sluiceway/timeoutMs"
    """Ours: milliseconds the sender still waits, relative, so that clocks need not agree."""
    IDEMPOTENCY_KEY = "io.sluiceway/idempotencyKey"
    """Ours, for MCP has none: the name a client gives a call that must happen once, however often it is sent."""


class ErrorCode(IntEnum):
    """Error codes with a published meaning."""

    PARSE_ERROR = -32700
    INVALID_REQUEST = -32600
    METHOD_NOT_FOUND = -32601
    INVALID_PARAMS = -32602
    INTERNAL_ERROR = -32603
    RESOURCE_NOT_FOUND = -32002
    """Up to 2025-11-25; INVALID_PARAMS since."""
    URL_ELICITATION_REQUIRED = -32042
    """2025-11-25 only."""
    HEADER_MISMATCH = -32020
    MISSING_CLIENT_CAPABILITY = -32021
    UNSUPPORTED_PROTOCOL_VERSION = -32022


class Kind(StrEnum):
    """How long an exchange of a method lives, and what it counts against."""

    CALL = "call"
    """A request with one reply, soon."""
    LISTEN = "listen"
    """A request whose reply comes when somebody hangs up; counted apart, drained first."""
    NOTIFY = "notify"
    """No reply."""


@frozen
class Method:
    """One row of the method table."""

    name: str
    kind: Kind = Kind.CALL
    legacy: bool = True
    """Exists in a revision up to 2025-11-25."""
    modern: bool = True
    """Exists in 2026-07-28."""
    repeatable: bool = False
    """Safe to send twice (reads only)."""
    cacheable: bool = False
    """Carries `ttlMs` and `cacheScope` since 2026-07-28 (SEP-2549)."""
    target: str | None = None
    """The param that names what it is about; also the value of the `Mcp-Name` header."""
    asks: bool = False
    """May be answered with `input_required` since 2026-07-28 (SEP-2322)."""


def _read(
    name: str,
    *,
    cacheable: bool = False,
    asks: bool = False,
    target: str | None = None,
    legacy: bool = True,
    modern: bool = True,
) -> Method:
    return Method(name, Kind.CALL, legacy, modern, True, cacheable, target, asks)


METHODS: Final[Mapping[str, Method]] = {
    row.name: row
    for row in (
        Method("initialize", modern=False),
        _read("ping", modern=False),
        _read("server/discover", legacy=False, cacheable=True),
        _read("tools/list", cacheable=True),
        Method("tools/call", target="name", asks=True),
        _read("prompts/list", cacheable=True),
        _read("prompts/get", target="name", asks=True),
        _read("resources/list", cacheable=True),
        _read("resources/templates/list", cacheable=True),
        _read("resources/read", target="uri", asks=True, cacheable=True),
        _read("resources/subscribe", modern=False, target="uri"),
        _read("resources/unsubscribe", modern=False, target="uri"),
        _read("completion/complete"),
        _read("logging/setLevel", modern=False),
        Method("subscriptions/listen", Kind.LISTEN, legacy=False),
        _read("tasks/get", target="taskId"),
        _read("tasks/result", modern=False, target="taskId"),
        _read("tasks/list", modern=False),
        Method("tasks/update", legacy=False, target="taskId"),
        Method("tasks/cancel", target="taskId"),
        Method("notifications/initialized", Kind.NOTIFY, modern=False),
        Method("notifications/cancelled", Kind.NOTIFY),
        Method("notifications/progress", Kind.NOTIFY, modern=False),
        Method("notifications/roots/list_changed", Kind.NOTIFY, modern=False),
        Method("notifications/tasks/status", Kind.NOTIFY, modern=False),
    )
}
"""What a client may send, by name."""

STATEFUL: Final = frozenset({"ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"})
"""Repeatable, but no reads: they set something, and the latest counts; or they are about this very moment."""

PROGRESS: Final = "notifications/progress"
"""How far a request is; carries the `progressToken` of the request's `_meta`."""
LOG_MESSAGE: Final = "notifications/message"
"""A log message for the client. The only notification that may be lost."""

UNKNOWN: Final = Method("")
"""The row of a method that the table does not know: relayed, never repeated."""
_UNKNOWN_NOTIFY = Method("", Kind.NOTIFY)

_NOTHING: Final[Mapping[str, Json]] = {}

LATEST_LEGACY: Final = LEGACY_VERSIONS[-1]
LATEST: Final = MODERN_VERSIONS[-1]


def method_of(name: str) -> Method:
    """The table's row for a method, or a careful default for one it does not know (relayed, never repeated)."""
    return METHODS.get(name) or (_UNKNOWN_NOTIFY if name.startswith("notifications/") else UNKNOWN)


def era_of_version(version: str) -> Era | None:
    """The era a revision belongs to, or None for one we do not speak."""
    if version in MODERN_VERSIONS:
        return Era.MODERN
    return Era.LEGACY if version in LEGACY_VERSIONS else None


def meta_of(params: Mapping[str, Json]) -> Mapping[str, Json]:
    """The `_meta` object of some params; empty when there is none or it is not an object."""
    meta = params.get("_meta")
    return meta if isinstance(meta, dict) else _NOTHING


def quiet_meta(params: Mapping[str, Json]) -> dict[str, Json]:
    """`_meta` without the progress token: for a request of our own that is like a client's, and reports to nobody."""
    return {key: value for key, value in meta_of(params).items() if key != MetaKey.PROGRESS_TOKEN}


def target_of(method: str, params: Mapping[str, Json]) -> str | None:
    """What a request is about: a tool's or prompt's name, a resource's uri, a task's id; None when it has no target."""
    row = METHODS.get(method)
    if row is None or row.target is None:
        return None
    value = params.get(row.target)
    return value if isinstance(value, str) else None
