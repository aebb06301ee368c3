"""
Alerts: rules over figures, judged on one snapshot after the other. Pure; `runtime.alerting` looks at the clock.

    ok  -- wrong ------------------> pending      (at once firing if `after` is nothing)
    pending  -- not wrong ---------> ok
    pending  -- wrong for `after` -> firing
    firing   -- clear, or no data -> ok

A value that cannot be told (a share of too little, a figure that is gone) is not wrong, and ends an alert. Between the
threshold and `clear` an alert stays what it is, so a value that trembles does not fire again and again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, Literal, final

from attrs import define, field, frozen

from ..model.alerts import PREFIX, AlertRule
from ..model.figures import Figure
from ..model.when import matcher
from ..protocol.messages import Json
from .metrics import Snapshot

Phase = Literal["ok", "pending", "firing"]
Group = tuple[tuple[str, str], ...]
"""The labels of a group, in the order of `AlertRule.by`; those that a sample lacks are left out."""

MAX_GROUPS: Final = 200
"""Groups that one rule tells apart; further ones are not watched."""
_POINTS: Final = 60
"""Points that are kept of a counter's past: `within` is exact to a sixtieth."""


def step(rule: AlertRule, phase: Phase, since: float, value: float | None, now: float) -> tuple[Phase, float]:
    """
    The next phase of an alert, and since when it is in it.

    Args:
        rule: Its rule.
        phase: The phase it is in.
        since: Since when, in seconds of any clock that goes forward.
        value: What its figures say now; None if they say nothing.
        now: Seconds of that clock.
    """
    if phase == "firing":
        return ("ok", now) if value is None or rule.is_clear(value) else (phase, since)
    if value is None or not rule.is_wrong(value):
        return ("ok", since if phase == "ok" else now)
    begun = now if phase == "ok" else since
    return ("firing", now) if now - begun >= rule.after else ("pending", begun)


@final
class Added:
    """
    What a sum of counters grew by within a time.

    Args:
        within_s: The time, in seconds.
        now: When it begins.
    """

    def __init__(self, within_s: float, now: float) -> None:
        self._within_s = within_s
        self._sum = 0.0
        self._points: deque[tuple[float, float]] = deque([(now, 0.0)])

    def take(self, now: float, more: float) -> float:
        """Count what was added since the last call; what was added within the time."""
        self._sum += more
        points = self._points
        while len(points) > 1 and points[1][0] <= now - self._within_s:
            points.popleft()
        added = self._sum - points[0][1]
        if now - points[-1][0] >= self._within_s / _POINTS:
            points.append((now, self._sum))
        return added


@final
@frozen
class Change:
    """An alert that fired, or cleared."""

    name: str
    """The rule's."""
    rule: AlertRule
    fired: bool
    labels: Mapping[str, str]
    value: float | None
    """What the figures said; None if they are gone."""


@define(eq=False)
class _Alert:
    """One group of one rule."""

    labels: Mapping[str, str]
    since: float
    phase: Phase = "ok"
    value: float | None = None
    added: tuple[Added, Added] | None = None
    """Of the figure, and of what it is a share of; only of a rule with `within`."""


