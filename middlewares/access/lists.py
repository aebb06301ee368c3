"""Results and subscriptions without what a caller may not have. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from sluiceway.pipeline.protocol.errors import InvalidParams, UpstreamProtocolError
from sluiceway.pipeline.protocol.messages import Json, Result

COLLISIONS: Final = "io.sluiceway/collisions"
"""What a `route` says in `_meta` that it left out of a list, by name: it is no more for everybody than the list."""

Shown = Callable[[str], bool]
"""Whether the caller may have what has this name."""


def without(reply: Result, members: str, key: str, is_shown: Shown) -> tuple[Result, int]:
    """
    A list without what is not to be shown; nobody else's, if it was everybody's.

    Args:
        reply: The list, with whatever stands around it.
        members: The member that holds the entries.
        key: The member of an entry that names it; entries without a name are not shown.
        is_shown: Decides.

    Returns:
        The same object if nothing is to change; and how many entries are not in it.

    Raises:
        UpstreamProtocolError: It is no list; nothing of it could be judged.
    """
    value = reply.value
    listed = value.get(members, [])
    if not isinstance(listed, list):
        raise UpstreamProtocolError(f"the upstream's list is none: {members} is no array")
    shown = [
        entry
        for entry in listed
        if isinstance(entry, dict) and isinstance(name := entry.get(key), str) and is_shown(name)
    ]
    hidden = len(listed) - len(shown)
    changed: dict[str, Json] = {members: shown} if hidden else {}
    meta = value.get("_meta")
    if isinstance(meta, dict) and COLLISIONS in meta:
        changed["_meta"] = _meta_without(meta, is_shown)
    if is_shared(value):
        changed["cacheScope"] = "private"
    return (Result({**value, **changed}) if changed else reply), hidden


def is_shared(value: Mapping[str, Json]) -> bool:
    """Whether a result says that it is everybody's (MCP 2026-07-28, caching)."""
    scope: Any = value.get("cacheScope")
    return scope is not None and scope != "private"


def subset(wanted: Mapping[str, Json], key: str, is_shown: Shown) -> dict[str, list[str]]:
    """
    Those of a list of names that may stay, under its key; nothing if there is no such list.

    Raises:
        InvalidParams: It is no list of texts.
    """
    listed = wanted.get(key)
    if listed is None:
        return {}
    if not isinstance(listed, list) or not all(isinstance(item, str) for item in listed):
        raise InvalidParams(f"notifications.{key} must be a list of texts")
    return {key: [item for item in listed if is_shown(item)]}


def _meta_without(meta: Mapping[str, Json], is_shown: Shown) -> dict[str, Json]:
    collisions = meta[COLLISIONS]
    told = {name: ids for name, ids in collisions.items() if is_shown(name)} if isinstance(collisions, dict) else {}
    rest = {key: item for key, item in meta.items() if key != COLLISIONS}
    return {**rest, COLLISIONS: told} if told else rest
