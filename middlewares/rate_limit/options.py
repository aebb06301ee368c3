"""The options of `rate_limit`, and the limits they mean."""

from __future__ import annotations

from typing import Literal, final

from attrs import evolve, frozen

from sluiceway.pipeline.model.gcra import Limit, Window
from sluiceway.pipeline.model.options import MINUTE, Duration, Rate, option
from sluiceway.pipeline.model.when import When

from .keys import Per, key_of


@final
@frozen(kw_only=True)
class Override:
    """Another rate for some exchanges."""

    when: When = option(doc="The exchanges meant, as in the guard of a stage.", example={"tenant": "acme"})
    rate: Rate | tuple[Rate, ...] = option(doc="Their rate, or several that must all admit.", example="600/min")
    burst: int | tuple[int, ...] | None = option(
        None, ge=1, doc="What may come at once, as in the stage itself.", example=100
    )


@final
@frozen(kw_only=True)
class Weight:
    """What some exchanges count for."""

    when: When = option(doc="The exchanges meant, as in the guard of a stage.", example={"name": "export_*"})
    weight: int = option(
        ge=0, doc="How many requests each counts for; 0 is free, above the burst is all of it.", example=10
    )


def limit_of(rate: Rate | tuple[Rate, ...], burst: int | tuple[int, ...] | None) -> Limit:
    """
    The limit that options mean.

    Raises:
        ValueError: There is no rate, a burst is less than 1, or there are not as many bursts as rates.
    """
    rates = rate if isinstance(rate, tuple) else (rate,)
    bursts = bursts_of(rate) if burst is None else burst if isinstance(burst, tuple) else (burst,)
    if not rates or len(rates) != len(bursts):
        raise ValueError(f"give one burst for each rate, in the same order: {len(rates)} rates, {len(bursts)} bursts")
    return Limit(*map(Window, rates, bursts))


def bursts_of(rate: Rate | tuple[Rate, ...]) -> tuple[int, ...]:
    """What may come at once where no option says so: what each rate counts."""
    return tuple(max(1, int(each.count)) for each in (rate if isinstance(rate, tuple) else (rate,)))


@final
@frozen
class RateLimitConfig:
    """Options of `rate_limit`."""

    rate: Rate | tuple[Rate, ...] = option(
        Rate(60, MINUTE), doc="Requests per time and key; a list of rates that must all admit, if there are several."
    )
    burst: int | tuple[int, ...] | None = option(
        None, ge=1, doc="Requests that may come at once; what the rate counts when absent. A list for several rates.",
        example=20,
    )  # fmt: skip
    per: Per | tuple[Per, ...] = option(
        "caller", doc="What is counted together; a list for a combination. `target` is a method with its tool or uri."
    )
    weights: tuple[Weight, ...] = option(
        (),
        doc="Requests that count for more, or for less; the first that matches decides, otherwise it is 1.",
        example=[{"when": {"name": "export_*"}, "weight": 10}],
    )
    overrides: tuple[Override, ...] = option(
        (),
        doc="Other rates for some exchanges, which are counted apart; the first that matches decides.",
        example=[{"when": {"tenant": "acme"}, "rate": "600/min", "burst": 100}],
    )
    wait_at_most: Duration | None = option(
        None, gt=0, doc="Time a request may wait for its turn instead of being refused.", example="5s"
    )
    headers: Literal["ratelimit", "x-ratelimit", "none"] = option(
        "ratelimit",
        doc="Response headers: `RateLimit` and `RateLimit-Policy` (IETF draft), the older `X-RateLimit-*`, or none.",
    )
    trusted_proxies: tuple[str, ...] = option(
        (), doc="Addresses or networks of proxies whose `X-Forwarded-For` is believed.", example=["10.0.0.0/8"]
    )
    ipv6_prefix: int = option(64, ge=16, le=128, doc="Bits of an IPv6 address that count as one sender.")
    max_keys: int = option(
        100_000, ge=1, doc="Keys in debt at the same time, for each rate; a new one above this is refused."
    )
    store: str | None = option(None, doc="Where the counts are kept instead of in this process.", example="state")
    on_failure: Literal["open", "closed"] = option(
        "open", doc="When the store fails: count in this process only, or refuse everything."
    )

    @property
    def parts(self) -> tuple[Per, ...]:
        """What keys are made of."""
        return self.per if isinstance(self.per, tuple) else (self.per,)

    def __attrs_post_init__(self) -> None:
        limit_of(self.rate, self.burst)
        for override in self.overrides:
            limit_of(override.rate, override.burst)
        key_of(self.parts, self.trusted_proxies, self.ipv6_prefix)


def with_bursts(config: RateLimitConfig) -> RateLimitConfig:
    """The same with every burst written out."""
    overrides = tuple(evolve(each, burst=each.burst or bursts_of(each.rate)) for each in config.overrides)
    return evolve(config, burst=config.burst or bursts_of(config.rate), overrides=overrides)
