"""The options of `load_shed`."""

from __future__ import annotations

import math
from typing import Literal, final

from attrs import frozen

from sluiceway.pipeline.model.options import SECOND, Duration, Ratio, Size, option
from sluiceway.pipeline.model.when import When


@final
@frozen(kw_only=True)
class PriorityRule:
    """Which exchanges matter more, or less."""

    when: When = option(doc="The exchanges meant, as in the guard of a stage.", example={"caller": "batch-*"})
    priority: Literal["high", "normal", "low"] = option(doc="Their priority.", example="low")


@final
@frozen(kw_only=True)
class Share:
    """Who gets more than others when all of them wait."""

    when: When = option(doc="The exchanges meant, as in the guard of a stage.", example={"tenant": "gold-*"})
    weight: int = option(ge=1, le=100, doc="How many of them are served in one turn.", example=4)


@final
@frozen(kw_only=True)
class Adaptive:
    """A limit that is found out: see `docs/limits.md`."""

    target: Duration = option(gt=0, doc="Time that nine of ten exchanges should not exceed.", example="500ms")
    min_in_flight: int = option(1, ge=1, doc="The limit never goes below; `max_in_flight` is where it starts.")
    backoff: Ratio = option(Ratio(0.9), gt=0, le=0.99, doc="What remains of the limit when too many are slow.")


@final
@frozen
class LoadShedConfig:
    """Options of `load_shed`."""

    max_in_flight: int = option(64, ge=1, doc="Exchanges inside at the same time.")
    max_waiting: int = option(1000, ge=0, doc="Exchanges that may wait.")
    shed_above: Ratio | int = option(
        Ratio(0.8),
        ge=0,
        doc="How full the queue may be, as a share or a number, before all but those of high priority are refused.",
        example="80%",
    )
    wait_at_most: Duration = option(
        Duration(1 * SECOND), gt=0, doc="Time an exchange may wait for a place before it is refused."
    )
    per: Literal["tenant", "caller", "source"] = option(
        "tenant", doc="Between whom places are divided fairly: each gets its turn, however many wait."
    )
    weights: tuple[Share, ...] = option(
        (),
        doc="Turns that serve more than one exchange; the first rule that matches decides, otherwise it is 1.",
        example=[{"when": {"tenant": "gold-*"}, "weight": 4}],
    )
    priorities: tuple[PriorityRule, ...] = option(
        (),
        doc="Priorities of exchanges; the first rule that matches decides, otherwise it is `normal`.",
        example=[{"when": {"caller": "batch-*"}, "priority": "low"}],
    )
    adaptive: Adaptive | None = option(
        None, doc="Lower the limit while exchanges are slow, and raise it again.", example={"target": "500ms"}
    )
    max_memory: Size | None = option(
        None,
        gt=0,
        doc="Memory this process may have: above 92% of it low priority is refused, above 95% all is.",
        example="1GiB",
    )
    retry_after: Duration = option(
        Duration(1 * SECOND), gt=0, doc="What refused clients are told to wait before they try again."
    )

    @property
    def threshold(self) -> int:
        """Waiters above which only high priority may join."""
        if isinstance(self.shed_above, int):
            return min(self.shed_above, self.max_waiting)
        return math.floor(self.shed_above * self.max_waiting + 1e-9)  # 57 % of 100 are 57

    def __attrs_post_init__(self) -> None:
        if self.adaptive is not None and self.adaptive.min_in_flight > self.max_in_flight:
            least = self.adaptive.min_in_flight
            raise ValueError(f"adaptive.min_in_flight is {least}, more than max_in_flight, {self.max_in_flight}")
