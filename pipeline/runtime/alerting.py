"""
Alerts of a running gateway: looks at its figures every so often, and says what fired and what cleared.

What it says are log lines, figures and rows of the status; it never reaches out. Who wants to be called at night lets
what scrapes the figures, or reads the log, do so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, final

import structlog
import trio

from ..model.alerts import NO_ALERTS, Alerts
from ..model.figures import Figure
from ..protocol.messages import Json
from ..telemetry.alerts import AlertBook, Change
from ..telemetry.metrics import Snapshot, derived

_SEVERITIES: Final[Mapping[str, str]] = {"warning": "warning", "critical": "error"}
"""Levels of the lines in the log."""


@final
class Alerting:
    """
    Args:
        snapshot: What the gateway counts; asked every `Alerts.every`.
        alerts: The rules to begin with; None for none.
    """

    def __init__(self, snapshot: Callable[[], Snapshot], alerts: Alerts | None) -> None:
        self._snapshot = snapshot
        self._book = AlertBook()
        self._news = trio.Event()
        self._log: Any = structlog.get_logger()
        self.configure(alerts)

    def configure(self, alerts: Alerts | None) -> None:
        """Go by these rules from now on. Alerts of rules that did not change go on."""
        given = NO_ALERTS if alerts is None else alerts
        rules = given.all()
        self._every_s = given.every if rules else math.inf
        self._book.configure(rules)
        self._news.set()

    async def serve(self) -> None:
        """Watch until cancelled. Costs nothing where there are no rules."""
        while True:
            self._news = trio.Event()
            if self._every_s < math.inf:
                self.judge()
            with trio.move_on_after(self._every_s):
                await self._news.wait()

    def judge(self) -> None:
        """Look at the figures once, and say what changed."""
        for change in self._book.judge(derived(self._snapshot()), trio.current_time()):
            self._say(change)

    def _say(self, change: Change) -> None:
        rule = change.rule
        say = getattr(self._log, _SEVERITIES[rule.severity] if change.fired else "info")
        say(
            "alert firing" if change.fired else "alert cleared",
            rule=change.name,
            severity=rule.severity,
            labels=dict(change.labels),
            value=change.value,
            condition=rule.condition,
            summary=rule.summary,
        )

    def rows(self) -> list[dict[str, Json]]:
        """Alerts that fire or are about to, for status."""
        return self._book.rows(trio.current_time())

    def report(self) -> dict[str, Json]:
        """Those, and every rule: what `/-/alerts` shows."""
        return {"alerts": list(self.rows()), "rules": list(self._book.about())}

    def figures(self) -> Iterator[Figure]:
        """See `AlertBook.figures`."""
        return self._book.figures()
