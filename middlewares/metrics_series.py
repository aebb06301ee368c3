"""What `metrics` counts of exchanges that are alike, and the figures it makes of that."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Final, TypeVar, final

from sluiceway.pipeline.model.figures import Distribution, Figure
from sluiceway.pipeline.telemetry.metrics import Histogram
from sluiceway.pipeline.telemetry.outcomes import Outcome

OTHER: Final = "other"
"""The label of whatever has none of its own."""
MAX_ERRORS: Final = 64
"""Labels kept of errors of one method."""
_K = TypeVar("_K", bound=Hashable)


@final
class Series:
    """
    How often something ended in which way, and how long it took.

    Args:
        bounds: Of the buckets of latencies, in seconds.
    """

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.smooth = Histogram(bounds)
        """Calls that went well, and were nothing special: they are counted here, and nowhere else."""
        self.other = Histogram(bounds)
        """Other calls."""
        self.outcomes = dict.fromkeys(Outcome, 0)
        """What is not smooth, calls or not, by outcome."""
        self.errors: dict[str, int] = {}
        """What went wrong, and how often."""

    def add(self, more: Series) -> None:
        """Count what another one counted."""
        self.smooth.add(more.smooth)
        self.other.add(more.other)
        for outcome, count in more.outcomes.items():
            self.outcomes[outcome] += count
        for error, count in more.errors.items():
            count_up(self.errors, error, MAX_ERRORS, OTHER, count)

    @property
    def latency(self) -> Histogram:
        """How long all calls took."""
        both = Histogram(self.smooth.bounds)
        both.add(self.smooth)
        both.add(self.other)
        return both

    def ends(self) -> dict[str, int]:
        """The outcomes there were, and how often."""
        counts = {**self.outcomes, Outcome.SUCCESS: self.outcomes[Outcome.SUCCESS] + sum(self.smooth.counts)}
        return {outcome.value: count for outcome, count in counts.items() if count}

    def of_method(self, labels: dict[str, str], epoch: float) -> Iterator[Figure | Distribution]:
        """Figures of a method; `epoch` is what the wall clock said when the Trio clock said zero."""
        for outcome, count in self.ends().items():
            shown = {**labels, "outcome": outcome}
            yield Figure("mcp_requests_total", count, "counter", "Exchanges that ended.", shown)
        for error, count in self.errors.items():
            yield Figure("mcp_errors_total", count, "counter", "Exchanges that failed.", {**labels, "error": error})
        latency = self.latency
        if not any(latency.counts):
            return
        text = "How long exchanges took, from this stage to their reply."
        yield latency.sample("mcp_request_duration_seconds", text, labels, epoch)
        rest = {name: value for name, value in labels.items() if name != "method"}
        if labels["method"] in ("tools/list", "tools/call"):
            name = f"mcp_{labels['method'].replace('/', '_')}_duration_seconds"
            yield latency.sample(name, f"How long {labels['method']} took.", rest, epoch)

    def of_tool(self, labels: dict[str, str], epoch: float) -> Iterator[Figure | Distribution]:
        """Figures of a tool."""
        for outcome, count in self.ends().items():
            shown = {**labels, "outcome": outcome}
            yield Figure("mcp_tool_executions_total", count, "counter", "Calls of tools.", shown)
        text = "How long calls of a tool took."
        yield self.latency.sample("mcp_tool_execution_duration_seconds", text, labels, epoch)

    def of_scheme(self, labels: dict[str, str]) -> Figure:
        """The figure of a scheme of resources."""
        count = sum(self.ends().values())
        return Figure("mcp_resource_accesses_total", count, "counter", "Resources read.", labels)


def count_up(counts: dict[_K, int], key: _K, maximum: int, other: _K, count: int = 1) -> None:
    """Count a key, or all others if it is new and there is no place."""
    if key not in counts and len(counts) >= maximum:
        key = other
    counts[key] = counts.get(key, 0) + count
