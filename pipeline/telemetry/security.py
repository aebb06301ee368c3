"""
Security events: one log line for each refusal that somebody who watches over the gateway wants to know of.

The table says which refusals these are, and how much each matters; ordinary errors (an unknown tool, a full queue, an
upstream that is down) are none. A flood of them must not fill the disk: of one kind from one place only the first few a
minute are said, and of one kind altogether not many more; the rest is counted, and the next line says how many.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Literal, final

import structlog
import trio
from attrs import define, frozen

from ..model.figures import Figure
from ..model.security import Refusal
from .redaction import Redaction, clip

Severity = Literal["low", "medium", "high"]

PERIOD_S: Final = 60.0
MAX_OF_ONE: Final = 5
"""Lines in `PERIOD_S` of one type about one principal or address."""
MAX_OF_TYPE: Final = 60
"""Lines in `PERIOD_S` of one type."""
MAX_KEYS: Final = 4096
"""Principals and addresses that are told apart; the one seen longest ago goes."""


@final
@frozen
class Kind:
    """A type of event."""

    type: str
    severity: Severity


EVENTS: Final[Mapping[str, Kind]] = {
    "unauthenticated": Kind("authentication_failed", "medium"),
    "malformed_credentials": Kind("authentication_failed", "medium"),
    "forbidden": Kind("access_denied", "medium"),
    "rate_limited": Kind("rate_limited", "low"),
    "foreign_origin": Kind("foreign_origin", "high"),
    "misdirected": Kind("foreign_host", "high"),
    "foreign_session": Kind("foreign_session", "high"),
    "session_not_found": Kind("unknown_session", "low"),
    "pin_mismatch": Kind("pin_mismatch", "high"),
    "ambiguous_message": Kind("ambiguous_message", "high"),
    "smuggling": Kind("malformed_http", "medium"),
    "header_mismatch": Kind("header_mismatch", "medium"),
    "parse_error": Kind("invalid_message", "low"),
    "invalid_message": Kind("invalid_message", "low"),
    "message_too_large": Kind("message_too_large", "low"),
    "address_refused": Kind("address_refused", "high"),
    "quarantined": Kind("quarantined", "medium"),
    "audit_unavailable": Kind("audit_unavailable", "high"),
}
"""`Refusal.reason` -> what it is. What is not here is no security event."""

_redaction: Final = Redaction()
_LEVELS: Final[Mapping[Severity, str]] = {"low": "info", "medium": "warning", "high": "error"}


@define(eq=False)
class _Window:
    begun: float
    said: int = 0


@final
class SecurityEvents:
    """
    The `Alarm` of an engine.

    Args:
        now: Seconds of a clock that only goes forward.
        log: Where events go; the process's log by default.
    """

    def __init__(self, now: Callable[[], float] = trio.current_time, log: Any = None) -> None:
        self._now = now
        self._log = structlog.get_logger() if log is None else log
        self._windows: OrderedDict[tuple[str, str], _Window] = OrderedDict()
        self._counts: dict[Kind, int] = {}
        self._suppressed: dict[Kind, int] = {}
        self._untold: dict[str, int] = {}

    def __call__(self, refusal: Refusal) -> None:
        """Count a refusal, and say it unless enough was said of its kind."""
        kind = EVENTS.get(refusal.reason)
        if kind is None:
            return
        self._counts[kind] = self._counts.get(kind, 0) + 1
        key = refusal.principal if refusal.principal not in ("", "anonymous") else refusal.address or refusal.source
        now = self._now()
        if not (self._has_room(kind.type, key, MAX_OF_ONE, now) and self._has_room(kind.type, "", MAX_OF_TYPE, now)):
            self._suppressed[kind] = self._suppressed.get(kind, 0) + 1
            self._untold[kind.type] = self._untold.get(kind.type, 0) + 1
            return
        fields = {
            "type": kind.type,
            "severity": kind.severity,
            "reason": refusal.reason,
            "source": refusal.source,
            "address": refusal.address,
            "principal": clip(refusal.principal),
            "tenant": refusal.tenant and clip(refusal.tenant),
            "correlation_id": refusal.correlation_id,
            "operation": clip(refusal.operation),
            "resource": refusal.resource and clip(_redaction.uri(refusal.resource)),
            "suppressed": self._untold.pop(kind.type, 0),
        }
        say = getattr(self._log, _LEVELS[kind.severity])
        say("security event", **{name: value for name, value in fields.items() if value})

    def _has_room(self, type_: str, key: str, maximum: int, now: float) -> bool:
        window = self._windows.get((type_, key))
        if window is None or now - window.begun >= PERIOD_S:
            window = self._windows[type_, key] = _Window(now)
            while len(self._windows) > MAX_KEYS:
                self._windows.popitem(last=False)
        self._windows.move_to_end((type_, key))
        window.said += 1
        return window.said <= maximum

    def figures(self) -> Iterator[Figure]:
        """Events by type and severity, and those of them that the log does not have."""
        for name, counts, text in (
            ("security_events_total", self._counts, "Refusals that matter to security."),
            ("security_events_suppressed_total", self._suppressed, "Those of them that were counted, not logged."),
        ):
            for kind, count in counts.items():
                labels = {"type": kind.type, "severity": kind.severity}
                yield Figure(name, float(count), "counter", text, labels)
