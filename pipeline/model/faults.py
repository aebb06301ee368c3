"""
Faults on purpose: what goes wrong, how often, and from which seed.

One declaration serves the stage `fault` in a running gateway, sinks and stores in tests, and the proxy of the test kit
that breaks connections byte by byte. Which exchange is hit is a pure function of the plan, the seed and the order in
which exchanges come: every failure can be had again.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final, Literal, final

from attrs import frozen

from .options import SECOND, Duration, Ratio, Size, option

Effect = Literal["refuse", "drop", "hang", "reset", "truncate", "malform", "crash"]
"""How an upstream fails."""
StoreEffect = Literal["fail", "hang"]
"""How a store fails."""

_HOW_OFTEN: Final = "share, skip and times say how often"


@frozen(kw_only=True)
class Odds:
    """Which of those that come are hit, and how much later they are."""

    latency: Duration | None = option(None, gt=0, doc="Time it takes longer.", example="200ms")
    jitter: Duration | None = option(
        None, gt=0, doc="Up to how much longer still, evenly distributed.", example="100ms"
    )
    share: Ratio = option(Ratio(1.0), gt=0, doc="Share of those that come which are hit, by chance.")
    skip: int = option(0, ge=0, doc="How many pass before the first can be hit.")
    times: int | None = option(None, ge=1, doc="How many are hit before it is over; without end if absent.", example=1)


@final
@frozen(kw_only=True)
class Fault(Odds):
    """One thing that goes wrong with an upstream."""

    effect: Effect | None = option(
        None,
        doc="`refuse`: no connection, nothing was sent. `drop`: the request is lost, nobody answers. `hang`: it "
        "arrives, nobody answers. `reset`: the connection breaks once the request is on its way. `truncate`: it breaks "
        "in the middle of the answer. `malform`: the answer is no MCP. `crash`: as `reset`, and the server is gone "
        "for `down`.",
        example="reset",
    )
    drip: Size | None = option(None, ge=1, doc="Bytes of the answer that arrive in a second.", example="1KiB")
    down: Duration = option(Duration(5 * SECOND), gt=0, doc="How long the server is gone after a `crash`.")

    def __attrs_post_init__(self) -> None:
        if self.effect is None and self.latency is None and self.jitter is None and self.drip is None:
            raise ValueError(f"nothing goes wrong: give effect, latency, jitter or drip; {_HOW_OFTEN}")


@final
@frozen(kw_only=True)
class StoreFault(Odds):
    """One thing that goes wrong with a store."""

    effect: StoreEffect | None = option(None, doc="`fail`: the operation fails. `hang`: it never ends.", example="fail")

    def __attrs_post_init__(self) -> None:
        if self.effect is None and self.latency is None and self.jitter is None:
            raise ValueError(f"nothing goes wrong: give effect, latency or jitter; {_HOW_OFTEN}")


@final
class Dice:
    """
    Decides for one fault, one arrival after the other.

    Args:
        odds: The fault.
        rng: Its own source of randomness, so that what one fault does depends on no other.
    """

    def __init__(self, odds: Odds, rng: random.Random) -> None:
        self._odds = odds
        self._random = rng
        self._seen = 0
        self._hits = 0

    def roll(self) -> float | None:
        """The delay in seconds if the next arrival is hit, else None."""
        odds = self._odds
        chance, spread = self._random.random(), self._random.random()  # always both: the next ones stay what they are
        self._seen += 1
        if self._seen <= odds.skip or chance >= odds.share or (odds.times is not None and self._hits >= odds.times):
            return None
        self._hits += 1
        return (odds.latency or 0.0) + (odds.jitter or 0.0) * spread


def dice_for(faults: Sequence[Odds], rng: random.Random) -> list[Dice]:
    """Dice for each fault, seeded from `rng` in order."""
    return [Dice(fault, random.Random(rng.getrandbits(64))) for fault in faults]  # noqa: S311  # chance, not secrets


@final
@frozen
class Harm:
    """What happens to one exchange."""

    delay_s: float = 0.0
    effect: Effect | None = None
    drip: int | None = None
    """Bytes per second of its answer."""

    @property
    def words(self) -> str:
        """For a decision: `reset`, `delay`, or both."""
        parts = ["delay"] * bool(self.delay_s) + ["drip"] * (self.drip is not None) + [self.effect or ""]
        return ", ".join(part for part in parts if part)


NO_HARM: Final = Harm()


@final
class FaultPlan:
    """
    Some faults, and what became of them so far. Pure: the caller says what time it is.

    Args:
        faults: Tried in order for each exchange. Delays add up; the first effect counts.
        rng: What it is seeded from.
    """

    def __init__(self, faults: Sequence[Fault], rng: random.Random) -> None:
        self._rows = list(zip(faults, dice_for(faults, rng), strict=True))
        self._back_at = float("-inf")
        self.harmed = 0
        """Exchanges that were hit so far."""

    def is_down(self, now: float) -> bool:
        """Whether the upstream is still gone after a `crash`, at `now` seconds."""
        return now < self._back_at

    def draw(self, now: float) -> Harm:
        """What happens to the exchange that comes now, at `now` seconds of whatever clock `is_down` is asked with."""
        delay_s, effect, drip = 0.0, None, None
        for fault, dice in self._rows:
            hit = dice.roll()
            if hit is None:
                continue
            delay_s += hit
            if effect is None and fault.effect is not None:
                effect = fault.effect
                if effect == "crash":
                    self._back_at = now + delay_s + fault.down
            drip = fault.drip if drip is None else drip
        if not (delay_s or effect or drip):
            return NO_HARM
        self.harmed += 1
        return Harm(delay_s, effect, drip)
