"""What several servers say of themselves, said as one: capabilities, versions, instructions, how long to keep it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Final

from sluiceway.pipeline.protocol.errors import UpstreamProtocolError
from sluiceway.pipeline.protocol.mcp import LEGACY_VERSIONS, MetaKey, meta_of
from sluiceway.pipeline.protocol.messages import Json

from .naming import Upstream


class Note(StrEnum):
    """Keys of `_meta` in merged results."""

    MISSING = "io.sluiceway/missing"
    """Ids of the upstreams that did not answer in time, or failed."""
    COLLISIONS = "io.sluiceway/collisions"
    """Names and uris left out because several upstreams have them: ids of those, by name."""


Part = tuple[Upstream, Mapping[str, Json]]
"""What one upstream said."""

_LISTS: Final = ("tools", "prompts", "resources")


def merge_capabilities(parts: Iterable[Mapping[str, Json]]) -> dict[str, Json]:
    """
    What at least one server can do; the first one's word where they differ in kind.

    Lists change when a late upstream arrives, so `listChanged` is declared wherever there is a list.
    """
    merged: dict[str, Json] = {}
    for each in parts:
        merged = _union(merged, each)
    for kind in _LISTS:
        if isinstance(merged.get(kind), dict):
            merged[kind] = {**merged[kind], "listChanged": True}
    return merged


def _union(left: Mapping[str, Json], right: Mapping[str, Json]) -> dict[str, Json]:
    merged = dict(left)
    for key, value in right.items():
        mine = merged.get(key)
        if isinstance(mine, dict) and isinstance(value, dict):
            merged[key] = _union(mine, value)
        elif key not in merged or (mine is False and value is True):
            merged[key] = value
    return merged


def merge_instructions(parts: Iterable[Part]) -> str | None:
    """The servers' instructions, each introduced by the prefix its names have; None if there are none."""
    texts = []
    for upstream, value in parts:
        text = value.get("instructions")
        if isinstance(text, str) and text:
            texts.append(text if upstream.bare else f"About names that begin with `{upstream.prefix}`:\n{text}")
    return "\n\n".join(texts) or None


def lowest_version(versions: Iterable[Json]) -> str:
    """
    The oldest of the legacy revisions that servers have settled on: what all of them can be spoken to in.

    Raises:
        UpstreamProtocolError: One is none that we speak.
    """
    known = list(versions)
    for version in known:
        if version not in LEGACY_VERSIONS:
            raise UpstreamProtocolError(f"an upstream settled on the version {version!r:.40}, which nobody asked for")
    return LEGACY_VERSIONS[min(map(LEGACY_VERSIONS.index, known))]


def common_versions(lists: Sequence[Json]) -> list[str]:
    """The revisions that all servers support, in the order of the first."""
    first, *others = [each if isinstance(each, list) else [] for each in lists]
    return [version for version in first if all(version in other for other in others)]


def merge_hints(values: Sequence[Mapping[str, Json]], *, complete: bool) -> dict[str, Json]:
    """
    `ttlMs` and `cacheScope` of a merged result (2026-07-28, server/utilities/caching): the shortest, and `private` if
    one is. What is not complete is not to be kept.
    """
    ttls = [value["ttlMs"] for value in values if isinstance(value.get("ttlMs"), int | float)]
    scopes = [value["cacheScope"] for value in values if "cacheScope" in value]
    hints: dict[str, Json] = {}
    if ttls:
        hints["ttlMs"] = min(ttls) if complete and len(ttls) == len(values) else 0
    if scopes:
        public = len(scopes) == len(values) and all(scope == "public" for scope in scopes)
        hints["cacheScope"] = "public" if public else "private"
    return hints


def merge_rest(
    values: Sequence[Mapping[str, Json]], without: frozenset[str], notes: Mapping[Note, Json], info: Json
) -> dict[str, Json]:
    """
    The members of results that are merged by no rule of their own: the first one's word; and the `_meta` of all.

    Args:
        values: The results, in order.
        without: Members that have a rule.
        notes: Ours, for `_meta`; those without content are left out.
        info: `serverInfo` of a merged result of 2026-07-28; stands in for the upstreams' own.
    """
    merged: dict[str, Json] = {}
    meta: dict[str, Json] = {}
    for value in values:
        merged = {**{key: each for key, each in value.items() if key not in without}, **merged}
        meta = {**meta_of(value), **meta}
    if MetaKey.SERVER_INFO in meta and len(values) > 1:
        meta[MetaKey.SERVER_INFO.value] = info
    meta.update({str(key): note for key, note in notes.items() if note})
    merged.pop("_meta", None)
    return {**merged, "_meta": meta} if meta else merged
