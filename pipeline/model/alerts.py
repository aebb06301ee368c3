"""
Alert rules as they are declared: which figures, what is wrong about them, for how long.

`telemetry.alerts` judges them; values only here. The preset has the thresholds of the designs this gateway follows, as
shares of what is configured where those were absolute numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, final

from attrs import frozen

from .options import HOUR, MINUTE, SECOND, Duration, Ratio, option

Severity = Literal["warning", "critical"]


@final
@frozen(kw_only=True)
class AlertRule:
    """One rule; each group of figures that it matches is an alert of its own."""

    figure: str = option(
        doc="Name of the figure, as `/metrics` has it; a glob, and `sluiceway_` may be left out. Histograms are none.",
        example="pipeline_in_flight",
    )
    labels: Mapping[str, str] = option(
        factory=dict, doc="Labels that its samples must have, as globs.", example={"pipeline": "main"}
    )
    by: tuple[str, ...] = option(
        ("component", "pipeline"), doc="Labels that tell groups apart; samples of one group are added up."
    )
    share_of: tuple[str, ...] = option(
        (), doc="Figures of the same group, as globs, whose sum the figure is divided by.",
        example=["pipeline_max_in_flight"],
    )  # fmt: skip
    at_least: float = option(
        1, gt=0, doc="What that sum must come to for the share to say anything; below it nothing is wrong."
    )
    within: Duration | None = option(
        None, gt=0, le=24 * HOUR,
        doc="For counters: what was added in so much time counts, not what they have reached.", example="5m",
    )  # fmt: skip
    above: float | Ratio | None = option(None, doc="It is wrong if the value is more than this.", example="50%")
    below: float | Ratio | None = option(None, doc="It is wrong if the value is less than this.", example="95%")
    clear: float | Ratio | None = option(
        None,
        doc="Value at which a firing alert clears: at most this of one that fires `above`, at least this of one that "
        "fires `below`. The threshold itself by default.",
        example="40%",
    )
    after: Duration = option(Duration(0 * SECOND), ge=0, doc="Time for which it must be wrong before the alert fires.")
    severity: Severity = option("warning", doc="`warning`, or `critical`, which is logged as an error.")
    summary: str = option("", doc="What to say when it fires.", example="more in flight than half of what may be")

    def __attrs_post_init__(self) -> None:
        if (self.above is None) == (self.below is None):
            raise ValueError("above, below: a rule has one of them")
        if self.clear is not None and self.is_wrong(self.clear):
            raise ValueError(
                f"clear: at {self.clear:g} the alert fires; it must lie on the other side of the threshold"
            )
        if not self.figure.removeprefix(PREFIX):
            raise ValueError("figure: must not be empty")

    def is_wrong(self, value: float) -> bool:
        """Whether an alert is to fire at this value."""
        if self.above is not None:
            return value > self.above
        assert self.below is not None
        return value < self.below

    def is_clear(self, value: float) -> bool:
        """Whether a firing alert ends at this value."""
        if self.clear is None:
            return not self.is_wrong(value)
        return value <= self.clear if self.above is not None else value >= self.clear

    @property
    def condition(self) -> str:
        """What is wrong, for people: `above 0.5`."""
        return f"above {self.above:g}" if self.above is not None else f"below {self.below:g}"


PREFIX: Final = "sluiceway_"
"""What names of figures begin with in `/metrics`, unless they are `mcp_` or `process_`."""

RECOMMENDED: Final[Mapping[str, AlertRule]] = {
    "pending": AlertRule(
        figure="pipeline_in_flight", share_of=("pipeline_max_in_flight",), above=0.5,
        summary="a pipeline holds more than half of the exchanges it may hold",
    ),
    "pending_critical": AlertRule(
        figure="pipeline_in_flight", share_of=("pipeline_max_in_flight",), above=0.9, severity="critical",
        summary="a pipeline is about to refuse: nearly all of its places are taken",
    ),
    "success_rate": AlertRule(
        figure="pipeline_exchanges_total", labels={"end": "served"}, share_of=("pipeline_exchanges_total",),
        within=Duration(5 * MINUTE), at_least=20, below=0.95,
        summary="more than one of twenty exchanges was refused or given up",
    ),
    "pool_reuse": AlertRule(
        figure="pool_reused_total", share_of=("pool_reused_total", "pool_opened_total"),
        within=Duration(5 * MINUTE), at_least=20, below=0.8,
        summary="more than one of five requests needs a new connection to its upstream",
    ),
    "operation_failed": AlertRule(
        figure="mcp_errors_total", by=("method",), within=Duration(1 * MINUTE), above=0, severity="critical",
        summary="an operation failed",
    ),
    "worker_died": AlertRule(
        figure="worker_deaths_total", within=Duration(5 * MINUTE), above=0,
        summary="a worker ended unasked, with its calls and sessions",
    ),
    "worker_hung": AlertRule(
        figure="worker_hangs_total", within=Duration(5 * MINUTE), above=0, severity="critical",
        summary="a worker did not answer any more; the log says where it was",
    ),
}  # fmt: skip
"""The rules of the preset `recommended`."""


@final
@frozen(kw_only=True)
class Alerts:
    """Alerts of a gateway; see docs/observability.md."""

    every: Duration = option(
        Duration(5 * SECOND), ge=0.1, doc="How often figures are looked at; no alert fires or clears in between."
    )
    preset: Literal["recommended", "none"] = option(
        "recommended", doc="Rules to begin with; one of `rules` with the same name takes the place of the preset's."
    )
    rules: Mapping[str, AlertRule] = option(
        factory=dict,
        doc="Further rules, by name.",
        example={"queue": {"figure": "pipeline_waiting", "above": 80, "after": "30s"}},
    )

    def all(self) -> Mapping[str, AlertRule]:
        """Every rule, by name."""
        return {**(RECOMMENDED if self.preset == "recommended" else {}), **self.rules}


NO_ALERTS: Final = Alerts(preset="none")
"""Nobody asked for any."""