@final
class Watch:
    """
    One rule and what it has seen.

    Args:
        name: The rule's.
        rule: The rule.
    """

    def __init__(self, name: str, rule: AlertRule) -> None:
        self.name = name
        self.rule = rule
        self.fired = 0
        """How often an alert of it fired."""
        self._figure = matcher((_plain(rule.figure),))
        self._whole = matcher(map(_plain, rule.share_of))
        self._labels = {name: matcher((text,)) for name, text in rule.labels.items()}
        self._alerts: dict[Group, _Alert] = {}
        self._last: dict[tuple[str, Group], float] | None = None

    def judge(self, snapshot: Iterable[Figure], now: float) -> Iterator[Change]:
        """Look at figures; what fired and what cleared since the last time."""
        sums = self._sums(snapshot)
        for group in sums:
            if group not in self._alerts and len(self._alerts) < MAX_GROUPS:
                self._alerts[group] = self._begin(group, now)
        for group, alert in list(self._alerts.items()):
            alert.value = self._value(alert, sums.get(group), now)
            before = alert.phase
            alert.phase, alert.since = step(self.rule, before, alert.since, alert.value, now)
            if (alert.phase == "firing") is not (before == "firing"):
                self.fired += alert.phase == "firing"
                yield Change(self.name, self.rule, alert.phase == "firing", alert.labels, alert.value)
            if group not in sums:
                del self._alerts[group]

    def rows(self, now: float) -> Iterator[dict[str, Json]]:
        """Alerts that fire or are about to, as JSON."""
        for alert in self._alerts.values():
            if alert.phase != "ok":
                yield {
                    "rule": self.name,
                    "state": alert.phase,
                    "severity": self.rule.severity,
                    "labels": dict(alert.labels),
                    "value": alert.value,
                    "condition": self.rule.condition,
                    "for_s": round(now - alert.since, 3),
                    "summary": self.rule.summary,
                }

    def about(self) -> dict[str, Json]:
        """The rule itself: what it watches, and how many groups of figures there are. None may mean a wrong name."""
        return {
            "rule": self.name,
            "figure": self.rule.figure,
            "condition": self.rule.condition,
            "severity": self.rule.severity,
            "groups": len(self._alerts),
            "firing": self.firing,
        }

    @property
    def firing(self) -> int:
        """How many alerts of it fire."""
        return sum(alert.phase == "firing" for alert in self._alerts.values())

    def _begin(self, group: Group, now: float) -> _Alert:
        within = self.rule.within
        return _Alert(dict(group), now, added=None if within is None else (Added(within, now), Added(within, now)))

    def _value(self, alert: _Alert, found: _Sums | None, now: float) -> float | None:
        if found is None:
            return None
        part, whole = found.part, found.whole
        if alert.added is not None:
            part, whole = alert.added[0].take(now, part), alert.added[1].take(now, whole)
        if not self.rule.share_of:
            return part
        return part / whole if whole >= self.rule.at_least else None

    def _sums(self, snapshot: Iterable[Figure]) -> dict[Group, _Sums]:
        """What the samples of each group come to: their values, or with `within` what was added to them."""
        sums: dict[Group, _Sums] = {}
        last: dict[tuple[str, Group], float] = {}
        for sample in snapshot:
            is_part, is_whole = self._is_part(sample), self._is_whole(sample)
            if not (is_part or is_whole):
                continue
            labels = sample.labels
            group = tuple((name, labels[name]) for name in self.rule.by if name in labels)
            found = sums.setdefault(group, _Sums())
            value = sample.value
            if self.rule.within is not None:
                key = sample.name, tuple(labels.items())
                last[key], value = value, self._more(key, value)
            found.part += value * is_part
            found.whole += value * is_whole
        self._last = last
        return sums

    def _more(self, key: tuple[str, Group], value: float) -> float:
        """What was added to a counter. One that is new began at zero, and so did one that fell: a reload renewed it."""
        if self._last is None:
            return 0.0  # it was there before anybody looked
        before = self._last.get(key, 0.0)
        return value - before if value >= before else value

    def _is_part(self, sample: Figure) -> bool:
        return self._figure(sample.name) and self._fits(sample, self._labels)

    def _is_whole(self, sample: Figure) -> bool:
        """What the figure is a share of has the labels asked for as far as they tell groups apart."""
        return self._whole(sample.name) and self._fits(sample, self.rule.by)

    def _fits(self, sample: Figure, names: Iterable[str]) -> bool:
        wanted: Mapping[str, Callable[[str], bool]] = self._labels
        return all(sample.labels.get(n) is not None and wanted[n](sample.labels[n]) for n in names if n in wanted)


@define(eq=False)
class _Sums:
    part: float = 0.0
    whole: float = 0.0


@final
@define(eq=False)
class AlertBook:
    """All rules of a gateway."""

    _watches: dict[str, Watch] = field(factory=dict)

    def configure(self, rules: Mapping[str, AlertRule]) -> None:
        """Watch these rules from now on; what is known of one that did not change stays."""
        known = self._watches
        self._watches = {
            name: known[name] if name in known and known[name].rule == rule else Watch(name, rule)
            for name, rule in rules.items()
        }

    def judge(self, snapshot: Snapshot, now: float) -> list[Change]:
        """Look at a snapshot; what fired and what cleared since the last one."""
        figures = [sample for sample in snapshot if isinstance(sample, Figure)]
        return [change for watch in self._watches.values() for change in watch.judge(figures, now)]

    def rows(self, now: float) -> list[dict[str, Json]]:
        """Every alert that fires or is about to; firing ones first."""
        rows = [row for watch in self._watches.values() for row in watch.rows(now)]
        return sorted(rows, key=lambda row: row["state"] != "firing")

    def about(self) -> list[dict[str, Json]]:
        """Every rule."""
        return [watch.about() for watch in self._watches.values()]

    def figures(self) -> Iterator[Figure]:
        """How many alerts of each rule fire, and how often any did."""
        for watch in self._watches.values():
            labels = {"rule": watch.name, "severity": watch.rule.severity}
            yield Figure("alerts", watch.firing, "gauge", "Alerts that fire now.", labels)
            yield Figure("alerts_fired_total", watch.fired, "counter", "Times an alert fired.", labels)


def _plain(name: str) -> str:
    """A figure's name as components say it."""
    return name.removeprefix(PREFIX)
