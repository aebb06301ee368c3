"""Small components with one option of each kind, for configurations in tests; loaded through `plugins:`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, Literal

from attrs import field, frozen

from sluiceway.pipeline.model.component import Middleware, Sink, Source, middleware, sink, source
from sluiceway.pipeline.model.options import (
    MINUTE,
    SECOND,
    ConfigPath,
    Duration,
    Rate,
    Ratio,
    Secret,
    Size,
    option,
)
from sluiceway.pipeline.model.order import Order
from sluiceway.pipeline.model.store import Store, store


class Colour(Enum):
    """An enum option's values."""

    RED = "red"
    BLUE = "blue"


@frozen(kw_only=True)
class Budget:
    """Options inside an option."""

    share: Ratio = option(Ratio(0.2), le=0.5, doc="Share of requests that may be repeated.")
    window: Duration = option(doc="Time over which they are counted.", example="10s")
    old: int | None = option(None, doc="What was.", deprecated="share")


@middleware("auth_toy")
class AuthToy(Middleware):
    """Knows who is calling."""

    role = "auth"
    order = (
        Order(
            "before", "cache", "error",
            "a cache in front of authentication can answer one tenant with another tenant's data",
        ),
    )  # fmt: skip

    @frozen
    class Config:
        """Options of `auth_toy`."""

        token: Secret | None = option(None, doc="What callers must know.", example={"from_env": "TOKEN"})


@middleware("cache_toy")
class CacheToy(Middleware):
    """
    Remembers replies.

    Raises:
        KeyError: Never.
    """

    role = "cache"

    @frozen
    class Config:
        """Options of `cache_toy`."""

        max_ttl: Duration = option(Duration(30 * SECOND), gt=0, doc="Longest time a reply is kept.")
        store: str | None = option(None, doc="Where replies are kept.", example="shared")


@middleware("trace_toy")
class TraceToy(Middleware):
    """Wants to be first, and outside of retry."""

    order = (
        Order("first", "", "info", "refusals before it have no span"),
        Order("after", "late", "warning", "it needs what late finds out"),
    )

    @frozen
    class Config:
        """No options."""


@middleware("late_toy")
class LateToy(Middleware):
    """Finds things out."""

    role = "late"

    @frozen
    class Config:
        """No options."""


@middleware("retry_toy")
class RetryToy(Middleware):
    """Tries again."""

    replays = True

    @frozen
    class Config:
        """Options of `retry_toy`."""

        max_attempts: int = option(3, ge=1, le=10, doc="Attempts, the first included.")
        base_delay: Duration = option(Duration(0.1), ge=0, doc="Pause before the second attempt.")
        budget: Budget | None = option(None, doc="Bound on repetitions.", example={"window": "10s"})
        rates: Mapping[str, Rate] = option(factory=dict, doc="Rates by tenant.", example={"acme": "60/min"})
        per: Literal["caller", "tenant", "source"] = option("caller", doc="What is counted.")


@middleware("every_toy")
class EveryToy(Middleware):
    """One option of each shape."""

    @frozen
    class Config:
        """Options of `every_toy`."""

        text: str = option("", doc="Text.")
        number: float = option(1.0, doc="A number.", le=100)
        count: int | None = option(None, doc="A count.", example=3)
        flag: bool = option(False, doc="A flag.")
        size: Size = option(Size(1024), ge=1, doc="A size.")
        ratio: Ratio = option(Ratio(0.5), doc="A share.")
        rate: Rate = option(Rate(60, MINUTE), doc="A rate.")
        secret: Secret | None = option(None, doc="A secret.", example={"from_env": "S"})
        secrets: tuple[Secret, ...] = option((), doc="Secrets.", example=[{"from_env": "S"}])
        headers: Mapping[str, str | Secret] = option(factory=dict, doc="Headers.", example={"a": "b"})
        path: ConfigPath | None = option(None, doc="A file.", example="./x")
        colour: Colour = option(Colour.RED, doc="A colour.")
        level: Literal[1, 2, "off"] = option(1, doc="A level.")
        either: Duration | Literal["never"] = option("never", doc="A time, or never.")
        names: frozenset[str] = option(frozenset(), doc="Names.", example=["a"])
        numbers: list[int] = option(factory=list, doc="Numbers.", example=[1])
        pairs: Sequence[Budget] = option((), doc="Budgets.", example=[{"window": "1s"}])
        anything: Any = option(None, doc="Anything.", example={"a": [1, None]})
        codes: Mapping[int, str] = option(factory=dict, doc="Texts by number.", example={"404": "gone"})
        derived: int = field(default=7, init=False)


@middleware("picky_toy")
class PickyToy(Middleware):
    """Checks its options by itself."""

    @frozen
    class Config:
        """Options of `picky_toy`."""

        low: int = option(1, doc="Least.")
        high: int = option(2, doc="Most.")
        maybe: tuple[str, ...] | None = option(None, doc="Names.", example=["a"])
        counts: Mapping[str, int] | None = option(None, doc="Counts.", example={"a": 1})

        def __attrs_post_init__(self) -> None:
            if self.low > self.high:
                raise ValueError("low is above high")


@sink("echo_toy")
class EchoToy(Sink):
    """Answers with what it got."""

    @frozen
    class Config:
        """No options."""


@sink("route_toy")
class RouteToy(Sink):
    """Sends to other sinks."""

    @frozen
    class Config:
        """Options of `route_toy`."""

        to: tuple[str, ...] = option(doc="Sinks to choose from.", example=["files"], refers="sink")
        weights: Mapping[str, int] = option(factory=dict, doc="Weights by sink.", example={"files": 1}, refers="sink")


@source("listen_toy")
class ListenToy(Source):
    """Listens somewhere."""

    @frozen
    class Config:
        """Options of `listen_toy`."""

        bind: str = option("127.0.0.1:8080", doc="Where to listen.")
        fallback: str | None = option(None, doc="Another pipeline.", example="main", refers="pipeline")


@source("quiet_toy")
class QuietToy(Source):
    """Listens nowhere."""

    @frozen
    class Config:
        """No options."""


@store("memory_toy")
class MemoryToy(Store):
    """Forgets."""

    @frozen
    class Config:
        """Options of `memory_toy`."""

        max_entries: int = option(10, ge=1, doc="Most entries.")
