"""Options of the `balance` sink, and what can be wrong with them together."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Literal, final

from attrs import frozen

from sluiceway.pipeline.model.options import MINUTE, SECOND, Duration, Ratio, Secret, option

from .keys import check_subject
from .reach import parse_address
from .strategies import PLAIN

_IMPORT: Final = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
HASH: Final = "consistent_hash"


@final
@frozen(kw_only=True)
class MemberConfig:
    """One upstream of the group."""

    weight: int = option(1, ge=0, le=100, doc="Its part of the requests, compared with the others; 0 for none.")
    probe: str | None = option(
        None,
        doc="What to connect to instead of sending `health.probe`: `tcp://host:port`, or the url of a health page, "
        "which must answer 2xx.",
        example="http://10.0.0.1:8080/healthz",
    )

    def __attrs_post_init__(self) -> None:
        if self.probe is not None:
            parse_address(self.probe)


@final
@frozen(kw_only=True)
class HashConfig:
    """What `consistent_hash` keeps together."""

    by: str = option(
        "caller",
        doc="What always goes to the same upstream: `caller`, `tenant`, `session`, `target` (the tool, prompt or uri), "
        "`header:<name>`, or `argument:<path>` of a tool, with dots. A request without it goes by `p2c`.",
        example="argument:repository.name",
    )
    virtual_nodes: int = option(
        500, ge=1, le=10_000, doc="Points on the ring for each unit of weight; more spread keys more evenly."
    )
    bounded_load: float | None = option(
        None, gt=1, le=10,
        doc="An upstream gets at most this many times its share of all requests in flight; the rest goes to the next.",
        example=1.25,
    )  # fmt: skip

    def __attrs_post_init__(self) -> None:
        check_subject(self.by)


@final
@frozen(kw_only=True)
class HealthConfig:
    """How upstreams are asked whether they are well."""

    probe: Literal["discover", "ping", "none"] = option(
        "discover",
        doc="What is sent: `server/discover`, which any answer passes but HTTP 5xx and -32603; or `ping` in a session "
        "of its own, for upstreams that know handshakes only.",
    )
    interval: Duration = option(
        Duration(10 * SECOND), gt=0, doc="Time between two probes of an upstream; after a failed one a tenth of it."
    )
    timeout: Duration = option(Duration(2 * SECOND), gt=0, doc="Time an upstream has for an answer.")
    unhealthy_after: int = option(2, ge=1, doc="Probes in a row that must fail for an upstream to be down.")
    healthy_after: int = option(1, ge=1, doc="Probes in a row that must succeed for it to be up again.")


@final
@frozen(kw_only=True)
class EjectConfig:
    """When failures of requests put an upstream out."""

    consecutive: int = option(5, ge=1, doc="Failures in a row that are the upstream's fault.")
    window: Duration = option(
        Duration(1 * MINUTE), gt=0, doc="A failure that comes later than this after the one before counts as the first."
    )
    base: Duration = option(
        Duration(30 * SECOND), gt=0, doc="How long it is out; the n-th time n times as long. A probe may end it early."
    )
    max: Duration = option(Duration(5 * MINUTE), gt=0, doc="How long it is out at most.")
    max_ejected: Ratio = option(
        Ratio(0.1), ge=0, doc="Share of the group that may be out for failures at once; one always may."
    )

    def __attrs_post_init__(self) -> None:
        if self.max < self.base:
            raise ValueError("max is shorter than base; raise it")


@final
@frozen(kw_only=True)
class BalanceConfig:
    """Options of the sink."""

    to: tuple[str, ...] | Mapping[str, MemberConfig] = option(
        doc="Ids of the sinks of equal upstreams, or globs of them; or a mapping with settings for each.",
        example=["search_1", "search_2", "search_3"],
        refers="sink",
    )
    strategy: str = option(
        "p2c",
        doc="Who gets a request: `round_robin`, `random`, `weighted`, `least_loaded`, `consistent_hash`, `p2c` (the "
        "better of two drawn at random, by latency and requests in flight), or your own as `package.module:Class`.",
        example="least_loaded",
    )
    hash: HashConfig = option(
        HashConfig(), doc="What `consistent_hash` keeps together; your own strategy is given it, too.",
        example={"by": "tenant", "bounded_load": 1.25},
    )  # fmt: skip
    health: HealthConfig = option(
        HealthConfig(), doc="Probes.", example={"probe": "ping", "interval": "5s"}
    )  # fmt: skip
    eject: EjectConfig = option(
        EjectConfig(), doc="What failures of requests lead to.", example={"consecutive": 3, "base": "10s"}
    )  # fmt: skip
    panic_threshold: Ratio = option(
        Ratio(0.5), ge=0,
        doc="Share of the group that must be well. Below it all are used, for if so many seem ill, the fault is "
        "elsewhere; 0% to refuse instead once none is well.",
    )  # fmt: skip
    slow_start: Duration = option(
        Duration(30 * SECOND), ge=0, doc="Time in which an upstream that is back gets up to its full part; 0s for none."
    )
    offers: Literal["same", "differ"] = option(
        "same",
        doc="Whether every upstream offers the same tools, prompts and resources. Where they differ, clients of "
        "2026-07-28 see the lists of all as one, and a request goes to those that have listed what it is about; a "
        "session has what its own upstream offers.",
    )
    seal_key: Secret | None = option(
        None,
        doc="Key that authenticates cursors, request states and ids of tasks; needed where several processes serve the "
        "same clients. Without it the first two have a random key at each start, and ids of tasks none.",
        example={"from_env": "SLUICEWAY_SEAL_KEY"},
    )

    def __attrs_post_init__(self) -> None:
        members = self.members()
        if not members:
            raise ValueError("to: names no sink; name at least one")
        if len(members) != len(self.to):
            raise ValueError("to: names a sink twice")
        if not any(member.weight for member in members.values()):
            raise ValueError("to: every weight is 0, so nobody would be sent anything; raise one")
        if self.strategy not in PLAIN and self.strategy != HASH and not _IMPORT.fullmatch(self.strategy):
            known = ", ".join([*PLAIN, HASH])
            raise ValueError(f"strategy: {self.strategy!r} is none of {known}, and no package.module:Class")

    def members(self) -> dict[str, MemberConfig]:
        """The upstreams by id, in order."""
        return dict(self.to) if isinstance(self.to, Mapping) else {sink_id: MemberConfig() for sink_id in self.to}
