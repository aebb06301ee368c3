"""The options of `cache`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

from attrs import frozen

from sluiceway.pipeline.model.options import DAY, MIB, MILLISECOND, MINUTE, Duration, Size, option

from .rules import Keepable, Rule


@final
@frozen(kw_only=True)
class Warm:
    """A request that is made before anybody asks."""

    method: Keepable = option(doc="Its method.", example="tools/list")
    params: Mapping[str, Any] = option(
        factory=dict, doc="Its params, without `_meta`.", example={"uri": "file:///readme.md"}
    )
    tenant: str | None = option(None, doc="The tenant that shares the answer; none when absent.", example="acme")


@final
@frozen(kw_only=True)
class CacheConfig:
    """Options of `cache`."""

    rules: tuple[Rule, ...] = option(
        (),
        doc="What is kept although it does not say how long it is good; the first that matches counts. Of what says so "
        "itself, a rule can only shorten the time.",
        example=[{"method": ["tools/list", "resources/list"], "ttl": "5m"}],
    )
    max_ttl: Duration = option(
        Duration(DAY), gt=0, le=DAY, doc="Longest time anything is fresh, whatever upstreams say; handed on to clients."
    )
    trust_public: bool = option(
        False,
        doc="Share what upstreams call `public` among all callers of a tenant. An upstream that says so wrongly shows "
        "one caller's data to another one: set it only if every upstream behind the stage is trusted.",
    )
    trust_hints: bool = option(
        False, doc="Believe tools that say they only read. Set it only if every upstream behind the stage is trusted."
    )
    stale_while_revalidate: Duration = option(
        Duration(0), ge=0, le=DAY, doc="How long past its time an answer is given out while it is refreshed."
    )
    stale_if_error: Duration = option(
        Duration(0), ge=0, le=DAY, doc="How long past its time an answer is given out when the upstream fails."
    )
    negative_ttl: Duration | None = option(
        None,
        gt=0,
        le=MINUTE,
        doc="How long it is remembered that something does not exist (-32601, -32602, -32002); not at all when absent.",
        example="5s",
    )
    negative_tool_errors: bool = option(
        False, doc="Remember failures of tools (`isError`), too, for `negative_ttl`, where a rule covers the tool."
    )
    memory: bool = option(True, doc="Keep answers in memory, in front of `stores`.")
    max_entries: int = option(
        10_000,
        ge=1,
        doc="Answers held in memory; above this the least recently used goes. As many calls can be shared at once.",
    )
    max_bytes: Size = option(Size(64 * MIB), ge=1, doc="Bytes of answers in memory; likewise. Equal ones count once.")
    max_entry: Size = option(Size(MIB), ge=1, doc="Largest answer that is kept.")
    max_idle: Duration = option(
        Duration(MINUTE), gt=0, doc="An answer that nobody asks for is gone from memory after this time."
    )
    max_waiting: int = option(1_000, ge=1, doc="Exchanges that may wait for one call; others make it themselves.")
    max_refreshing: int = option(16, ge=1, doc="Answers that may be refreshed in the background at the same time.")
    stores: tuple[str, ...] = option(
        (),
        doc="Stores below memory, nearest first: for more than fits into memory, for what must survive a restart.",
        example=["shared"],
        refers="store",
    )
    store_timeout: Duration = option(
        Duration(250 * MILLISECOND), gt=0, doc="What a store may take; it is left alone for a while if it often fails."
    )
    warm: tuple[Warm, ...] = option(
        (),
        doc="Requests to make when the gateway starts. Only public answers can be kept for others (`scope: public` in "
        "a rule, or `trust_public`).",
        example=[{"method": "tools/list"}],
    )
    warm_wait: bool = option(False, doc="Be ready only when `warm` is done; one that fails is logged.")
    warm_required: bool = option(False, doc="Do not start at all if one of `warm` fails.")
